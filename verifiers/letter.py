"""Is the letter that a completion settles on the gold one?"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..records import Problem, Verdict
from .base import Said, Verifier

_GOLD = re.compile(r"[A-Z]")
_DRESS = re.compile(r"\\(?:text|mathrm|mathbf|textbf|boxed)\b|[*_`${}()\[\]]")
_STATED = re.compile(r"\banswer\s*(?:is\b)?\s*[:=]?\s*([A-Z])\b(?!')", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{\s*(?:\\text\s*\{)?\s*\(?([A-Z])\)?[.:]?\s*\}")
MAX_LINE = 1000
"""Characters of a line that are read, from its end."""


class Letter(Verifier):
    r"""Multiple choice: the last letter that stands behind `Answer:` (or `answer is`, or in a box) is the gold one.

    Read after the reasoning, upwards from the last line, so that what was considered before does not count; marks of
    Markdown and LaTeX around the letter do not matter. A line that states two different letters states none.

    Reasons of `right`: exact. Of `wrong`: different, no_answer, several, unfinished_reasoning. Of `could_not_grade`:
    gold. The detail of a verdict is the letter.
    """

    def judge_all(self, submissions: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """Verdicts in order, made in this process: reading takes linear time."""
        return [self._judge(problem, completion) for problem, completion in submissions]

    def reference(self, problem: Problem) -> str | None:
        """The gold letter as it is asked for."""
        return f"Answer: {problem.answer}"

    def said(self, problem: Problem, verdict: Verdict) -> Said | None:
        """The letter."""
        return Said("multiple choice", (problem.answer,), verdict.detail or None)

    def _judge(self, problem: Problem, completion: str) -> Verdict:
        if not _GOLD.fullmatch(problem.answer):
            return Verdict("could_not_grade", "gold", detail=f"{problem.answer!r} is no letter from A to Z")
        body = completion.rpartition("</think>")[2]
        if "<think>" in body:
            return Verdict("wrong", "unfinished_reasoning")
        for line in reversed(body.splitlines()):
            letters = _letters(line[-MAX_LINE:])
            if len(letters) > 1:
                return Verdict("wrong", "several")
            for letter in letters:
                same = letter == problem.answer
                return Verdict("right" if same else "wrong", "exact" if same else "different", detail=letter)
        return Verdict("wrong", "no_answer")


def _letters(line: str) -> set[str]:
    """The different letters that one line states."""
    stated = [letter for letter in _STATED.findall(_DRESS.sub(" ", line)) if letter.isupper()]
    return {*stated, *_BOXED.findall(line)}
