"""Before training: do a data set's own gold answers pass its verifier?"""

from __future__ import annotations

from collections.abc import Sequence

from ..parts import RunError
from ..records import Problem
from .base import Verifier

SHOWN = 3
"""Failures that the error names."""


def validate(verifier: Verifier, problems: Sequence[Problem], minimum: float = 0.98) -> float:
    """The share of problems whose gold answer their verifier finds right, of those that have one.

    Raises:
        RunError: the share is below `minimum` (0 to 1), or no problem has a gold answer.
    """
    pairs = [(problem, text) for problem in problems if (text := verifier.reference(problem)) is not None]
    if not pairs:
        raise RunError("no problem of the data set has a gold answer; name the column that holds it")
    failed = [
        (problem, verdict)
        for (problem, _), verdict in zip(pairs, verifier.judge_all(pairs), strict=True)
        if verdict.outcome != "right"
    ]
    rate = 1 - len(failed) / len(pairs)
    if rate < minimum:
        shown = "; ".join(f"problem {p.id}: {v.outcome}, {v.reason} ({_short(p.answer)})" for p, v in failed[:SHOWN])
        raise RunError(
            f"the verifier accepts {rate:.1%} of the data set's own gold answers, fewer than {minimum:.1%}: {shown}; "
            "choose another verifier or its options, correct the data, or lower min_gold_rate"
        )
    return rate


def _short(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
