"""Is a completion the data's own solution, letter for letter? For supervised warm-ups, where nothing else is asked."""

from __future__ import annotations

from collections.abc import Sequence

from ..records import Problem, Verdict
from .base import Verifier


class Exact(Verifier):
    """Compares a completion with the problem's solution, or with each of `info["solutions"]`."""

    def judge_all(self, submissions: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """Reasons of `wrong`: different; of `could_not_grade`: no_solution."""
        return [self._judge(problem, completion) for problem, completion in submissions]

    def _judge(self, problem: Problem, completion: str) -> Verdict:
        solutions = problem.info.get("solutions") or ([] if problem.solution is None else [problem.solution])
        if not solutions:
            return Verdict("could_not_grade", "no_solution")
        return Verdict("right", "exact") if completion in solutions else Verdict("wrong", "different")
