"""What every reward is: a pure function of a judged group, one number a sample."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ..parts import Part
from ..records import Group


class Reward(Part):
    """Scores the samples of one judged group. Samples that could not be graded are ignored whatever it returns."""

    def score(self, group: Group) -> np.ndarray:
        """rewards_G float64, unweighted."""
        raise NotImplementedError


class Shaping(Part):
    """Reweights a group's finished sum of rewards."""

    needs: ClassVar[frozenset[str]] = frozenset()
    """Annotations that `reshape` reads, such as `logp`."""

    def reshape(self, group: Group) -> np.ndarray:
        """rewards_G float64 from `group.raw_G`; NaN stays NaN."""
        raise NotImplementedError
