"""Does the completion show its steps?"""

from __future__ import annotations

import re

import numpy as np
from pydantic import Field

from ..records import Group
from .base import Reward

_STEP = r"Step [0-9]+:|^[0-9]+\.|\n-|\n\*|First,|Second,|Next,|Finally,"
_ONCE, _LINES = re.compile(_STEP), re.compile(_STEP, re.MULTILINE)


class ReasoningSteps(Reward):
    """min(1, markers / enough) (Open-R1 and Tina, arXiv 2504.15777).

    Markers are `Step 2:`, a line that starts with a number and a full stop, a bullet at the start of a later line,
    and `First,`, `Second,`, `Next,`, `Finally,`.
    """

    enough: int = Field(default=3, ge=1)
    """Markers that earn the whole point."""
    every_line: bool = True
    """Count a number at the start of any line; false, as in the published code, only where the whole text starts."""

    def score(self, group: Group) -> np.ndarray:
        """rewards_G in [0, 1]."""
        marker = _LINES if self.every_line else _ONCE
        return np.array([min(1.0, len(marker.findall(s.text)) / self.enough) for s in group.samples])
