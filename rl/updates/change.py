"""What changed between two tensors, or between two models: counts and sums, which add up over tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

from ...kernels.delta import TOLERANCES, ULPS, Counted

BFLOAT16_DIGITS = 7
"""Bits of a bfloat16's mantissa."""


@dataclass(frozen=True)
class Change:
    """Weights that changed, at several tolerances, and by how much."""

    weights: int
    """How many were compared."""
    changed: int
    """Those whose value differs at all."""
    beyond: tuple[int, ...]
    """Those that moved further than each of `TOLERANCES`."""
    ulps: tuple[int, ...]
    """Those that moved further than each of `ULPS` of the stored dtype's last places; empty for float32 updates of
    weights that are stored narrower."""
    squares: float
    """Sum of the squared differences."""
    base_squares: float
    """Sum of the base's squares."""
    swallowed: float
    """Weights that bfloat16's rounding alone would leave unchanged under an update of this size: see `swallowed`."""
    rows: int
    rows_touched: int
    """Rows, of which so many have at least one change; a vector is one row."""
    columns: int
    columns_touched: int

    @property
    def unchanged(self) -> float:
        """The share of weights with exactly the same value: the paper's sparsity at tolerance 0."""
        return 1 - self.changed / max(self.weights, 1)

    @property
    def rounding_only(self) -> float:
        """The baseline beside `unchanged`: the share that bfloat16 would have swallowed of an update of this size."""
        return self.swallowed / max(self.weights, 1)

    @property
    def norm(self) -> float:
        """The Euclidean (Frobenius) norm of the update."""
        return math.sqrt(self.squares)

    @property
    def relative_norm(self) -> float:
        """The update's norm over the base's."""
        return math.sqrt(self.squares / self.base_squares) if self.base_squares else 0.0

    def within(self, tolerance: float) -> float:
        """The share of weights that moved at most so far; `tolerance` is 0 or one of `TOLERANCES`."""
        moved = self.changed if tolerance == 0 else self.beyond[TOLERANCES.index(tolerance)]
        return 1 - moved / max(self.weights, 1)

    def figures(self) -> dict[str, float]:
        """Everything as plain numbers by name, as the JSON and the data frame have it."""
        return {
            "weights": self.weights,
            "unchanged": self.unchanged,
            **{f"within_{tolerance:.0e}": self.within(tolerance) for tolerance in TOLERANCES},
            **{f"within_{n}_ulp": 1 - c / max(self.weights, 1) for n, c in zip(ULPS, self.ulps, strict=False)},
            "rounding_only": self.rounding_only,
            "norm": self.norm,
            "relative_norm": self.relative_norm,
            "rows_touched": self.rows_touched / max(self.rows, 1),
            "columns_touched": self.columns_touched / max(self.columns, 1),
        }


def change_of(counted: Counted, shape: tuple[int, int], columns_touched: int) -> Change:
    """The change of one matrix, from what the pass over it counted."""
    rows, columns = shape
    counts, weights = [int(c) for c in counted.counts], rows * columns
    moved, size = (float(x) for x in counted.squares)
    return Change(
        weights=weights,
        changed=counts[0],
        beyond=tuple(counts[1 : 1 + len(TOLERANCES)]),
        ulps=tuple(counts[1 + len(TOLERANCES) :]),
        squares=moved,
        base_squares=size,
        swallowed=swallowed(counted.binades, weights, moved),
        rows=rows,
        rows_touched=counted.rows,
        columns=columns,
        columns_touched=columns_touched,
    )


def total(changes: Iterable[Change]) -> Change:
    """All of them together."""
    listed = list(changes)

    def add(name: str) -> object:
        values = [getattr(change, name) for change in listed]
        if values and isinstance(values[0], tuple):
            return tuple(sum(column) for column in zip(*values, strict=True)) if all(values) else ()
        return sum(values)

    if not listed:
        return Change(0, 0, (0,) * len(TOLERANCES), (0,) * len(ULPS), 0.0, 0.0, 0.0, 0, 0, 0, 0)
    return Change(**{field.name: add(field.name) for field in fields(Change)})  # type: ignore[arg-type]


def swallowed(binades: np.ndarray, weights: int, squares: float) -> float:
    """How many of `weights` bfloat16 would leave as they are, were each moved by a draw of N(0, squares / weights).

    A value with exponent e lies 2^(e - 7) from the next, and a move of less than half of that rounds back: with s the
    deviation of the move, a share of erf(2^(e - 8) / (s sqrt 2)) does. `binades` counts the base by biased exponent.
    """
    if squares <= 0:
        return float(weights)
    width = math.sqrt(2 * squares / weights)
    exponents = np.flatnonzero(binades)
    halves = np.exp2(np.maximum(exponents, 1) - 127 - BFLOAT16_DIGITS - 1.0)
    shares = [math.erf(ratio) for ratio in halves / width]
    counted = binades[exponents]
    return weights * float(shares @ counted) / max(int(counted.sum()), 1)
