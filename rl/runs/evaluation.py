"""Evaluation: pass@N from n samples a problem, with problem-level bootstrap intervals, alone and paired.

pass@k is the unbiased estimator 1 - C(n-c, k) / C(n, k) (Chen et al. 2021, eq. 1), in the stable product form.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...records import Group, Problem

RESAMPLES = 4000
HELD = 1 << 20
"""Drawn problems held at once while resampling."""


@dataclass(frozen=True)
class Tally:
    """How one policy did on a set of problems: of `graded_P` samples a problem, `right_P` were right.

    `sources` says which part of the set each problem is of, where the data tell; `reasons` counts samples by
    `outcome/reason`; `report` is what the verifier has to say beside that. `unique_P` are the different ones among the
    right samples of a problem, where their texts were known.
    """

    problems: tuple[str, ...]
    right_P: np.ndarray
    graded_P: np.ndarray
    samples: int
    sources: tuple[str, ...] = ()
    reasons: Mapping[str, int] = field(default_factory=dict)
    report: Mapping[str, Any] | None = None
    unique_P: np.ndarray | None = None

    @classmethod
    def of(
        cls, groups: Sequence[Group], essence: Callable[[Problem, str], str], report: Mapping[str, Any] | None = None
    ) -> Tally:
        """Count judged groups, one a problem; right samples of one `essence` (see `Verifier.essence`) are one."""
        return cls(
            problems=tuple(g.problem.id for g in groups),
            right_P=np.array([int(g.right_G.sum()) for g in groups]),
            graded_P=np.array([int(g.graded_G.sum()) for g in groups]),
            samples=max((len(g.samples) for g in groups), default=0),
            sources=tuple(str(g.problem.info.get("source", "")) for g in groups),
            reasons=dict(sorted(Counter(f"{v.outcome}/{v.reason}" for g in groups for v in g.verdicts).items())),
            report=report,
            unique_P=np.array([len(_right_essences(g, essence)) for g in groups]),
        )

    def of_source(self, source: str) -> Tally:
        """The problems of one part of the set."""
        own = [i for i, other in enumerate(self.sources) if other == source]
        names = tuple(self.problems[i] for i in own)
        unique_P = None if self.unique_P is None else self.unique_P[own]
        return Tally(names, self.right_P[own], self.graded_P[own], self.samples, unique_P=unique_P)


def _right_essences(group: Group, essence: Callable[[Problem, str], str]) -> set[str]:
    pairs = zip(group.samples, group.right_G, strict=True)
    return {essence(group.problem, sample.text) for sample, right in pairs if right}


def pass_at(n: int, c: int, k: int) -> float:
    """The unbiased estimate of pass@k from c right among n samples; NaN when n < k."""
    if n < k:
        return float("nan")
    if n - c < k:
        return 1.0
    j = np.arange(n - c + 1, n + 1)
    return float(-np.expm1(np.log1p(-k / j).sum()))


def powers_of_two(samples: int) -> list[int]:
    """1, 2, 4 … up to `samples`."""
    return [2**i for i in range(samples.bit_length()) if 2**i <= samples]


def curve(tally: Tally) -> dict[int, np.ndarray]:
    """pass@k of each problem, for k at powers of two; NaN where too few samples could be graded."""
    rows = list(zip(tally.graded_P.tolist(), tally.right_P.tolist(), strict=True))
    return {k: np.array([pass_at(n, c, k) for n, c in rows]) for k in powers_of_two(tally.samples)}


def interval(values_P: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean over problems, by resampling problems; (nan, nan) without any."""
    values = values_P[np.isfinite(values_P)]
    if values.size == 0:
        return float("nan"), float("nan")
    draw = np.random.default_rng(seed)
    rows = max(1, HELD // values.size)
    sizes = [min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows)]
    means = [values[draw.integers(0, values.size, size=(size, values.size))].mean(axis=1) for size in sizes]
    lo, hi = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(lo), float(hi)


