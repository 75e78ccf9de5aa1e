"""Saying the same words again costs."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from ..records import Group
from .base import Reward


class Repetition(Reward):
    """-(1 - distinct / all) over the word n-grams of the text, without case (Yeo et al., arXiv 2502.03373, C.2).

    0 for a text of fewer than `ngram` words.
    """

    ngram: int = Field(default=3, ge=1)
    """Words of an n-gram."""

    def score(self, group: Group) -> np.ndarray:
        """rewards_G in (-1, 0]."""
        return np.array([self._penalty(s.text.lower().split()) for s in group.samples])

    def _penalty(self, words: list[str]) -> float:
        total = len(words) - self.ngram + 1
        if total < 1:
            return 0.0
        distinct = len({tuple(words[i : i + self.ngram]) for i in range(total)})
        return distinct / total - 1.0
