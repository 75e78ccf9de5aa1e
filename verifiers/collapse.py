"""Has a policy come to say one and the same thing, whatever it is asked?"""

from __future__ import annotations

from collections.abc import Mapping

SHARE = 0.95
"""From this share of the valid answers on one answer has collapsed the rest, unless it is that share of the golds."""
LEAST = 10
"""Valid answers below which nothing is said of a collapse."""


def only_answer(valid: Mapping[str, int], golds: Mapping[str, int], rows: int, share: float = SHARE) -> str | None:
    """The answer that holds `share` of the valid ones while being right for less than that share of the rows, or None.

    Args:
        valid: how often each answer was given, invalid ones left out.
        golds: for how many of the rows each answer is right.
        rows: graded rows, those with an invalid answer among them.
        share: from which share on an answer is the only one.
    """
    total = sum(valid.values())
    if total < LEAST:
        return None
    answer, count = max(valid.items(), key=lambda item: item[1])
    return answer if count >= share * total and golds.get(answer, 0) < share * rows else None
