"""A user's own plain function in the place of a reward or a verifier: `file.py:name` in the recipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..parts import RunError
from ..records import Group, Problem, Verdict
from ..rewards.base import Reward
from ..verifiers.base import Verifier


def own_reward(function: Callable[[Group], Any]) -> type[Reward]:
    """A reward class around `function(group) -> one number a sample`."""

    class OwnReward(Reward):
        """A reward of the user's own."""

        def score(self, group: Group) -> np.ndarray:
            return np.asarray(function(group), dtype=np.float64)

    return OwnReward


def own_verifier(function: Callable[[Problem, str], bool]) -> type[Verifier]:
    """A verifier class around `function(problem, completion) -> True or False`, run in this process."""

    class OwnVerifier(Verifier):
        """A verifier of the user's own; an exception in it is the run's failure, never a silent wrong."""

        def judge_all(self, submissions: Sequence[tuple[Problem, str]]) -> list[Verdict]:
            return [self._judge(problem, completion) for problem, completion in submissions]

        def _judge(self, problem: Problem, completion: str) -> Verdict:
            start = time.perf_counter()
            try:
                right = function(problem, completion)
            except Exception as error:
                raise RunError(f"your verifier failed on problem {problem.id}: {error!r}") from error
            outcome = "right" if right else "wrong"
            return Verdict(outcome, reason="own", seconds=time.perf_counter() - start)

    return OwnVerifier
