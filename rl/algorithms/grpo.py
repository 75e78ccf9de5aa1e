"""GRPO: group relative policy optimization (DeepSeekMath, arXiv 2402.03300)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from .advantages import Per, group_relative
from .policy_gradient import LossKL


class GRPO(LossKL):
    """Advantages (r − mean)/(std + 1e-4) in the group; a mean over each completion, then over completions.

    The defaults are Tina's (arXiv 2504.15777): KL coefficient 0.04 with k3 in the loss, one update a batch,
    at which the ratio is 1 and nothing is clipped. The loss is that of TRL's `loss_type="grpo"`: samples of
    constant groups count in the mean over completions.
    """

    kl: float = Field(0.04, ge=0)
    """Coefficient of the KL divergence from the reference policy; 0 for none and no reference pass."""
    scale: bool = True
    """Divide advantages by the group's standard deviation."""

    per: ClassVar[Per] = "sequence"

    def group_advantages(self, rewards_G: np.ndarray) -> np.ndarray:
        """(r − mean)/(std + 1e-4), or r − mean without `scale`."""
        return group_relative(rewards_G, self.scale)
