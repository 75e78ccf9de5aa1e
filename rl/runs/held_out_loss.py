"""The loss on held-out problems while training: cross-entropy of the data's own solutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...records import Policy, Request, Sample, Sampling
from ...rollouts.base import Engine
from ..sampling import Prompt


@dataclass(frozen=True)
class HeldOutLoss:
    """Always the same solutions, and the weights as an update left them: no dropout, no perturbation."""

    solutions: Sequence[Sample]
    every: int
    """Steps between measurements."""

    def after(self, step: int, learner: Any) -> dict[str, float]:
        """`eval/held_out/loss` when due: nats a token, a mean over the tokens of all solutions."""
        if step % self.every:
            return {}
        version = replace(self.solutions[0].version, number=learner.policy.number)
        logps = learner.logps([replace(sample, version=version) for sample in self.solutions])
        return {"eval/held_out/loss": -float(np.concatenate(logps).mean(dtype=np.float64))}


def solutions(gold: Engine, policy: Policy, prompts: Sequence[Prompt], sampling: Sampling) -> list[Sample]:
    """One solution a problem, from the engine `gold`.

    Raises:
        UserError: a problem has no solution.
    """
    gold.publish(policy)
    return [own for (own,) in gold.generate([Request(p.problem, p.ids, (0,), sampling) for p in prompts])]
