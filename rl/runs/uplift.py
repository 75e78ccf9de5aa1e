"""Uplift by rank: did training raise the right samples that the policy found unlikely, or only the likely ones?

Samples of the policy as it starts are ranked in each problem by their summed log-prob under it, 1 the likeliest. Of the
right ones at a rank, the uplift is the share whose log-prob the trained policy raised (Rewarding the Unlikely, arXiv
2506.02355). Both log-probs are the learner's own, at temperature 1. Suffixes: P problems, G samples of a problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...records import Group, Problem
from .evaluation import estimate
from .files import read_lines, write_lines
from .samples import groups_of, sample_rows

KEPT = Path("evaluations") / "base.jsonl"
"""In a run's folder: the samples that are ranked."""


def risen(before_PG: np.ndarray, after_PG: np.ndarray, right_PG: np.ndarray) -> np.ndarray:
    """[..., P, G] by rank: 1 where a right sample's log-prob rose, 0 where it did not, NaN where the sample is wrong.

    `before_PG` and `after_PG` are the log-probs of the same samples. Wrong samples occupy ranks; ties stand in the
    samples' order.
    """
    order_PG = np.argsort(-before_PG, axis=-1, kind="stable")
    rose_PG = np.where(right_PG, (after_PG > before_PG).astype(np.float64), np.nan)
    return np.take_along_axis(rose_PG, order_PG, axis=-1)


def summarise(before_PG: np.ndarray, after_PG: np.ndarray, right_PG: np.ndarray) -> dict[str, Any]:
    """The block `uplift` of summary.json; its intervals are of 95 %, by resampling problems.

    `by_rank` holds [rank, mean, low, high, right samples] of every rank, from 1 on, that has a right sample. `likelier`
    and `unlikelier` are the first and the second half of the ranks, and `bias` what the first has more, a mean over the
    problems with right samples in both; each is a `mean` and its `ci95`, left out where no problem has any.
    """
    risen_PG = risen(before_PG, after_PG, right_PG)
    problems, ranks = risen_PG.shape
    by_rank = []
    for rank, risen_P in enumerate(risen_PG.T, start=1):
        if count := int(np.isfinite(risen_P).sum()):
            found = estimate(risen_P)
            by_rank.append([rank, found["mean"], *found["ci95"], count])
    likelier_P, unlikelier_P = _means(risen_PG[:, : ranks // 2]), _means(risen_PG[:, ranks // 2 :])
    parts = {"likelier": likelier_P, "unlikelier": unlikelier_P, "bias": likelier_P - unlikelier_P}
    estimates = {name: estimate(values_P) for name, values_P in parts.items() if np.isfinite(values_P).any()}
    return {"problems": problems, "samples": ranks, "right": int(right_PG.sum()), "by_rank": by_rank, **estimates}


@dataclass(frozen=True)
class Likelihoods:
    """Judged samples of one policy, and their summed log-probs under it."""

    groups: Sequence[Group]
    logp_PG: np.ndarray

    @classmethod
    def of(cls, groups: Sequence[Group], count: int, learner: Any) -> Likelihoods:
        """The first `count` samples of each group, by the learner, of whose policy as it is they are."""
        chosen = [replace(g, samples=g.samples[:count], verdicts=g.verdicts[:count]) for g in groups]
        return cls(chosen, _summed(learner, chosen))

    def uplift(self, learner: Any) -> dict[str, Any]:
        """What has become of them under the learner's policy as it is now: see `summarise`."""
        right_PG = np.array([group.right_G for group in self.groups])
        return summarise(self.logp_PG, _summed(learner, self.groups), right_PG)


def keep(path: Path, groups: Sequence[Group], count: int, learner: Any) -> None:
    """Write down the first `count` samples of each group, and their summed log-probs by the learner as it is."""
    kept = Likelihoods.of(groups, count, learner)
    summed = kept.logp_PG.ravel().tolist()
    write_lines(path, [row | {"summed": x} for row, x in zip(sample_rows(0, kept.groups), summed, strict=True)])


def kept(path: Path, count: int) -> Likelihoods | None:
    """What `keep` wrote, `count` samples a problem; None where it did not, or kept fewer."""
    rows = read_lines(path)
    chosen = [row for row in rows if row["index"] < count]
    problems = {row["problem"]: Problem(row["problem"], row["prompt"], row["answer"]) for row in rows}
    if not rows or len(chosen) < count * len(problems):
        return None
    logp_PG = np.array([row["summed"] for row in chosen]).reshape(-1, count)
    return Likelihoods(groups_of(chosen, problems), logp_PG)


def _summed(learner: Any, groups: Sequence[Group]) -> np.ndarray:
    """Log-probs of whole completions, logp_PG float64, by the learner as it is."""
    scored = learner.annotate([replace(group, annotations={}) for group in groups], frozenset(("logp",)))
    return np.array([[np.sum(logp_T, dtype=np.float64) for logp_T in g.annotations["logp"]] for g in scored])


def _means(values_PG: np.ndarray) -> np.ndarray:
    """[P]: means over the last axis of what is not NaN; NaN where all of it is."""
    there_PG = np.isfinite(values_PG)
    total_P = np.where(there_PG, values_PG, 0.0).sum(axis=-1)
    return np.divide(total_P, there_PG.sum(axis=-1), out=np.full(len(values_PG), np.nan), where=there_PG.any(axis=-1))
