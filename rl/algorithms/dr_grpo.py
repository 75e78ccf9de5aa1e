"""Dr.GRPO: GRPO done right (arXiv 2503.20783)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from .advantages import Per, group_relative
from .policy_gradient import LossKL, known


class DrGRPO(LossKL):
    """Advantages r − mean and a constant divisor: no bias by a problem's difficulty or a completion's length.

    The loss is summed over tokens and divided by completions times `max_tokens`, where every graded
    completion counts, those of constant groups too: the divisor is a constant.
    """

    max_tokens: int | None = Field(None, ge=1)
    """The constant that a completion's sum is divided by, tokens; none: `rollouts.max_tokens`."""

    per: ClassVar[Per] = "constant"

    def group_advantages(self, rewards_G: np.ndarray) -> np.ndarray:
        """r − mean; the deviation would weigh problems by their difficulty (§3.1)."""
        return group_relative(rewards_G, scale=False)

    def divisor(self) -> int:
        """`max_tokens`."""
        return known(self.max_tokens, "Dr.GRPO's divisor")
