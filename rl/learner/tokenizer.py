"""Tokenizers for models that have none: one token a character, a byte, a word that is listed or learnt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from ...parts import UserError

END, PAD, UNKNOWN = "<|end|>", "<|pad|>", "<|unknown|>"
PLAIN_CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def build_tokenizer(spec: dict[str, Any] | str) -> Any:
    """`{"characters": "0123…", "words": [...]}`, `"bytes"`, `{"tokens": [...]}` or `{"vocabulary": [...]}`: a tokenizer
    of transformers with end and padding tokens.

    Tokens are words as they stand, with white space between; a vocabulary is of lower-case words and marks, white space
    apart. The chat template is the messages' bare text.

    Raises:
        UserError: the vocabulary is still a number, that of words to take from the text of a training.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    if spec == "bytes":
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # type: ignore
        tokenizer.decoder = decoders.ByteLevel()  # type: ignore
        special = {"eos_token": END, "pad_token": PAD}
    elif "tokens" in spec:
        listed = [PAD, END, UNKNOWN, *spec["tokens"]]  # type: ignore[index]
        tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(listed)}, unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore
        special = {"eos_token": END, "pad_token": PAD, "unk_token": UNKNOWN}
    elif "vocabulary" in spec:
        if isinstance(spec["vocabulary"], int):  # type: ignore[index]
            raise UserError("this shape takes its words from its training text: train it by a recipe first")
        listed = [PAD, END, UNKNOWN, *spec["vocabulary"]]  # type: ignore[index]
        tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(listed)}, unk_token=UNKNOWN))
        tokenizer.normalizer, tokenizer.pre_tokenizer = _words()  # type: ignore
        special = {"eos_token": END, "pad_token": PAD, "unk_token": UNKNOWN}
    else:
        alphabet = [PAD, END, UNKNOWN, *dict.fromkeys(spec["characters"])]  # type: ignore[index]
        vocabulary = {c: i for i, c in enumerate(alphabet)}
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=UNKNOWN))
        tokenizer.decoder = decoders.Fuse()  # type: ignore
        special = {"eos_token": END, "pad_token": PAD, "unk_token": UNKNOWN}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special)
    if spec != "bytes" and "characters" in spec:
        fast.add_tokens(spec.get("words", []))  # type: ignore[union-attr]
    fast.chat_template = PLAIN_CHAT
    return fast


def frequent_words(texts: Iterable[str], count: int) -> list[str]:
    """The `count` most frequent words and marks of `texts`, as a vocabulary has them; of equals the first in order."""
    normalizer, splitter = _words()
    seen: Counter[str] = Counter()
    for text in texts:
        seen.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    return sorted(seen, key=lambda word: (-seen[word], word))[:count]


def _words() -> tuple[Any, Any]:
    """How a text falls into words: lower case, runs of letters and digits, runs of marks."""
    from tokenizers import normalizers, pre_tokenizers

    return normalizers.Lowercase(), pre_tokenizers.Whitespace()
