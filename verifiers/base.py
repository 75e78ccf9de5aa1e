"""What every verifier is: a part that judges one completion of one problem, with three outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..parts import Part
from ..records import Problem, Verdict


class Said(NamedTuple):
    """What a submission to `task` answered, and what is right, such that equal answers are equal texts.

    `answer` is None where none could be read.
    """

    task: str
    golds: tuple[str, ...]
    answer: str | None


class Verifier(Part):
    """Judges completions. `right` and `wrong` are about the submission, `could_not_grade` is about us."""

    def judge(self, problem: Problem, completion: str) -> Verdict:
        """The verdict on one completion; never raises for what a model wrote."""
        return self.judge_all([(problem, completion)])[0]

    def judge_all(self, submissions: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """Verdicts in the order of the submissions; verifiers with workers judge them side by side."""
        raise NotImplementedError

    async def ajudge_all(self, submissions: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """`judge_all` without blocking the event loop."""
        return await asyncio.to_thread(self.judge_all, submissions)

    def reference(self, problem: Problem) -> str | None:
        """A completion that must be right, for `validate`: by default the worked solution. None where there is none."""
        return problem.solution

    def report(self, problems: Sequence[Problem], verdicts: Sequence[Verdict]) -> dict[str, Any] | None:
        """What an evaluation says beside pass@N, one problem and verdict a sample; None where there is nothing.

        `parts` maps a name to a block of `metrics` (each a `mean` and its `ci95`), and to `baselines`, `invalid_rate`,
        `answers` and `golds` (counts) where they are known; `average` is a figure over all parts.
        """
        return None

    def said(self, problem: Problem, verdict: Verdict) -> Said | None:
        """The answer behind a graded verdict, for the watch over collapse; None where a verifier tells none."""
        return None

    def essence(self, problem: Problem, completion: str) -> str:
        """A completion by what counts of it: those of one essence are one answer. By default its text, trimmed."""
        return completion.strip()

    def surroundings(self) -> str:
        """What its verdicts depend on beside its options, such as the version of a tool; one line, or nothing."""
        return ""

    def close(self) -> None:
        """Stop worker processes, if any."""
