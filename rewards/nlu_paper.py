"""Language understanding, scored as the paper prints it."""

from __future__ import annotations

import numpy as np

from ..records import Group
from .base import Reward
from .nlu_scheme import by_verdict


class NluPaper(Reward):
    """1 for the right label, 0 for a wrong one, -1 for none or several (RL on GLUE by PPO, arXiv 2410.11020).

    STS-B: 2.5 - |error| after clipping the answer to [0, 5], and -2.5 for no number.
    """

    def score(self, group: Group) -> np.ndarray:
        """rewards_G in {-1, 0, 1}, or in [-2.5, 2.5] for STS-B."""
        return by_verdict(group, right=1.0, wrong=0.0, invalid=-1.0)
