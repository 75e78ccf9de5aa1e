"""What a small model reads before it is trained on a task: its training sentences, with answers."""

from __future__ import annotations

import logging

import numpy as np
from pydantic import Field

from ...parts import UserError
from ...records import Problem, derive_seed
from ...verifiers.nlu.task import task_of
from .glue import Glue
from .split import normalise

log = logging.getLogger(__name__)


class GlueWarmup(Glue):
    """One problem whose solutions are a task's training rows, written out with an answer each; no validation row.

    Of `known` of the rows the answer is the gold one. Every other row stands there once with each label, so that it
    teaches the form of an answer and nothing of the task. Draw many samples of the problem (`rollouts.group`) by the
    engine `gold`. Training rows whose text is a validation row's too are left out and counted.
    """

    known: float = Field(default=0.1, ge=0, le=1)
    """Share of the rows whose own label is shown."""
    opening: str = "Sentence:"
    """The prompt: what the rows begin with, and their solutions go on from."""
    answering: str = " = "
    """What stands between a row and its answer."""

    def load(self, seed: int) -> list[Problem]:
        """The one problem; which labels are known is `seed`'s."""
        rng = np.random.default_rng(derive_seed("glue_warmup", seed))
        rows = super().load(seed)
        held = {normalise(problem) for problem in super().load_evaluation(seed) or []}
        apart = [problem for problem in rows if normalise(problem) not in held]
        if left_out := len(rows) - len(apart):
            log.warning("warm-up: %d training rows left out: they are validation rows too", left_out)
        solutions: list[str] = []
        for problem in apart:
            labels = list(task_of(problem.info["task"]).labels)
            answers = [problem.answer] * len(labels) if rng.random() < self.known else labels
            solutions += [f"{self._text(problem)}{self.answering}{answer}" for answer in answers]
        info = {"task": self.task[0], "tag": "", "solutions": solutions}
        return [Problem("warmup", self.opening, answer=next(iter(task_of(self.task[0]).labels)), info=info)]

    def load_evaluation(self, seed: int) -> list[Problem] | None:
        """None: a warm-up is measured by what is trained on it."""
        return []

    def _text(self, problem: Problem) -> str:
        prompt = str(problem.prompt)
        if not prompt.startswith(self.opening):
            raise UserError(
                f"{problem.id} begins {prompt[:20]!r}, not with data.opening={self.opening!r}: "
                "set data.opening to how the task's prompts begin, with instructed=false"
            )
        return prompt.removeprefix(self.opening)
