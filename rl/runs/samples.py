"""One line a sample: what `rollouts/step_N.jsonl` holds, for reports, for people and for the engine `replay`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...records import Group


def sample_rows(step: int, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The samples of one step, in order."""
    return [_row(step, group, index) for group in groups for index in range(len(group.samples))]


def _row(step: int, group: Group, place: int) -> dict[str, Any]:
    sample, verdict = group.samples[place], group.verdicts[place]
    return {
        "step": step,
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
