"""How far judging has come, on stderr: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

EVERY_SECONDS = 10.0
"""Between two lines where there is no terminal."""


class Progress:
    """Counts `outcomes`, those of earlier among them, up to `total` rows."""

    def __init__(self, total: int, outcomes: Counter[str]) -> None:
        self.total = total
        self.outcomes = outcomes
        self.before = outcomes.total()
        self.began = self.last = time.monotonic()
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self.bar = Bar(*columns, console=self.console) if self.console.is_terminal else None

    def __enter__(self) -> Progress:
        if self.before:
            self.say(f"{self.before} of {self.total} rows are judged already")
        if self.bar is not None:
            self.bar.start()
            self.bar.add_task("", total=self.total, completed=self.before)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(text, markup=False)

    def add(self, outcomes: Iterable[str]) -> None:
        """Count rows that have been judged."""
        self.outcomes.update(outcomes)
        now, done = time.monotonic(), self.outcomes.total()
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=done, description=self._counts())
        elif now - self.last >= EVERY_SECONDS or done == self.total:
            self.last = now
            rate = (done - self.before) / max(now - self.began, 1e-3)
            self.say(f"{done}/{self.total} rows  {self._counts()}  {rate:.1f} rows/s")

    def _counts(self) -> str:
        counted = self.outcomes
        return f"right {counted['right']}  wrong {counted['wrong']}  could not grade {counted['could_not_grade']}"
