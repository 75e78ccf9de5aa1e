"""When a completion ends: end tokens, stop tokens, and stop strings across token boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...records import Sampling

GOES_ON, EOS, STOP = 0, 1, 2


def end_tokens(config: Any, tokenizer: Any) -> tuple[int, ...]:
    """The model's end tokens: the tokenizer's and those of its folder's generation_config.json, else the config's."""
    found = _ids(getattr(tokenizer, "eos_token_id", None)) | _generation_config(config)
    return tuple(sorted(found or _ids(getattr(config, "eos_token_id", None))))


def _generation_config(config: Any) -> set[int]:
    from transformers import GenerationConfig

    name = getattr(config, "_name_or_path", "")
    if not name:
        return set()
    try:
        stored = GenerationConfig.from_pretrained(name, local_files_only=True)
    except OSError:
        return set()
    return _ids(stored.eos_token_id)


def _ids(value: int | Sequence[int] | None) -> set[int]:
    if value is None:
        return set()
    return {value} if isinstance(value, int) else set(value)


class Stops:
    """What ends the samples of one sampling: a code for each token, and the strings to look for.

    `codes_V` uint8: GOES_ON, EOS or STOP. A stop string that is one of the tokenizer's special tokens is a stop token,
    since texts are decoded without those.
    """

    def __init__(self, sampling: Sampling, ends: Sequence[int], tokenizer: Any, vocab: int) -> None:
        special = set(getattr(tokenizer, "all_special_tokens", ()))
        self.strings = tuple(s for s in sampling.stop if s and s not in special)
        tokens = [
            *sampling.stop_token_ids,
            *(tokenizer.convert_tokens_to_ids(s) for s in sampling.stop if s in special),
        ]
        self.codes_V = np.zeros(vocab, dtype=np.uint8)
        self.codes_V[[t for t in tokens if 0 <= t < vocab]] = STOP
        self.codes_V[[t for t in ends if 0 <= t < vocab]] = EOS
        self._tokenizer = tokenizer
        self._may_complete_V = self._completers(vocab) if self.strings else None

    def completed(self, tokens_T: np.ndarray) -> bool:
        """Whether the last of `tokens_T` completed a stop string."""
        if self._may_complete_V is None or not self._may_complete_V[tokens_T[-1]]:
            return False
        text = self._tokenizer.decode(tokens_T.tolist(), skip_special_tokens=True)
        return any(string in text for string in self.strings)

    def texts(self, completions: Sequence[np.ndarray]) -> list[str]:
        """What completions say: without special tokens, the stop token, and all from the first stop string on."""
        bodies = [t[:-1] if self.codes_V[t[-1]] != GOES_ON else t for t in completions]
        texts = self._tokenizer.batch_decode([body.tolist() for body in bodies], skip_special_tokens=True)
        return [self._cut(text) for text in texts]

    def _cut(self, text: str) -> str:
        return text[: min((at for at in map(text.find, self.strings) if at >= 0), default=None)]

    def _completers(self, vocab: int) -> np.ndarray:
        """Which tokens can be the last of a match: those that hold a stop string's last character.

        A token that is a part of a character shows as U+FFFD, and spaces can come from the joining of tokens: both
        are always looked into.
        """
        lasts = {s[-1] for s in self.strings}
        if any(last.isspace() for last in lasts):
            return np.ones(vocab, dtype=bool)
        lasts.add("\ufffd")
        texts = self._tokenizer.batch_decode([[i] for i in range(min(vocab, len(self._tokenizer)))])
        may = np.zeros(vocab, dtype=bool)
        may[: len(texts)] = [not lasts.isdisjoint(text) for text in texts]
        return may
