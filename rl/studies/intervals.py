"""What several seeds say: a mean with its 95 % Student-t interval, and paired differences. scipy comes with `train`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from ..runs.reading import PassAt
from ..runs.report.figures import interval


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` values, and the ends of its 95 % interval, which are None for a single value."""

    mean: float
    low: float | None
    high: float | None
    count: int

    def shown(self, *, signed: bool = False) -> str:
        """`0.683 [0.650, 0.714]`, with signs for a difference."""
        return interval(PassAt(self.count, self.mean, self.low, self.high), signed)

    def to_json(self) -> dict[str, Any]:
        """`{"mean": x, "ci95": [low, high] or null, "count": n}`."""
        return {"mean": self.mean, "ci95": None if self.low is None else [self.low, self.high], "count": self.count}


def estimate(values: Sequence[float | None]) -> Estimate | None:
    """Mean and interval of the values that are there: mean ± t(0.975, n - 1) · s / √n; None without any."""
    there = [value for value in values if value is not None]
    if not there:
        return None
    mean, count = fmean(there), len(there)
    if count == 1:
        return Estimate(mean, None, None, 1)
    from scipy.stats import t

    half = float(t.ppf(0.975, count - 1)) * stdev(there) / count**0.5
    return Estimate(mean, mean - half, mean + half, count)


def paired(values: Sequence[float | None], others: Sequence[float | None]) -> Estimate | None:
    """Mean and interval of the differences of values at the same places, where both are there."""
    pairs = zip(values, others, strict=True)
    return estimate([a - b for a, b in pairs if a is not None and b is not None])


def share(count: int, of: int) -> tuple[float, float]:
    """The ends of the 95 % Clopper-Pearson interval of a share that was seen `count` times in `of`."""
    from scipy.stats import beta

    low = float(beta.ppf(0.025, count, of - count + 1)) if count else 0.0
    return low, float(beta.ppf(0.975, count + 1, of - count)) if count < of else 1.0
