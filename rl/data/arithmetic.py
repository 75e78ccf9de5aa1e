"""Problems `a*b+c=` with worked or bare solutions: small enough for a model that trains on a laptop."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ...records import Problem, derive_seed
from .base import Data

A = range(10, 100)
B = range(2, 10)
C = range(10, 100)
TRAIN_SHARE = 8
"""One problem in so many belongs to the part `train`, the others to `warmup`."""


def prompt(a: int, b: int, c: int) -> str:
    """`12*7+35=`"""
    return f"{a}*{b}+{c}="


def worked(a: int, b: int, c: int) -> str:
    r"""`12*7=84, 84+35=119. \boxed{119}`"""
    return rf"{a}*{b}={a * b}, {a * b}+{c}={a * b + c}. {bare(a, b, c)}"


def bare(a: int, b: int, c: int) -> str:
    r"""`\boxed{119}`"""
    return rf"\boxed{{{a * b + c}}}"


def part_of(a: int, b: int, c: int) -> Literal["warmup", "train"]:
    """Which part a problem belongs to: by hash alone, so that the parts are disjoint whatever the seeds."""
    return "train" if derive_seed("arithmetic", a, b, c) % TRAIN_SHARE == 0 else "warmup"


class Arithmetic(Data):
    """A two-digit number times a digit plus a two-digit number: 64,800 problems in two disjoint parts."""

    part: Literal["warmup", "train"] = "train"
    """Seven eighths of the problems are for the warm-up, one eighth for training and evaluation."""
    count: int | None = Field(default=None, ge=1)
    """Problems to draw; unset takes the whole part."""
    worked: float = Field(default=0.5, ge=0, le=1)
    """Share of problems whose solution is worked; the others' is the bare answer."""

    def load(self, seed: int) -> list[Problem]:
        """The part's problems; their order and which of them are worked depend on `seed`."""
        space = [(a, b, c) for a in A for b in B for c in C if part_of(a, b, c) == self.part]
        space.sort(key=lambda abc: derive_seed("order", seed, *abc))
        return [self._problem(*abc, seed=seed) for abc in space[: self.count]]

    def _problem(self, a: int, b: int, c: int, seed: int) -> Problem:
        chance = derive_seed("worked", seed, a, b, c) / 2**63
        solution = worked(a, b, c) if chance < self.worked else bare(a, b, c)
        return Problem(f"{a}*{b}+{c}", prompt(a, b, c), answer=str(a * b + c), solution=solution)
