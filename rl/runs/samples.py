"""One line a sample: what `rollouts/step_N.jsonl` holds, for reports, for people and for the engine `replay`.

A checkpoint holds the groups that were ahead of it in the same form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...records import Group, Problem, Verdict
from ...rollouts.replay import sample_of


def sample_rows(step: int, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The samples of one step, in order."""
    return [
        {"step": step, "group": number, **_row(group, index)}
        for number, group in enumerate(groups)
        for index in range(len(group.samples))
    ]


def groups_of(rows: Sequence[Mapping[str, Any]], problems: Mapping[str, Problem]) -> list[Group]:
    """The judged, not yet scored groups that `sample_rows` wrote down; `problems` by id."""
    places: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        places.setdefault(row["group"], []).append(row)
    return [
        Group(
            problems[members[0]["problem"]],
            tuple(sample_of(row) for row in members),
            tuple(
                Verdict(*(row[key] for key in ("outcome", "reason", "seconds", "detail", "certificate")))
                for row in members
            ),
        )
        for members in places.values()
    ]


def _row(group: Group, place: int) -> dict[str, Any]:
    sample, verdict = group.samples[place], group.verdicts[place]
    return {
        "problem": group.problem.id,
        "prompt": _text(group.problem.prompt),
        "answer": group.problem.answer,
        "index": sample.index,
        "seed": sample.seed,
        "version": sample.version.number,
        "digest": sample.version.digest,
        "prompt_ids": sample.prompt_ids.tolist(),
        "tokens": sample.tokens_T.tolist(),
        "logp": None if sample.logp_T is None else [float(x) for x in sample.logp_T],
        "text": sample.text,
        "stop": sample.stop,
        "worker": sample.served.worker,
        "adapter": sample.served.adapter,
        "cached": sample.served.cached,
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "detail": verdict.detail,
        "certificate": verdict.certificate,
        "seconds": round(verdict.seconds, 4),
        "reward": _number(group.rewards_G, place),
        "raw": _number(group.raw_G, place),
        "parts": {name: _number(values_G, place) for name, values_G in group.parts.items()},
    }


def _text(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(f"{m['role']}: {m['content']}" for m in prompt)


def _number(values_G: Any, place: int) -> float | None:
    if values_G is None or not math.isfinite(values_G[place]):
        return None
    return float(values_G[place])
