"""Is the answer right?"""

from __future__ import annotations

import numpy as np

from ..records import Group
from .base import Reward


class Accuracy(Reward):
    """1 for a right answer, 0 for a wrong one: the verifier's verdict as a number."""

    def score(self, group: Group) -> np.ndarray:
        """rewards_G in {0, 1}."""
        return group.right_G.astype(np.float64)
