"""Before anything is trained on a verifier's word: does it find the data's own gold answers right?"""

from __future__ import annotations

from collections.abc import Sequence

from ..records import Problem
from ..verifiers.validate import validate
from .config import Config

TRIED = 64
"""Problems to train on, and held out, whose gold answers the verifier is tried on."""


def try_on_gold(config: Config, train: Sequence[Problem], held_out: Sequence[Problem]) -> str:
    """Send the first gold answers of both sides through the verifier; what came of it, in a sentence.

    Raises:
        RunError: fewer than `min_gold_rate` of them are right.
    """
    chosen = [problem for side in (train, held_out) for problem in side[:TRIED]]
    known = [problem for problem in chosen if config.verifier.reference(problem) is not None]
    if config.min_gold_rate == 0 or not known:
        return "the verifier is not tried on gold answers: there are none to try, or min_gold_rate is 0"
    rate = validate(config.verifier, known, config.min_gold_rate)
    return f"the verifier finds {rate:.1%} of {len(known)} gold answers right"
