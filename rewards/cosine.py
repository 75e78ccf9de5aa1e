"""Right answers earn less the longer they are, wrong ones lose more."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from ..records import Group
from .base import Reward
from .lengths import Unit, lengths


class Cosine(Reward):
    """A cosine in the length (Yeo et al., arXiv 2502.03373, with the values of Tina, arXiv 2504.15777).

    With c = cos(pi length / max_len): right 0.5 + 0.25 (1 + c), from 1 down to 0.5; wrong -0.5 + 0.25 (1 + c), from
    0 down to -0.5. Tina's published runs measure characters against a limit of 3,584 meant for tokens and do not
    clamp, so that their value rises again beyond it: `unit: characters`, `clamp: false`.
    """

    max_len: int = Field(default=3584, ge=1)
    """Length at which the reward is lowest, in the unit below."""
    unit: Unit = "tokens"
    """What lengths are measured in."""
    clamp: bool = True
    """Keep longer completions at the lowest reward; without it the cosine rises again."""

    def score(self, group: Group) -> np.ndarray:
        """rewards_G in [-0.5, 1]."""
        share_G = lengths(group, self.unit) / self.max_len
        if self.clamp:
            share_G = np.minimum(share_G, 1.0)
        return np.where(group.right_G, 0.5, -0.5) + 0.25 * (1.0 + np.cos(np.pi * share_G))
