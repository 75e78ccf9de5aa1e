"""Sums of three two-digit numbers with worked or bare solutions: small enough for a model that trains on a laptop."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from ...records import Problem, derive_seed
from .base import Data

DIGITS = 90
"""Two-digit numbers: 10 to 99."""
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


def part_of(a: int, b: int, c: int) -> Literal["warmup", "train"]:
    """Which part a problem belongs to: by hash alone, so that the parts are disjoint whatever the seeds."""
    return "train" if _in_train(np.array([_index(a, b, c)]))[0] else "warmup"


class Arithmetic(Data):
    """The 729,000 sums of three two-digit numbers, in two disjoint parts."""

    part: Literal["warmup", "train"] = "train"
    """Seven eighths of the problems are for the warm-up, one eighth for training and evaluation."""
    count: int | None = Field(default=None, ge=1)
    """Problems to draw; unset takes the whole part."""
    worked: float = Field(default=0.5, ge=0, le=1)
    """Share of problems whose solution is worked; the others' is the bare answer."""

    def load(self, seed: int) -> list[Problem]:
        """The first `count` problems of the part, in an order that is the part's own; which are worked is `seed`'s."""
        index_N = np.arange(DIGITS**3, dtype=np.uint64)
        index_N = index_N[_in_train(index_N) == (self.part == "train")]
        index_N = index_N[np.argsort(_mix(index_N, derive_seed("order")), kind="stable")][: self.count]
        chance_N = _mix(index_N, derive_seed("worked", seed)) / 2.0**64
        return [self._problem(int(i), chance < self.worked) for i, chance in zip(index_N, chance_N, strict=True)]

    def _problem(self, index: int, reasons: bool) -> Problem:
        abc = index // DIGITS**2 + 10, index // DIGITS % DIGITS + 10, index % DIGITS + 10
        solution = worked(*abc) if reasons else bare(*abc)
        return Problem("+".join(map(str, abc)), prompt(*abc), answer=str(sum(abc)), solution=solution)


def _index(a: int, b: int, c: int) -> int:
    return ((a - 10) * DIGITS + b - 10) * DIGITS + c - 10


def _in_train(index_N: np.ndarray) -> np.ndarray:
    return _mix(index_N, derive_seed("arithmetic")) % np.uint64(TRAIN_SHARE) == 0


def _mix(index_N: np.ndarray, seed: int) -> np.ndarray:
    """splitmix64 (Steele, Lea and Flood 2014): a hash of each index, uint64, for all at once."""
    z = (index_N.astype(np.uint64) + np.uint64(seed)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
