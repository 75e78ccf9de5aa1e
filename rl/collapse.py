"""Does a policy give one answer whatever is asked? Watched while training, of any verifier that tells answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pydantic import Field

from ..parts import Options, RunError
from ..records import Group
from ..verifiers.base import Verifier


class Collapse(Options):
    """What is done where nearly all answers become one and the same."""

    on: Literal["warn", "stop", "off"] = "warn"
    """Say so, stop the run, or do neither; the shares are logged all the same."""
    share: float = Field(default=0.95, gt=0, le=1)
    """Share of a step's valid answers on one answer that is a collapse, unless as many gold answers are that one."""
    patience: int = Field(default=20, ge=1)
    """Such steps in a row before anything is done: few samples agree by chance."""


class CollapseWatch:
    """Counts the steps in a row with one answer for nearly everything."""

    def __init__(self, options: Collapse, verifier: Verifier, warn: Callable[[str], None]) -> None:
        self._options, self._verifier, self._warn = options, verifier, warn
        self._steps = 0

    def take(self, groups: Sequence[Group]) -> dict[str, float]:
        """Take note of a step; `answers/top_share` of the valid answers and `answers/invalid` of the graded samples.

        Empty where the verifier tells no answers or nothing was graded; without a valid answer there is no top share.

        Raises:
            RunError: the policy has collapsed, and `on` is stop.
        """
        graded = [(g.problem, v) for g in groups for v in g.verdicts if v.outcome != "could_not_grade"]
        if not self._verifier.tells or not graded:
            return {}
        given = [self._verifier.answer(verdict) for _, verdict in graded]
        valid = Counter(answer for answer in given if answer is not None)
        stats = {"answers/invalid": given.count(None) / len(given)}
        if not valid:
            self._steps = 0
            return stats
        (top, count) = valid.most_common(1)[0]
        share = count / valid.total()
        golds = sum(problem.answer == top for problem, _ in graded) / len(graded)
        self._steps = self._steps + 1 if share >= self._options.share > golds else 0
        if self._steps == self._options.patience:
            self._say(top)
        return {**stats, "answers/top_share": share}

    def state_dict(self) -> dict[str, Any]:
        """The steps in a row."""
        return {"steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._steps = state["steps"]

    def _say(self, top: str) -> None:
        steps, share = self._steps, self._options.share
        words = (
            f"the policy has collapsed: {steps} steps in a row {share:.0%} or more of its valid answers were the same, "
            f"now {top!r}; lower learner.lr, raise algorithm.kl or balance the data"
        )
        if self._options.on == "stop":
            raise RunError(f"{words}; collapse.on=warn goes on nevertheless")
        if self._options.on == "warn":
            self._warn(words)
