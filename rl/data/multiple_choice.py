"""Questions with several answers to choose from, the right one at a place drawn by seed."""

from __future__ import annotations

from dataclasses import replace
from string import ascii_uppercase

import numpy as np
from pydantic import Field

from ...parts import UserError
from ...records import Problem, derive_seed
from .columns import Table, problems
from .hub import Hub


class MultipleChoice(Hub):
    """As `hub`, with wrong answers in columns of their own: the gold answer becomes a letter, as GPQA is asked.

    `answer` is the column of the right answer. The prompt is the question, an empty line, and a line an answer:
    `A) …`. Where the right one stands depends on the question and `shuffle_seed` alone, not on its row.
    """

    wrong: list[str] = Field(min_length=1, max_length=25)
    """Columns of the wrong answers."""
    shuffle_seed: int = 0
    """Seed of the answers' order, not the run's: every run is asked in the same order."""

    def _problems(self, split: str, limit: int | None) -> list[Problem]:
        rows, source = self.rows(split, limit), f"{self.id} ({split})"
        columns = {name: None for row in rows for name in row}
        if missing := [name for name in self.wrong if name not in columns]:
            known = ", ".join(columns)
            raise UserError(f"{source} has no column {', '.join(missing)} (data.wrong); its columns are {known}")
        kept = None if self.keep is None else [*self.keep, *self.wrong]
        table: Table = self.model_copy(update={"keep": kept})
        return [self._lettered(problem) for problem in problems(rows, table, source, split.partition("[")[0])]

    def reads(self, column: str) -> bool:
        """Wrong answers are read too."""
        return column in self.wrong or super().reads(column)

    def _lettered(self, problem: Problem) -> Problem:
        """The problem with its answers in order, and the letter of the right one in place of its text."""
        if not isinstance(problem.prompt, str):
            raise UserError(f"problem {problem.id!r} is a chat; a question with answers to choose from must be a text")
        texts = [problem.answer, *(str(problem.info[name]).strip() for name in self.wrong)]
        order = np.random.default_rng(derive_seed("choices", self.shuffle_seed, problem.prompt)).permutation(len(texts))
        lines = [f"{letter}) {texts[i]}" for letter, i in zip(ascii_uppercase, order, strict=False)]
        answer = ascii_uppercase[int(np.flatnonzero(order == 0)[0])]
        return replace(problem, prompt="\n".join([problem.prompt, "", *lines]), answer=answer)
