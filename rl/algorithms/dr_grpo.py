"""Dr.GRPO: GRPO done right (arXiv 2503.20783)."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from ...records import Group, Row
from .advantages import Per, group_relative
from .policy_gradient import LossKL, known


class DrGRPO(LossKL):
    """Advantages r − mean and a constant divisor: no bias by a problem's difficulty or a completion's length.

    The loss is summed over tokens and divided by completions times `max_tokens`, where every graded
    completion counts, those of constant groups too: the divisor is a constant.
    """

    max_tokens: int | None = Field(None, ge=1)
    """The constant that a completion's sum is divided by, tokens; none: `rollouts.max_tokens`."""

    by_tokens: bool = False
    """Take the mean over a group's tokens, then over groups, as Tina's code does, instead of the constant divisor."""

    per: ClassVar[Per] = "constant"

    def group_advantages(self, rewards_G: np.ndarray) -> np.ndarray:
        """r − mean; the deviation would weigh problems by their difficulty (§3.1)."""
        return group_relative(rewards_G, scale=False)

    def divisor(self) -> int:
        """`max_tokens`."""
        return known(self.max_tokens, "Dr.GRPO's divisor")

    def row(self, group: Group, i: int, advantage_T: np.ndarray, lengths_N: np.ndarray) -> Row:
        """As every method's, but `by_tokens` weighs a token by its group's share of the completions over its tokens."""
        row = super().row(group, i, advantage_T, lengths_N)
        if not self.by_tokens:
            return row
        own_G = group.lengths_G[group.graded_G]
        return replace(row, weight=len(own_G) / len(lengths_N) / max(int(own_G.sum()), 1))
