"""Shorter than the others of its group is better."""

from __future__ import annotations

import numpy as np

from ..records import Group
from .base import Reward
from .lengths import Unit, lengths


class Length(Reward):
    """The length reward of Kimi k1.5 (arXiv 2501.12599, section 2.3.3), over one problem's graded samples.

    lambda = 0.5 - (length - shortest) / (longest - shortest); right samples get lambda, wrong ones min(0, lambda);
    all get 0 where all are equally long.
    """

    unit: Unit = "tokens"
    """What lengths are measured in (Tina's published runs: characters)."""

    def score(self, group: Group) -> np.ndarray:
        """rewards_G in [-0.5, 0.5]; 0 where a sample was not graded."""
        rewards_G = np.zeros(len(group.samples))
        graded_G = group.graded_G
        if not graded_G.any():
            return rewards_G
        length_G = lengths(group, self.unit)[graded_G]
        span = length_G.max() - length_G.min()
        if span == 0:
            return rewards_G
        lambda_G = 0.5 - (length_G - length_G.min()) / span
        rewards_G[graded_G] = np.where(group.right_G[graded_G], lambda_G, np.minimum(0.0, lambda_G))
        return rewards_G
