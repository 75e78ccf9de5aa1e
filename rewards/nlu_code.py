"""Language understanding, scored as the paper's published code does."""

from __future__ import annotations

import numpy as np

from ..records import Group
from .base import Reward
from .nlu_scheme import by_verdict


class NluCode(Reward):
    """1 for the right label, -1 for a wrong one, -3 for none or several (the code of arXiv 2410.11020, RL4GLUE).

    STS-B: 2.5 - |error| and -2.5 for no number. The code does not clip the number, so that its reward has no lower
    bound; here the answer is clipped to [0, 5].
    """

    def score(self, group: Group) -> np.ndarray:
        """rewards_G in {-3, -1, 1}, or in [-2.5, 2.5] for STS-B."""
        return by_verdict(group, right=1.0, wrong=-1.0, invalid=-3.0)
