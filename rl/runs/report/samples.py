"""Which samples of a run a report shows: best, worst, ungraded and some of the rest, of steps all along it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from ..reading import Run, is_number, objects, rollout_files

STEPS = 60
"""Steps of which samples are looked at, evenly spread; ungraded samples are looked for in all."""
CHARACTERS = 12_000
"""Longer texts are shown without their middle."""

KINDS = ("ungraded", "best", "worst", "other")
NUMBERS = ("index", "version", "seconds", "reward", "raw")
TEXTS = ("problem", "prompt", "answer", "digest", "text", "stop", "outcome", "reason", "seed")
"""Seeds have 63 bits, more than a browser's numbers hold, so they are shown as text."""

Shown = dict[str, Any]


@dataclass
class Chosen:
    """What the page embeds: samples (their prompts as indices into `prompts`), out of `total` that the runs saved."""

    samples: list[dict[str, Any]] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    total: int = 0
    damaged: int = 0


def choose(runs: Sequence[Run], limit: int) -> Chosen:
    """At most `limit` samples, shared evenly among runs, then steps, then kinds; by run and ascending step."""
    chosen = Chosen()
    prompts: dict[str, int] = {}
    for number, run in enumerate(runs):
        taken = _of_run(run, limit // len(runs), chosen)
        for kind, sample in sorted(taken, key=lambda pair: pair[1]["step"]):
            prompt = prompts.setdefault(sample["prompt"], len(prompts))
            chosen.samples.append({**sample, "run": number, "kind": kind, "prompt": prompt})
    chosen.prompts = list(prompts)
    return chosen


def _of_run(run: Run, limit: int, chosen: Chosen) -> list[tuple[str, Shown]]:
    files = rollout_files(run.folder)
    looked_at = {files[i][0] for i in _evenly(len(files), STEPS)}
    queues: list[Iterator[tuple[str, Shown]]] = []
    elsewhere: list[Shown] = []
    for step, path in files:
        samples: list[Shown] = []
        for sample in _read(path, step in looked_at, chosen):
            if step in looked_at:
                samples.append({**_shown(sample), "step": step})
            elif sample.get("outcome") == "could_not_grade" and len(elsewhere) < limit:
                elsewhere.append({**_shown(sample), "step": step})
        queues.append(_in_turn(samples))
    queues.append(("ungraded", sample) for sample in elsewhere)
    return list(islice(_round_robin(queues), limit))


def _evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` indices below `count`, first and last among them."""
    if count <= wanted:
        return list(range(count))
    return [i * (count - 1) // (wanted - 1) for i in range(wanted)]


def _read(path: Path, whole: bool, chosen: Chosen) -> Iterator[Mapping[str, Any]]:
    """A file's samples; unless `whole`, only lines that may be of an ungraded one are parsed, all are counted."""
    with path.open("rb") as file:
        for line in file:
            chosen.total += 1
            if not whole and b"could_not_grade" not in line:
                continue
            sample = next(objects(iter([line])), None)
            if sample is None:
                chosen.damaged += 1
            else:
                yield sample


def _in_turn(samples: Sequence[Shown]) -> Iterator[tuple[str, Shown]]:
    """A step's samples, each once: an ungraded, the best, the worst, one from the middle, and round again."""
    ungraded = [s for s in samples if s["outcome"] == "could_not_grade"]
    graded = sorted((s for s in samples if s["outcome"] != "could_not_grade"), key=_reward, reverse=True)
    third = math.ceil(len(graded) / 3)
    best, other, worst = graded[:third], graded[third : len(graded) - third], graded[third:][-third:][::-1]
    queues = zip(KINDS, (ungraded, best, worst, other), strict=True)
    return _round_robin([iter([(kind, sample) for sample in queue]) for kind, queue in queues])


def _round_robin(queues: Sequence[Iterator[tuple[str, Shown]]]) -> Iterator[tuple[str, Shown]]:
    return (item for row in zip_longest(*queues) for item in row if item is not None)


def _reward(sample: Shown) -> float:
    return sample["reward"] if sample["reward"] is not None else 0.0


def _shown(sample: Mapping[str, Any]) -> Shown:
    """What the page shows of a sample; texts as texts, numbers as numbers or None, whatever the line held."""
    parts, tokens = sample.get("parts"), sample.get("tokens")
    return {
        **{name: sample.get(name) if is_number(sample.get(name)) else None for name in NUMBERS},
        **{name: _cut(sample.get(name)) for name in TEXTS},
        "length": len(tokens) if isinstance(tokens, list) else None,
        "parts": {str(k): v for k, v in parts.items() if is_number(v)} if isinstance(parts, Mapping) else {},
    }


def _cut(value: object) -> str:
    text = "" if value is None else str(value)
    if len(text) <= CHARACTERS:
        return text
    half = CHARACTERS // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[-half:]}"
