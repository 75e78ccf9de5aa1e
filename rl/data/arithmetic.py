"""Sums of three two-digit numbers with worked or bare solutions: small enough for a model that trains on a laptop."""

from __future__ import annotations

from itertools import permutations
from typing import Literal

import numpy as np
from pydantic import Field

from ...records import Problem, derive_seed
from .base import Data

NUMBERS = np.arange(10, 100)
ORDERS = np.array(list(permutations(range(3))))
TRAIN_SHARE = 8
"""One problem in so many belongs to the part `train`, the others to `warmup`."""


def prompt(a: int, b: int, c: int) -> str:
    """`67+82+49=`"""
    return f"{a}+{b}+{c}="


def worked(a: int, b: int, c: int) -> str:
    r"""`<think>9,18;7,15,19</think>\boxed{198}`: running sums of the units; then, from their carry, of the tens."""
    units = [a % 10 + b % 10, a % 10 + b % 10 + c % 10]
    tens, carried = [], units[-1] // 10
    for number in (a, b, c):
        carried += number // 10
        tens.append(carried)
    return f"<think>{','.join(map(str, units))};{','.join(map(str, tens))}</think>{bare(a, b, c)}"


def bare(a: int, b: int, c: int) -> str:
    r"""`\boxed{198}`"""
    return rf"\boxed{{{a + b + c}}}"


class Arithmetic(Data):
    """The 125,580 sums of three two-digit numbers, each in one order of its numbers, in two disjoint parts."""

    part: Literal["warmup", "train"] = "train"
    """Seven eighths of the problems are for the warm-up, one eighth for training and evaluation."""
    count: int | None = Field(default=None, ge=1)
    """Problems to draw; unset takes the whole part."""
    worked: float = Field(default=0.5, ge=0, le=1)
    """Share of problems whose solution is worked; the others' is the bare answer."""

    def load(self, seed: int) -> list[Problem]:
        """The first `count` problems of the part, in an order that is the part's own; which are worked is `seed`'s."""
        abc_N3 = triples(self.part)[: self.count]
        chance_N = _mix(_index(abc_N3), derive_seed("worked", seed)) / 2.0**64
        return [_problem(*abc, reasons=bool(x < self.worked)) for abc, x in zip(abc_N3.tolist(), chance_N, strict=True)]


def triples(part: Literal["warmup", "train"]) -> np.ndarray:
    """[N, 3] numbers of a part's problems: by hash alone, so that the parts are disjoint whatever the seeds.

    Three numbers occur in one order only, so that no problem of one part is another's with its numbers exchanged.
    """
    a, b, c = (axis.ravel() for axis in np.meshgrid(NUMBERS, NUMBERS, NUMBERS, indexing="ij"))
    sorted_N3 = np.stack([a, b, c], axis=1)[(a <= b) & (b <= c)]
    index_N = _index(sorted_N3)
    train_N = _mix(index_N, derive_seed("arithmetic")) % np.uint64(TRAIN_SHARE) == 0
    chosen_N3, index_N = (x[train_N == (part == "train")] for x in (sorted_N3, index_N))
    orders_N3 = ORDERS[(_mix(index_N, derive_seed("turn")) % np.uint64(len(ORDERS))).astype(np.int64)]
    return np.take_along_axis(chosen_N3, orders_N3, axis=1)[np.argsort(_mix(index_N, derive_seed("order")))]


def _problem(a: int, b: int, c: int, *, reasons: bool) -> Problem:
    solution = worked(a, b, c) if reasons else bare(a, b, c)
    return Problem(f"{a}+{b}+{c}", prompt(a, b, c), answer=str(a + b + c), solution=solution)


def _index(abc_N3: np.ndarray) -> np.ndarray:
    return (abc_N3.astype(np.uint64) * np.array([10_000, 100, 1], dtype=np.uint64)).sum(axis=1, dtype=np.uint64)


def _mix(index_N: np.ndarray, seed: int) -> np.ndarray:
    """splitmix64 (Steele, Lea and Flood 2014): a hash of each index, uint64, for all at once."""
    z = (index_N + np.uint64(seed)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
