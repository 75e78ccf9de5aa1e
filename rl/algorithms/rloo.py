"""RLOO: REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024, arXiv 2402.14740)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from ...records import Group
from .advantages import Per, leave_one_out
from .base import MicroBatch
from .losses import clipped_surrogate, likelihood_ratio, row_sum
from .policy_gradient import RewardKL, graded_rewards

if TYPE_CHECKING:
    from torch import Tensor


class RLOO(RewardKL):
    """A completion is one action: its ratio a product over its tokens, its advantage r − the others' mean.

    A mean over completions, undivided by their lengths. The KL term, k1 summed over the completion, is
    taken from the reward, as in the paper and in TRL's RLOOTrainer, whose defaults these are. Constant
    groups have a zero gradient: they are left out, and their samples count in the mean.
    """

    kl: float = Field(0.05, ge=0)
    """Coefficient of the completion's log(policy/reference) that is taken from its reward; 0 for none."""

    per: ClassVar[Per] = "sequence"

    def final_rewards(self, group: Group) -> np.ndarray:
        """r − kl · Σ_t log(policy/reference)."""
        paid_G = np.array([penalty_T.sum() for penalty_T in self.penalties(group)])
        return graded_rewards(group) - self.kl * paid_G

    def group_advantages(self, rewards_G: np.ndarray) -> np.ndarray:
        """r − the mean of the others."""
        return leave_one_out(rewards_G)

    def surrogate(self, logp_T: Tensor, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The completion's loss at each of its tokens; their weights, 1/(N·length), sum to its 1/N."""
        ratio_T = likelihood_ratio(row_sum(logp_T - batch.old_logp_T, batch.row_T, batch.rows))
        return clipped_surrogate(ratio_T, batch.advantage_T, self.clip_low, self.clip_high)

    def spread(self, hinge_T: Tensor, batch: MicroBatch) -> Tensor:
        """The completion's sum at each of its tokens, which its length does not divide, as in the surrogate.

        A completion has no likeliest rival that could be known; its tokens have, so the hinge is of tokens here too.
        """
        return row_sum(hinge_T, batch.row_T, batch.rows)
