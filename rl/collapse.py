"""Does a policy give one answer whatever is asked? Watched while training, of any verifier that tells answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from ..parts import Options, RunError
from ..records import Group
from ..verifiers.base import Verifier
from ..verifiers.collapse import LEAST, only_answer


class Collapse(Options):
    """What is done where nearly all answers become one and the same."""

    on: Literal["warn", "stop", "off"] = "warn"
    """Say so, stop the run, or do neither; the shares are logged all the same."""
    share: float = Field(default=0.95, gt=0, le=1)
    """Share of valid answers on one answer that is a collapse, unless that is right for as many."""
    patience: int = Field(default=20, ge=1)
    """Steps whose answers are counted together, each task's apart: of 16 answers 15 are not yet 95 %."""


@dataclass
class _Answers:
    """Of one task: graded `rows`, how often each answer was given, and for how many rows it would have been right."""

    rows: int = 0
    valid: Counter[str] = field(default_factory=Counter)
    golds: Counter[str] = field(default_factory=Counter)

    def state(self) -> list[Any]:
        """What the class is made of, as JSON."""
        return [self.rows, dict(self.valid), dict(self.golds)]

    def add(self, other: _Answers) -> None:
        """Count another step's too."""
        self.rows += other.rows
        self.valid.update(other.valid)
        self.golds.update(other.golds)


class CollapseWatch:
    """Counts what was answered in the last `patience` steps."""

    def __init__(self, options: Collapse, verifier: Verifier, warn: Callable[[str], None]) -> None:
        self._options, self._verifier, self._warn = options, verifier, warn
        self._steps: list[dict[str, _Answers]] = []

    def take(self, groups: Sequence[Group]) -> dict[str, float]:
        """Take note of a step.

        Returns:
            `answers/invalid`, of the step's graded samples, and `answers/top_share`, the largest share that one answer
            has among a task's valid ones in the last steps. Nothing where the verifier tells no answers.

        Raises:
            RunError: the policy has collapsed, and `on` is stop.
        """
        step = _answers(groups, self._verifier)
        if not step:
            return {}
        self._steps = [*self._steps, step][-self._options.patience :]
        together: dict[str, _Answers] = {}
        for earlier in self._steps:
            for task, own in earlier.items():
                together.setdefault(task, _Answers()).add(own)
        if len(self._steps) == self._options.patience:
            self._judge(together)
        valid, rows = sum(own.valid.total() for own in step.values()), sum(own.rows for own in step.values())
        shares = [max(own.valid.values()) / n for own in together.values() if (n := own.valid.total()) >= LEAST]
        return {"answers/invalid": (rows - valid) / rows, **({"answers/top_share": max(shares)} if shares else {})}

    def state_dict(self) -> dict[str, Any]:
        """What was counted of the last steps."""
        return {"steps": [{task: own.state() for task, own in step.items()} for step in self._steps]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._steps = [
            {task: _Answers(rows, Counter(valid), Counter(golds)) for task, (rows, valid, golds) in step.items()}
            for step in state["steps"]
        ]

    def _judge(self, together: dict[str, _Answers]) -> None:
        """Say of each task that has collapsed that it has; the words do not vary from step to step."""
        for task, own in together.items():
            answer = only_answer(own.valid, own.golds, own.rows, self._options.share)
            if answer is None:
                continue
            words = (
                f"the policy has collapsed on {task}: {self._options.share:.0%} or more of its valid answers of the "
                f"last {self._options.patience} steps are {answer!r}; lower learner.lr, raise algorithm.kl or balance "
                "the data"
            )
            if self._options.on == "stop":
                raise RunError(f"{words}; to go on nevertheless, resume with collapse.on=warn")
            if self._options.on == "warn":
                self._warn(words)


def _answers(groups: Sequence[Group], verifier: Verifier) -> dict[str, _Answers]:
    """What one step's graded samples answered, by task."""
    found: dict[str, _Answers] = {}
    for group in groups:
        for verdict in group.verdicts:
            said = verifier.said(group.problem, verdict) if verdict.outcome != "could_not_grade" else None
            if said is not None:
                given = Counter() if said.answer is None else Counter([said.answer])
                found.setdefault(said.task, _Answers()).add(_Answers(1, given, Counter(set(said.golds))))
    return found
