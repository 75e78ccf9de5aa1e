"""Training and held-out problems without overlap, chosen by hash: the same whatever the order of the file."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...parts import UserError
from ...records import Problem, derive_seed
from .base import Data

_TYPOGRAPHY = str.maketrans("‘’‚“”„‐‑‒–—−", "'''\"\"\"------")
_SENTENCE_MARKS = re.compile(r"[.,;:?]+(?=\s|$)")
_SPACE = re.compile(r"\s+")
_SPACE_BESIDE_SIGNS = re.compile(r"(?<!\w) | (?!\w)")


@dataclass(frozen=True)
class Split:
    """Two lists of problems that share no text, each in the order of its hashes, and what was counted.

    `counts`: `data/loaded` problems read; `data/duplicates` repeated texts removed (the data's own evaluation set stays
    whole), of which `data/conflicting` had another answer; `data/overlap` training problems removed because they
    stand in the data's own evaluation set; `data/train` and `data/held_out` what is left.
    """

    train: tuple[Problem, ...]
    held_out: tuple[Problem, ...]
    counts: Mapping[str, int]


def load(data: Data, seed: int) -> Split:
    """The problems of a recipe's data block, split; held out are those of its own evaluation set, if any."""
    return split(data.load(seed), data.held_out, data.split_seed, data.load_evaluation(seed))


def split(
    problems: Sequence[Problem],
    held_out: int | float,
    seed: int = 0,
    evaluation: Sequence[Problem] | None = None,
) -> Split:
    """Divide `problems` by the hash of (seed, normalised text), or hold out the `evaluation` set instead.

    Args:
        held_out: how many problems, or which share of them when it is a float below 1.

    Raises:
        UserError: of problems to train on none would be left.
    """
    train, counts = _distinct(problems)
    if evaluation is None:
        order = _by_hash(list(train.items()), seed)
        n = held_out if isinstance(held_out, int) else round(held_out * len(order))
        if n >= len(order):
            raise UserError(
                f"data.held_out={held_out} leaves none of the {len(order)} distinct problems to train on; lower it"
            )
        rest, kept, overlap = order[n:], order[:n], 0
    else:
        # Whole, repeats and all: official scores are over every row of an official set.
        apart = [(normalise(problem), problem) for problem in evaluation]
        texts = {text for text, _ in apart}
        counts["data/loaded"] += len(evaluation)
        overlap = len(train.keys() & texts)
        rest = _by_hash([(text, p) for text, p in train.items() if text not in texts], seed)
        kept = _by_hash(apart, seed)
        if train and not rest:
            raise UserError("every training problem stands in the evaluation set too; give another one")
    counts |= {"data/overlap": overlap, "data/train": len(rest), "data/held_out": len(kept)}
    return Split(tuple(rest), tuple(kept), counts)


def normalise(problem: Problem) -> str:
    """The text by which two problems count as the same.

    NFKC (superscripts kept apart from digits), case folded, typographic quotes and dashes as ASCII, invisible
    characters and sentence marks gone, white space only between words. Signs that carry mathematics stay. Where the
    prompt holds more than is asked, such as examples, the data say what is: `info["asked"]`.
    """
    if isinstance(problem.prompt, str):
        text = str(problem.info.get("asked", problem.prompt))
    else:
        text = "\n".join(m["content"] for m in problem.prompt if m["role"] != "system")
    if not text.isascii():
        text = unicodedata.normalize("NFKC", "".join(map(_plain, text))).translate(_TYPOGRAPHY)
        text = text.casefold()
        text = unicodedata.normalize("NFKC", text)
    text = _SENTENCE_MARKS.sub(" ", text.casefold())
    return _SPACE_BESIDE_SIGNS.sub("", _SPACE.sub(" ", text))


def _plain(char: str) -> str:
    # NFKC alone would make x² the same text as x2.
    if unicodedata.decomposition(char).startswith("<super>"):
        return "^" + char
    return "" if unicodedata.category(char) == "Cf" else char


def _distinct(problems: Sequence[Problem]) -> tuple[dict[str, Problem], dict[str, int]]:
    """The first problem of each normalised text, and the counts of what was removed."""
    first: dict[str, Problem] = {}
    conflicting = 0
    for problem in problems:
        conflicting += first.setdefault(normalise(problem), problem).answer != problem.answer
    return first, {
        "data/loaded": len(problems),
        "data/duplicates": len(problems) - len(first),
        "data/conflicting": conflicting,
    }


def _by_hash(problems: Sequence[tuple[str, Problem]], seed: int) -> list[Problem]:
    return [problem for _, problem in sorted(problems, key=lambda pair: derive_seed("split", seed, pair[0]))]
