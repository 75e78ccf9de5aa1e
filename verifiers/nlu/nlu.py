"""Language understanding: GLUE and SuperGLUE answers by label name, one label or invalid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field, field_validator

from ...parts import UserError
from ...records import Problem, Verdict
from ..base import Said, Verifier
from .intervals import evaluation_report
from .metrics import text_em
from .report import golds_of, said, task_for
from .task import TAG, task_of

_ROUNDING = 1e-9
"""What the difference of two decimals may be off by."""


class Nlu(Verifier):
    """Is the answer between the tags the gold one?

    The answer is read from `<Judgement>…</Judgement>` after the reasoning, without case and punctuation: exactly one
    label of the task, by whole words, through its synonyms; bare label ids are none. STS-B takes one number, clipped
    to [0, 5]; ReCoRD a text, compared as SQuAD does. Several tagged answers must agree.

    Reasons of `right`: exact, close (a number within `tolerance`). Of `wrong`: different, far, invalid. Of
    `could_not_grade`: gold. The detail of a verdict is the answer that was read; of an invalid one, why there is
    none: no_tag, no_label, no_number, no_text, several, negated, too_long.
    """

    task: str | None = None
    """The task of all problems, such as cola; unset takes the one that each problem names (`info["task"]`)."""
    tag: str | None = None
    """The tag around the answer; empty reads all the text; unset takes the problem's (`info["tag"]`) or Judgement."""
    tolerance: float = Field(default=0.5, ge=0, le=5)
    """Largest error of a right number, in points of STS-B's scale from 0 to 5."""

    @field_validator("task")
    @classmethod
    def _known(cls, task: str | None) -> str | None:
        try:
            return task and task_of(task).name
        except UserError as error:
            raise ValueError(str(error)) from None

    def judge_all(self, submissions: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """Verdicts in order, made in this process: reading takes linear time.

        Raises:
            UserError: no task is named, or there is none of that name.
        """
        return [self._judge(problem, completion) for problem, completion in submissions]

    def reference(self, problem: Problem) -> str | None:
        """The worked solution, else the gold answer between its tags."""
        if problem.solution is not None or not problem.answer:
            return problem.solution
        tag = self._tag(problem)
        return f"<{tag}>{problem.answer}</{tag}>" if tag else problem.answer

    def report(self, problems: Sequence[Problem], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Official metrics with intervals: see `intervals.evaluation_report`."""
        return evaluation_report(problems, verdicts, self.task)

    def said(self, problem: Problem, verdict: Verdict) -> Said | None:
        """The label, the number to the nearest whole one, or the text as texts are compared."""
        return said(task_for(problem, self.task), problem, verdict)

    def _tag(self, problem: Problem) -> str:
        return next(tag for tag in (self.tag, problem.info.get("tag"), TAG) if isinstance(tag, str))

    def _judge(self, problem: Problem, completion: str) -> Verdict:
        task = task_for(problem, self.task)
        golds = golds_of(task, problem)
        if not golds:
            return Verdict("could_not_grade", "gold", detail=f"{problem.answer!r} is no answer of {task.title}")
        reading = task.read(completion, self._tag(problem))
        answer = reading.answer
        if answer is None:
            return Verdict("wrong", "invalid", detail=reading.why)
        if task.answer == "number":
            close = abs(float(answer) - float(golds[0])) <= self.tolerance + _ROUNDING
            return Verdict("right", "close", detail=answer) if close else Verdict("wrong", "far", detail=answer)
        same = text_em(golds, answer) if task.answer == "text" else answer == golds[0]
        return Verdict("right", "exact", detail=answer) if same else Verdict("wrong", "different", detail=answer)
