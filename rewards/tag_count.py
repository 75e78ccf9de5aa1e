"""How many of the reasoning tags stand where they should?"""

from __future__ import annotations

import numpy as np

from ..records import Group
from .base import Reward


class TagCount(Reward):
    """Half a point for each reasoning tag (Tina, arXiv 2504.15777).

    0.5 for exactly one `<think>` that ends its line, 0.5 for exactly one `</think>` on a line of its own.
    """

    def score(self, group: Group) -> np.ndarray:
        """rewards_G in {0, 0.5, 1}."""
        return np.array(
            [0.5 * (s.text.count("<think>\n") == 1) + 0.5 * (s.text.count("\n</think>\n") == 1) for s in group.samples],
            dtype=np.float64,
        )
