"""Goals for a tiny prover that core Lean alone can check, made by family and seed, each with proofs in a language of
its own: nothing in it searches, and no goal is proved in fewer than three steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count as count_up
from typing import Literal

import numpy as np
from pydantic import Field

from ...parts import UserError
from ...records import Problem, derive_seed
from .base import Data
from .goals import equations, logic
from .goals.language import Goal, counted, written

FAMILIES: dict[str, Callable[[np.random.Generator], Goal]] = {
    "chain": logic.chain,
    "fork": logic.fork,
    "cases": logic.cases,
    "pair": logic.pair,
    "witness": logic.witness,
    "unpack": logic.unpack,
    "induct": logic.induct,
    "rewrite": equations.rewrite,
    "algebra": equations.algebra,
}
UNSEEN = {"mixed": logic.mixed}
"""A family that is only evaluated on."""
PARTS = {"warmup": 0.6, "train": 0.2, "test": 0.2}
"""Shares of all goals, by a hash of what they state: the parts are disjoint whatever is drawn."""
HEADER = "prelude\nimport Init.Tactics\nimport Init.Data.Nat.Basic\nimport Init.Data.Nat.Lemmas"
"""Less than `Init`, which Lean would import: a process is there sooner."""
OPENING = "```lean4\nby "
PATIENCE = 500
"""Draws in a row without a new goal, after which a family is used up."""


class LeanGoals(Data):
    """Goals of nine families for training; and for evaluation unseen goals of these, and of a tenth family."""

    part: Literal["warmup", "train"] = "train"
    """The warm-up's goals, or those for training; both are evaluated on the same ones."""
    count: int = Field(default=900, ge=1)
    """Goals to train on, families in turn."""
    test: int = Field(default=100, ge=1)
    """Goals for evaluation, families in turn."""
    plain: float = Field(default=0.8, ge=0, le=1)
    """Share of solutions that are a goal's plainest proof; the others are one of its further proofs."""
    terse: float = Field(default=0.0, ge=0, le=1)
    """Share of solutions that leave out the steps which only say what is to be proved (`show`)."""

    def load(self, seed: int) -> list[Problem]:
        """The first `count` goals of the part; which proof is a goal's solution is `seed`'s choice."""
        made = goals(self.part, self.count, tuple(FAMILIES))
        return [self._problem(name, goal, seed) for name, goal in made.items()]

    def load_evaluation(self, seed: int) -> list[Problem]:
        """Goals that neither part holds."""
        made = goals("test", self.test, (*FAMILIES, *UNSEEN))
        return [self._problem(name, goal, seed) for name, goal in made.items()]

    def _problem(self, name: str, goal: Goal, seed: int) -> Problem:
        rng = np.random.default_rng(derive_seed("proof", seed, name))
        plainest, *others = goal.proofs
        proof = plainest if rng.random() < self.plain or not others else others[rng.integers(len(others))]
        proof = counted(proof) if rng.random() < self.terse else proof
        statement = goal.statement(name)
        info = {"header": HEADER, "statement": statement, "opening": OPENING, "source": goal.family}
        return Problem(name, goal.prompt(), statement, written(proof), info)


def goals(part: str, count: int, families: tuple[str, ...]) -> dict[str, Goal]:
    """The first `count` goals of a part by name, `families` in turn, no two of one statement.

    Raises:
        UserError: a family has not so many.
    """
    streams = [_stream(family, part) for family in families]
    return dict(next(streams[turn % len(streams)]) for turn in range(count))


def _stream(family: str, part: str) -> Iterator[tuple[str, Goal]]:
    """A family's goals of one part, by name, each statement once."""
    make = {**FAMILIES, **UNSEEN}[family]
    seen: set[str] = set()
    vain = 0
    for number in count_up():
        goal = make(np.random.default_rng(derive_seed("goal", family, number)))
        stated = goal.prompt()
        vain += 1
        if stated not in seen and _part(stated) == part:
            seen.add(stated)
            vain = 0
            yield f"{family}_{number}", goal
        if vain == PATIENCE:
            raise UserError(f"the family {family} has no more than {len(seen)} goals of the part {part}: ask for fewer")


def _part(stated: str) -> str:
    """Which part a goal belongs to."""
    place = derive_seed("part", stated) / 2.0**63
    for part, share in PARTS.items():
        if place < share:
            return part
        place -= share
    return "test"
