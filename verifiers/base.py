"""What every verifier is: a part that judges one completion of one problem, with three outcomes."""

from __future__ import annotations

from collections.abc import Sequence

from ..parts import Part
from ..records import Problem, Verdict


class Verifier(Part):
    """Judges completions. `right` and `wrong` are about the submission, `could_not_grade` is about us."""

    def judge(self, problem: Problem, completion: str) -> Verdict:
        """The verdict on one completion; never raises for what a model wrote."""
        return self.judge_all([(problem, completion)])[0]

    def judge_all(self, submissions: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """Verdicts in the order of the submissions; verifiers with workers judge them side by side."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop worker processes, if any."""
