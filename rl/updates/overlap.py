"""Do two runs change the same weights? Overlap of changed sets, beside what chance would give.

Of sets A and B among n weights, the paper's one-sided overlaps are |A and B| / |A| and / |B| (Mukherjee et al. 2025,
arXiv 2505.11711, section 4.3), the two-sided one |A and B| / |A or B|. By chance |A and B| is hypergeometric: mean
|A||B|/n, variance |A||B|(n - |A|)(n - |B|) / (n^2 (n - 1)).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...parts import UserError
from .modules import KINDS, kind_of, layer_of
from .weights import Weights

if TYPE_CHECKING:
    import pandas

NORMAL_95 = 1.959964
"""Deviations that hold 95 % of a normal law."""


@dataclass(frozen=True)
class Met:
    """Two changed sets in one tensor."""

    name: str
    layer: int | None
    kind: str
    weights: int
    first: int
    """Weights that the first changed."""
    second: int
    both: int


@dataclass(frozen=True)
class Overlap:
    """Two changed sets over several tensors."""

    weights: int
    first: int
    second: int
    both: int
    by_chance: float
    """Expected of both, were each set spread anew over all these weights."""
    by_chance_95: tuple[float, float]
    """Within which 95 % of such draws fall."""
    matched: float
    """Expected of both, were each set spread anew within each tensor: this allows for tensors that all change more."""
    matched_95: tuple[float, float]

    def figures(self) -> dict[str, float]:
        """As plain numbers: overlaps and their baselines as shares of the first set, of the second, and of either."""
        either = self.first + self.second - self.both
        share = {"first": max(self.first, 1), "second": max(self.second, 1)}
        low, high = self.by_chance_95
        near, far = self.matched_95
        return {
            "weights": self.weights,
            "changed_first": self.first,
            "changed_second": self.second,
            "overlap": self.both / max(either, 1),
            **{f"overlap_of_{side}": self.both / size for side, size in share.items()},
            **{f"by_chance_of_{side}": self.by_chance / size for side, size in share.items()},
            **{f"by_chance_low_of_{side}": low / size for side, size in share.items()},
            **{f"by_chance_high_of_{side}": high / size for side, size in share.items()},
            **{f"matched_of_{side}": self.matched / size for side, size in share.items()},
            **{f"matched_low_of_{side}": near / size for side, size in share.items()},
            **{f"matched_high_of_{side}": far / size for side, size in share.items()},
        }


@dataclass(frozen=True)
class Pair:
    """Two runs, and where they met."""

    first: str
    second: str
    met: tuple[Met, ...]

    def total(self) -> Overlap:
        """Over the whole model."""
        return overlap_of(self.met)

    def by_kind(self) -> dict[str, Overlap]:
        """By kind of module."""
        return {kind: overlap_of(own) for kind in KINDS if (own := [met for met in self.met if met.kind == kind])}

    def by_layer(self) -> dict[int, Overlap]:
        """By layer."""
        layers = sorted({met.layer for met in self.met if met.layer is not None})
        return {layer: overlap_of([met for met in self.met if met.layer == layer]) for layer in layers}


@dataclass(frozen=True)
class Overlaps:
    """Every pair of several runs."""

    tolerance: float
    pairs: tuple[Pair, ...]
    apart: tuple[str, ...]
    """Tensors that are not in all of them in one shape, and so were left out."""

    def frame(self) -> pandas.DataFrame:
        """A row a pair and part: `all`, each kind, each layer."""
        import pandas as pd

        return pd.DataFrame(overlap_rows(self))


def overlap_rows(overlaps: Overlaps) -> list[dict[str, Any]]:
    """A row a pair and part, of plain values."""
    rows = []
    for pair in overlaps.pairs:
        layers = {f"layer {layer}": found for layer, found in pair.by_layer().items()}
        for part, found in {"all": pair.total(), **pair.by_kind(), **layers}.items():
            rows.append({"first": pair.first, "second": pair.second, "part": part, **found.figures()})
    return rows


def overlap_of(met: Iterable[Met]) -> Overlap:
    """Several tensors together."""
    listed = list(met)
    weights, first, second, both = (sum(getattr(m, f) for m in listed) for f in ("weights", "first", "second", "both"))
    chance, spread = hypergeometric(weights, first, second)
    laws = [hypergeometric(m.weights, m.first, m.second) for m in listed]
    matched, matched_spread = sum(mean for mean, _ in laws), math.sqrt(sum(s**2 for _, s in laws))
    return Overlap(
        weights, first, second, both, chance, _around(chance, spread), matched, _around(matched, matched_spread)
    )


def hypergeometric(n: int, first: int, second: int) -> tuple[float, float]:
    """Mean and deviation of the size of the intersection of two random sets of these sizes among n."""
    if n < 2:
        return float(first * second), 0.0
    mean = first * second / n
    return mean, math.sqrt(mean * (n - first) / n * (n - second) / (n - 1))


def changed(base: Tensor, tuned: Tensor, tolerance: float) -> Tensor:
    """Which weights moved further than `tolerance`; 0 asks whether the value differs at all. Shape of both."""
    if tolerance == 0:
        return base != tuned
    return (tuned.float() - base.float()).abs() > tolerance


def overlaps(sides: Sequence[tuple[Weights, Weights]], tolerance: float = 0.0) -> Overlaps:
    """Overlap of the sets of weights that changed between base and tuned, of every two of `sides`.

    Raises:
        UserError: the models have no tensor in common.
    """
    kept = [weights.kept for side in sides for weights in side]
    names = sorted(n for n in kept[0] if all(n in k and k[n].shape == kept[0][n].shape for k in kept))
    apart = sorted({name for k in kept for name in k} - set(names))
    if not names:
        raise UserError("the models have no tensor of one name and shape in common; are they of one architecture?")
    pairs = list(combinations(range(len(sides)), 2))
    met: dict[tuple[int, int], list[Met]] = {pair: [] for pair in pairs}
    for name in names:
        sets = [changed(base.read(name), tuned.read(name), tolerance) for base, tuned in sides]
        for i, j in pairs:
            met[i, j].append(_met(name, sets[i], sets[j]))
    labels = [tuned.label for _, tuned in sides]
    return Overlaps(tolerance, tuple(Pair(labels[i], labels[j], tuple(met[i, j])) for i, j in pairs), tuple(apart))


def _met(name: str, one: Tensor, other: Tensor) -> Met:
    sizes = (int(torch.count_nonzero(mask)) for mask in (one, other, one & other))
    return Met(name, layer_of(name), kind_of(name), one.numel(), *sizes)


def _around(mean: float, deviation: float) -> tuple[float, float]:
    return max(0.0, mean - NORMAL_95 * deviation), mean + NORMAL_95 * deviation
