"""DAPO: decoupled clip and dynamic sampling policy optimization (arXiv 2503.14476)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from ...records import Batch, Group
from .advantages import overlong_penalty
from .policy_gradient import LossKL, graded_rewards, known


class DAPO(LossKL):
    """GRPO's advantages, an asymmetric clip, a mean over tokens, dynamic sampling, an over-length penalty.

    Problems are drawn until `rollouts.problems` groups, or `informative`, have rewards that differ (at most
    `rollouts.max_draws` draws); constant groups are left out and count nowhere, for others took their
    place. The over-length penalty is added to the reward before it is normalised, and cannot by itself make
    a constant group informative.
    """

    informative: int | None = Field(None, ge=1)
    """Groups with a signal that are enough for a step; none: `rollouts.problems`. All that were drawn are used."""
    clip_high: float = Field(0.28, ge=0)
    """The ratio new/old is clipped above 1 + clip_high."""
    max_tokens: int | None = Field(None, ge=1)
    """Completion length at which the over-length penalty is largest, tokens; none: `rollouts.max_tokens`."""
    overlong_buffer: int | None = Field(None, ge=1)
    """Tokens before `max_tokens` over which the penalty grows; none: a fifth of it, as in the paper."""
    overlong_penalty: float = Field(1.0, ge=0)
    """The largest over-length penalty, in units of reward; 0 for none."""

    resamples: ClassVar[bool] = True

    @model_validator(mode="after")
    def _buffer_fits(self) -> Self:
        if self.max_tokens is not None and (self.overlong_buffer or 1) > self.max_tokens:
            raise ValueError("overlong_buffer must not exceed max_tokens")
        return self

    def enough(self, groups: Sequence[Group], wanted: int) -> bool:
        """Whether `informative` groups carry a signal, or as many as a draw has."""
        return super().enough(groups, self.informative or wanted)

    def advantages(self, groups: Sequence[Group]) -> Batch:
        """Rows, and the mean penalty of the graded samples as `rewards/overlong/mean`."""
        batch = super().advantages(groups)
        penalties = np.concatenate([np.zeros(0), *(self._penalty(g)[g.graded_G] for g in groups)])
        mean = float(penalties.mean()) if penalties.size else 0.0
        return replace(batch, stats={**batch.stats, "rewards/overlong/mean": mean})

    def final_rewards(self, group: Group) -> np.ndarray:
        """The rewards plus the over-length penalty."""
        return graded_rewards(group) + self._penalty(group)

    def _penalty(self, group: Group) -> np.ndarray:
        if not self.overlong_penalty:
            return np.zeros(len(group.samples))
        limit = known(self.max_tokens, "DAPO's over-length penalty (overlong_penalty=0 switches it off)")
        buffer = self.overlong_buffer or max(limit // 5, 1)
        return self.overlong_penalty * overlong_penalty(group.lengths_G, limit, buffer)
