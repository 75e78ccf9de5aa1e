"""Do two runs change the same weights? Overlap of changed sets, beside what chance would give.

Of sets A and B among n weights, the paper's one-sided overlaps are |A and B| / |A| and / |B| (Mukherjee et al. 2025,
arXiv 2505.11711, section 4.3), the two-sided one |A and B| / |A or B|. By chance |A and B| is hypergeometric: mean
|A||B|/n, variance |A||B|(n - |A|)(n - |B|) / (n^2 (n - 1)).

Chance has three forms here, each stricter than the one before: sets spread over all weights; within each tensor; within
the weights of a tensor that share an exponent. The last asks what overlap is left where rounding, which lets small
weights change and holds large ones, would have chosen the same weights for both.
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
    by_size: tuple[float, float]
    """Mean and deviation of `both` by chance within each binade of the first one's base."""


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
    sized: float
    """Expected of both, were each set spread anew among the weights of a tensor that share an exponent."""
    sized_95: tuple[float, float]

    def figures(self) -> dict[str, float]:
        """As plain numbers: overlaps and their baselines as shares of the first set, of the second, and of either."""
        either = self.first + self.second - self.both
        figures: dict[str, float] = {
            "weights": self.weights,
            "changed_first": self.first,
            "changed_second": self.second,
            "overlap": self.both / max(either, 1),
        }
        laws = {"chance": self.by_chance_95, "matched": self.matched_95, "sized": self.sized_95}
        means = {"chance": self.by_chance, "matched": self.matched, "sized": self.sized}
        for side, size in (("first", max(self.first, 1)), ("second", max(self.second, 1))):
            figures[f"overlap_of_{side}"] = self.both / size
            for law, (low, high) in laws.items():
                figures[f"{law}_of_{side}"] = means[law] / size
                figures[f"{law}_low_of_{side}"] = low / size
                figures[f"{law}_high_of_{side}"] = high / size
        return figures


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
    matched = _summed(hypergeometric(m.weights, m.first, m.second) for m in listed)
    sized = _summed(m.by_size for m in listed)
    means = (chance, _around(chance, spread), matched[0], _around(*matched), sized[0], _around(*sized))
    return Overlap(weights, first, second, both, *means)


def _summed(laws: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Mean and deviation of a sum of independent draws."""
    listed = list(laws)
    return sum(mean for mean, _ in listed), math.sqrt(sum(deviation**2 for _, deviation in listed))


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
            met[i, j].append(_met(name, sides[i][0].read(name), sets[i], sets[j]))
    labels = [tuned.label for _, tuned in sides]
    return Overlaps(tolerance, tuple(Pair(labels[i], labels[j], tuple(met[i, j])) for i, j in pairs), tuple(apart))


def _met(name: str, base: Tensor, one: Tensor, other: Tensor) -> Met:
    exponents = (base.float().view(torch.int32) >> 23) & 255
    counts = [
        torch.bincount(own.flatten(), minlength=256).tolist() for own in (exponents, exponents[one], exponents[other])
    ]
    by_size = _summed(hypergeometric(n, a, b) for n, a, b in zip(*counts, strict=True) if n)
    first, second, both = (int(torch.count_nonzero(mask)) for mask in (one, other, one & other))
    return Met(name, layer_of(name), kind_of(name), one.numel(), first, second, both, by_size)


def _around(mean: float, deviation: float) -> tuple[float, float]:
    return max(0.0, mean - NORMAL_95 * deviation), mean + NORMAL_95 * deviation
