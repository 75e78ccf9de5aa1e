"""Whole weights in vLLM's own form: query, key and value joined, gate and up joined, the vocabulary padded.

`joined` is the documented transformation of a policy's weights; `Inside.weights`, with the padding cut off, must give
the same tensors back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ...parts import UserError

if TYPE_CHECKING:
    from torch import Tensor

JOINED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""vLLM's joined projections, and what stands in them, in order."""
MODELS = frozenset({"qwen2", "qwen3", "llama", "mistral"})
"""transformers' `model_type`s whose tensors vLLM names and joins so."""
_OWNER = {part: whole for whole, parts in JOINED.items() for part in parts}


def joined(weights: Iterable[tuple[str, Tensor]], config: Any) -> Iterator[tuple[str, Tensor]]:
    """A policy's weights as vLLM holds them, by its names and in its dtype; a tied head has a copy of its own."""
    import torch

    dtype = config.dtype
    waiting: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights:
        module, _, key = name.rpartition(".")
        parent, _, last = module.rpartition(".")
        whole = _OWNER.get(last)
        if whole is None:
            yield name, tensor.to(dtype)
            if name == "model.embed_tokens.weight" and config.tie_word_embeddings:
                yield "lm_head.weight", tensor.to(dtype)
            continue
        place = f"{parent}.{whole}.{key}"
        parts = waiting.setdefault(place, {})
        parts[last] = tensor.to(dtype)
        if len(parts) == len(JOINED[whole]):
            yield place, torch.cat([parts[part] for part in JOINED[whole]])
            del waiting[place]


def read_back(weights: Iterable[tuple[str, Tensor]], config: Any) -> Iterator[tuple[str, Tensor]]:
    """What is inside vLLM, without the padding of its vocabulary and its wrappers' names."""
    for name, tensor in weights:
        padded = name in ("model.embed_tokens.weight", "lm_head.weight")
        yield name.replace(".base_layer.", "."), (tensor[: config.vocab_size] if padded else tensor).to(config.dtype)


def check_model(config: Any) -> None:
    """Whether merged weights of this model can be proven inside vLLM.

    Raises:
        UserError: they cannot.
    """
    if config.model_type not in MODELS:
        raise UserError(
            f"the engine vllm cannot prove that it holds merged weights of a {config.model_type} model (it knows "
            f"{', '.join(sorted(MODELS))}); set rollouts.engine.sync=adapter, or rollouts.engine=local"
        )
