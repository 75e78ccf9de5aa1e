"""Does the completion close its reasoning as it was asked to?"""

from __future__ import annotations

import numpy as np

from ..records import Group
from .base import Reward


class Format(Reward):
    """1 if `</think>` stands exactly once on a line of its own, else 0 (Tina, arXiv 2504.15777).

    Only the closing tag with a line break on both sides counts: the opening one is often part of the prompt, and
    answer tags are not looked at.
    """

    def score(self, group: Group) -> np.ndarray:
        """rewards_G in {0, 1}."""
        return np.array([float(s.text.count("\n</think>\n") == 1) for s in group.samples])