def estimate(values_P: np.ndarray) -> dict[str, Any]:
    """`mean` and `ci95` of what is not NaN, as files hold them; one value at least must be there."""
    return {"mean": float(np.nanmean(values_P)), "ci95": list(interval(values_P))}


def summarise(tally: Tally) -> dict[str, Any]:
    """`{"pass@1": x, …, "ci95": {"pass@1": [lo, hi], …}, "problems": n, …}`; what cannot be had is left out.

    `unique_right` holds the different right samples a problem, and in `total` those of all problems.
    """
    means: dict[str, float] = {}
    ci95: dict[str, list[float]] = {}
    for k, values in curve(tally).items():
        if np.isfinite(values).any():
            means[f"pass@{k}"] = float(np.nanmean(values))
            ci95[f"pass@{k}"] = list(interval(values))
    unique_P = tally.unique_P
    total = 0 if unique_P is None else int(unique_P.sum())
    ungraded = int(len(tally.problems) * tally.samples - tally.graded_P.sum())
    return {
        **means,
        "ci95": ci95,
        "problems": len(tally.problems),
        "samples": tally.samples,
        "ungraded": ungraded,
        **({} if unique_P is None or not unique_P.size else {"unique_right": {**estimate(unique_P), "total": total}}),
        **({} if tally.report is None else {"report": dict(tally.report)}),
    }


def figures(report: Mapping[str, Any] | None) -> dict[str, float]:
    """The means of a verifier's report by `part/metric`, and its `average`."""
    parts = (report or {}).get("parts", {})
    named = {f"{part}/{key}": x for part, block in parts.items() for key, x in block.get("metrics", {}).items()}
    named |= {"average": report["average"]} if report and "average" in report else {}
    return {key: x["mean"] for key, x in named.items()}


def change(base: Tally, final: Tally) -> dict[str, Any]:
    """The paired change of pass@k, and of `unique_right` where both know it, on the same problems, with intervals.

    Raises:
        ValueError: the two were measured on different problems.
    """
    if base.problems != final.problems:
        raise ValueError("a paired change needs both evaluations on the same problems in the same order")
    before, after = curve(base), curve(final)
    paired: dict[str, Any] = {}
    for k in sorted(before.keys() & after.keys()):
        difference = after[k] - before[k]
        if np.isfinite(difference).any():
            paired[f"pass@{k}"] = estimate(difference)
    if base.unique_P is not None and final.unique_P is not None and final.problems:
        paired["unique_right"] = estimate(final.unique_P - base.unique_P)
    return paired


def to_json(tally: Tally, *, version: int, digest: str, name: str) -> dict[str, Any]:
    """An evaluation as its file holds it: the counts of each problem, the summary, and that of each part of the set."""
    rows = zip(tally.problems, tally.right_P.tolist(), tally.graded_P.tolist(), strict=True)
    problems: list[dict[str, Any]] = [{"id": i, "right": c, "graded": n} for i, c, n in rows]
    if tally.unique_P is not None:
        problems = [row | {"unique": u} for row, u in zip(problems, tally.unique_P.tolist(), strict=True)]
    summary: dict[str, Any] = {**summarise(tally), "reasons": dict(tally.reasons)}
    if len(known := sorted(set(tally.sources))) > 1:
        summary["sources"] = {source: summarise(tally.of_source(source)) for source in known}
    return {"set": name, "version": version, "digest": digest, **summary, "problems": problems}


def from_json(value: Mapping[str, Any]) -> Tally:
    """The counts that `to_json` wrote."""
    rows = value["problems"]
    return Tally(
        problems=tuple(r["id"] for r in rows),
        right_P=np.array([r["right"] for r in rows]),
        graded_P=np.array([r["graded"] for r in rows]),
        samples=value["samples"],
        report=value.get("report"),
        unique_P=np.array([r["unique"] for r in rows]) if all("unique" in r for r in rows) else None,
    )


def read(path: Path) -> Tally:
    """The counts of an evaluation file."""
    return from_json(json.loads(path.read_text()))
