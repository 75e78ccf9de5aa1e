"""Tokenizers for models that have none: one token a character, or one a byte."""

from __future__ import annotations

from typing import Any

END, PAD, UNKNOWN = "<|end|>", "<|pad|>", "<|unknown|>"
PLAIN_CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def build_tokenizer(spec: dict[str, Any] | str) -> Any:
    """`{"characters": "0123…", "words": [...]}` or `"bytes"`: a transformers tokenizer with end and padding tokens.

    Its chat template is the bare text of the messages.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    if spec == "bytes":
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # type: ignore
        tokenizer.decoder = decoders.ByteLevel()  # type: ignore
        special = {"eos_token": END, "pad_token": PAD}
    else:
        alphabet = [PAD, END, UNKNOWN, *dict.fromkeys(spec["characters"])]  # type: ignore[index]
        vocabulary = {c: i for i, c in enumerate(alphabet)}
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=UNKNOWN))
        tokenizer.decoder = decoders.Fuse()  # type: ignore
        special = {"eos_token": END, "pad_token": PAD, "unk_token": UNKNOWN}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special)
    if spec != "bytes":
        fast.add_tokens(spec.get("words", []))  # type: ignore[union-attr]
    fast.chat_template = PLAIN_CHAT
    return fast
