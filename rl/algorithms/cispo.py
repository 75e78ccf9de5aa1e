"""CISPO: clipped importance-sampling weights (MiniMax-M1, arXiv 2506.13585)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from .base import MicroBatch
from .losses import clipped_weight, likelihood_ratio
from .policy_gradient import LossKL

if TYPE_CHECKING:
    from torch import Tensor


class CISPO(LossKL):
    """REINFORCE with GRPO's advantages and a clipped weight new/old: no token loses its gradient.

    A mean over tokens. As in the paper there is no lower bound, and dynamic sampling replaces constant
    groups. The paper keeps its upper bound to itself; 5 is that of ScaleRL (arXiv 2510.13786), which TRL
    recommends.
    """

    clip_low: float = Field(1.0, ge=0, le=1)
    """The weight new/old is clipped below 1 − clip_low; 1 for no lower bound."""
    clip_high: float = Field(4.0, ge=0)
    """The weight new/old is clipped above 1 + clip_high."""

    resamples: ClassVar[bool] = True

    def surrogate(self, logp_T: Tensor, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """−sg(clip(ratio))·A·logp."""
        ratio_T = likelihood_ratio(logp_T - batch.old_logp_T)
        return clipped_weight(ratio_T, batch.advantage_T, logp_T, self.clip_low, self.clip_high)
