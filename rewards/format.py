"""Does the completion close its reasoning as it was asked to?"""

from __future__ import annotations

import re

import numpy as np

from ..records import Group
from .base import Reward

_CLOSED = "\n</think>\n"
_ANSWER = re.compile(r"\s*<answer>((?!</?answer>).)+</answer>\s*", re.DOTALL)


class Format(Reward):
    """1 if `</think>` stands exactly once on a line of its own, else 0 (Tina, arXiv 2504.15777).

    The opening tag is not looked at, as it is often part of the prompt; nor are, in Tina's published code, the answer
    tags that its prompts ask for.
    """

    answer_tags: bool = False
    """Ask also that one <answer> … </answer> is all that follows."""

    def score(self, group: Group) -> np.ndarray:
        """rewards_G in {0, 1}."""
        return np.array([float(self._holds(s.text)) for s in group.samples])

    def _holds(self, text: str) -> bool:
        if text.count(_CLOSED) != 1:
            return False
        return not self.answer_tags or _ANSWER.fullmatch(text.partition(_CLOSED)[2]) is not None
