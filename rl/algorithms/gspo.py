"""GSPO: group sequence policy optimization (arXiv 2507.18071)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from .advantages import Per
from .base import MicroBatch
from .losses import clipped_surrogate, likelihood_ratio, row_mean
from .policy_gradient import LossKL

if TYPE_CHECKING:
    from torch import Tensor


class GSPO(LossKL):
    """GRPO with one ratio a completion, the geometric mean over its tokens (eq. 7), closely clipped (§5.1).

    Samples of constant groups count in the mean over completions, as in GRPO. With `negative: hinge` the completions
    of negative advantage have no ratio, and lose the mean of their tokens' hinges, as in GRPO.
    """

    clip_low: float = Field(3e-4, ge=0, le=1)
    """The completion's ratio new/old is clipped below 1 − clip_low; 1 for no lower bound."""
    clip_high: float = Field(4e-4, ge=0)
    """The completion's ratio new/old is clipped above 1 + clip_high."""

    per: ClassVar[Per] = "sequence"

    def surrogate(self, logp_T: Tensor, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The completion's loss at each of its tokens; their weights, 1/(N·length), sum to its 1/N."""
        ratio_T = likelihood_ratio(row_mean(logp_T - batch.old_logp_T, batch.row_T, batch.rows))
        return clipped_surrogate(ratio_T, batch.advantage_T, self.clip_low, self.clip_high)
