"""A completion is right only if it is one of the data's own solutions, letter for letter."""

from __future__ import annotations

from underdog.records import Problem
from underdog.verifiers.exact import Exact


def test_only_a_solution_as_it_stands_is_right() -> None:
    one = Problem("1", "", solution="exact h1")
    several = Problem("2", "", solution="exact h1", info={"solutions": ["exact h1", "exact h2"]})
    rows = [(one, "exact h1"), (one, "exact h1 "), (one, "exact h2"), (several, "exact h2"), (Problem("3", ""), "")]
    verdicts = [(v.outcome, v.reason) for v in Exact().judge_all(rows)]
    right, wrong = ("right", "exact"), ("wrong", "different")
    assert verdicts == [right, wrong, wrong, right, ("could_not_grade", "no_solution")]
