"""How long a completion is, for the rewards that ask."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..records import Group

Unit = Literal["tokens", "characters"]


def lengths(group: Group, unit: Unit) -> np.ndarray:
    """lengths_G float64, in tokens (the end token included) or in characters of the text."""
    if unit == "tokens":
        return group.lengths_G.astype(np.float64)
    return np.array([len(s.text) for s in group.samples], dtype=np.float64)
