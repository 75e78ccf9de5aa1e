"""REINFORCE++: PPO's tricks without a critic (Hu et al. 2025, arXiv 2501.03262)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from .advantages import whiten
from .policy_gradient import RewardKL, Scored


class ReinforcePP(RewardKL):
    """Each token's return, normalised over all tokens of the batch; no group's baseline, no group dropped.

    The reward comes with the last token, and each token pays `kl` times its log(policy/reference) (k1), so
    a token's return is r − kl · Σ of what it and those after it pay (eq. 3, no discount). A mean over the
    batch's tokens.
    """

    kl: float = Field(0.01, ge=0)
    """Coefficient of a token's log(policy/reference) that is taken from its reward; 0 for none."""

    def drops(self, scored: Scored) -> bool:
        """Never: a constant group is above or below the batch's mean."""
        return False

    def token_advantages(self, used: Sequence[Scored]) -> list[np.ndarray]:
        """Returns of all graded samples, whitened together."""
        returns: list[np.ndarray] = []
        for one in used:
            paid = self.penalties(one.group)
            returns += [one.rewards_G[i] - self.kl * np.cumsum(paid[i][::-1])[::-1] for i in one.graded]
        ends = np.cumsum([len(returns_T) for returns_T in returns])
        return np.split(whiten(np.concatenate(returns)), ends[:-1]) if returns else []
