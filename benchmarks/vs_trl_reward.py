"""A reward for timing: it costs nothing and never leaves a group without signal, so that both sides learn from all."""

from __future__ import annotations

import zlib

import numpy as np

from underdog.records import Group
from underdog.rewards.base import Reward


class Checksum(Reward):
    """The text's CRC-32 as a number in [0, 1): noise, but the same noise for the same text."""

    def score(self, group: Group) -> np.ndarray:
        """rewards_G."""
        return np.array([zlib.crc32(sample.text.encode()) / 2**32 for sample in group.samples])
