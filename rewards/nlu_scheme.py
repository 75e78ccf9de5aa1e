"""What the two reward schemes for language understanding share."""

from __future__ import annotations

import math

import numpy as np

from ..records import Group

HALF_SCALE = 2.5
"""Reward of a number that is exactly right; half of STS-B's scale from 0 to 5."""


def by_verdict(group: Group, right: float, wrong: float, invalid: float) -> np.ndarray:
    """rewards_G float64 from the verdicts of the verifier `nlu`.

    Where the gold answer is a number (STS-B) a readable answer earns 2.5 - |error| instead, and an invalid one -2.5.
    """
    gold = _number(group.problem.answer)

    def one(outcome: str, reason: str, answer: str) -> float:
        if reason in ("close", "far"):
            return HALF_SCALE - abs(float(answer) - gold)
        if reason == "invalid":
            return invalid if math.isnan(gold) else -HALF_SCALE
        return right if outcome == "right" else wrong

    return np.array([one(v.outcome, v.reason, v.detail) for v in group.verdicts], dtype=np.float64)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
