"""What the fast decoder must know of a model, read from its transformers configuration.

Qwen2, Qwen3, Llama and Gemma 1 to 3 (text) differ in a handful of facts: which projections have a bias, how a norm's
weight counts, where norms stand, which layers look through a window. `describe` reads those facts, and is strict: a
configuration that says anything it does not know is refused with the reason, and the plain path takes the model.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Family:
    """What the members of one transformers model type have in common, beyond their configuration's numbers."""

    module: str
    """Name in `transformers.models`, and of the rotary embedding's class in it."""
    rotary: str
    bias_qkv: bool | None = None
    """Whether query, key and value have a bias; None: as `attention_bias` says, which then holds for the output too."""
    qk_norm: bool = False
    """Queries and keys are normalised per head before the rotation."""
    gemma: bool = False
    """Norm weights count from zero (1 + w), and embeddings are scaled by the root of the hidden size."""
    sandwich: bool = False
    """Norms also after the attention and the MLP, before their residual addition."""
    query_scalar: bool = False
    """Scores are scaled by `query_pre_attn_scalar` instead of the head's size."""
    softcap_attention: bool = False
    """`attn_logit_softcapping` counts (Gemma 3 has the key but does not read it)."""
    rope_by_layer_type: bool = False
    """Layers with a window rotate by frequencies of their own."""


FAMILIES: dict[str, Family] = {
    "llama": Family("llama", "LlamaRotaryEmbedding"),
    "qwen2": Family("qwen2", "Qwen2RotaryEmbedding", bias_qkv=True),
    "qwen3": Family("qwen3", "Qwen3RotaryEmbedding", qk_norm=True),
    "gemma": Family("gemma", "GemmaRotaryEmbedding", gemma=True),
    "gemma2": Family(
        "gemma2", "Gemma2RotaryEmbedding", gemma=True, sandwich=True, query_scalar=True, softcap_attention=True
    ),
    "gemma3_text": Family(
        "gemma3",
        "Gemma3RotaryEmbedding",
        qk_norm=True,
        gemma=True,
        sandwich=True,
        query_scalar=True,
        rope_by_layer_type=True,
    ),
}

ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
STATIC_ROPES = {"default", "linear", "llama3", "yarn"}

_READ = frozenset(
    [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "hidden_act",
        "hidden_activation",
        "max_position_embeddings",
        "rms_norm_eps",
        "tie_word_embeddings",
        "rope_parameters",
        "use_sliding_window",
        "sliding_window",
        "max_window_layers",
        "layer_types",
        "attention_bias",
        "mlp_bias",
        "query_pre_attn_scalar",
        "final_logit_softcapping",
        "attn_logit_softcapping",
        "use_bidirectional_attention",
    ]
)
_WITHOUT_EFFECT = frozenset(
    [
        "model_type",
        "architectures",
        "dtype",
        "torch_dtype",
        "transformers_version",
        "initializer_range",
        "use_cache",
        "pad_token_id",
        "bos_token_id",
        "eos_token_id",
        "attention_dropout",
        "pretraining_tp",
        "quantization_config",
        "cache_implementation",
        "sliding_window_pattern",
        "output_hidden_states",
        "output_attentions",
        "return_dict",
        "chunk_size_feed_forward",
        "is_encoder_decoder",
        "id2label",
        "label2id",
        "problem_type",
        "tokenizer_class",
        "task_specific_params",
        "default_theta",
        "rope_theta",
        "rope_scaling",
        "rope_local_base_freq",
        "use_mrope",
        "auto_map",
    ]
)


@dataclass(frozen=True)
class Shape:
    """All that the fast decoder needs to know of one model."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    eps: float
    scale: float
    activation: str
    bias_qkv: bool
    bias_out: bool
    bias_mlp: bool
    qk_norm: bool
    gemma: bool
    sandwich: bool
    tied: bool
    softcap_attention: float | None
    softcap_logits: float | None
    windows: tuple[int | None, ...]
    """Each layer's window in tokens; None: it sees everything before it."""
    ropes: tuple[str, ...]
    """Each layer's key into `frequencies`."""
    frequencies: dict[str, tuple[Tensor, float]]
    """Inverse frequencies [head_dim / 2] and the factor on cosine and sine, from transformers' own rotary module."""

    @property
    def group(self) -> int:
        """Query heads that share one key head."""
        return self.heads // self.kv_heads


class UnknownModelError(Exception):
    """Why the fast decoder does not take a model."""


def describe(config: Any) -> Shape:
    """The shape of the model that `config` describes.

    Raises:
        UnknownModelError: the architecture, or something its configuration asks for, is not known here.
    """
    family = FAMILIES.get(getattr(config, "model_type", ""))
    if family is None or not type(config).__module__.startswith("transformers.models."):
        raise UnknownModelError(f"architecture {getattr(config, 'model_type', type(config).__name__)!r}")
    _refuse_unknown_keys(config)
    if getattr(config, "use_bidirectional_attention", None):
        raise UnknownModelError("use_bidirectional_attention")
    activation = getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", None)
    if activation not in ACTIVATIONS:
        raise UnknownModelError(f"activation {activation!r}")
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention_bias = bool(getattr(config, "attention_bias", False))
    layer_types = _layer_types(config)
    windows = tuple(config.sliding_window if t == "sliding_attention" else None for t in layer_types)
    ropes = tuple(t if family.rope_by_layer_type else "" for t in layer_types)
    scalar = config.query_pre_attn_scalar if family.query_scalar else head_dim
    return Shape(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=head_dim,
        intermediate=config.intermediate_size,
        vocab=config.vocab_size,
        eps=config.rms_norm_eps,
        scale=scalar**-0.5,
        activation=ACTIVATIONS[activation],
        bias_qkv=attention_bias if family.bias_qkv is None else family.bias_qkv,
        bias_out=attention_bias and family.bias_qkv is None,
        bias_mlp=bool(getattr(config, "mlp_bias", False)),
        qk_norm=family.qk_norm,
        gemma=family.gemma,
        sandwich=family.sandwich,
        tied=bool(config.tie_word_embeddings),
        softcap_attention=_softcap_attention(config, family),
        softcap_logits=getattr(config, "final_logit_softcapping", None),
        windows=windows,
        ropes=ropes,
        frequencies={key: _frequencies(config, family, key, head_dim) for key in sorted(set(ropes))},
    )


def _refuse_unknown_keys(config: Any) -> None:
    known = _READ | _WITHOUT_EFFECT
    for key, value in config.to_dict().items():
        if key not in known and not key.startswith("_") and value not in (None, False):
            raise UnknownModelError(f"configuration key {key!r}")


def _layer_types(config: Any) -> tuple[str, ...]:
    types = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    for kind in types:
        if kind not in ("full_attention", "sliding_attention"):
            raise UnknownModelError(f"layer type {kind!r}")
        if kind == "sliding_attention" and config.sliding_window is None:
            raise UnknownModelError("a layer with a sliding window of no size")
    return tuple(types)


def _softcap_attention(config: Any, family: Family) -> float | None:
    """The cap on attention scores, or None where transformers applies none: its `sdpa` attention has no such thing."""
    if not family.softcap_attention or getattr(config, "_attn_implementation", None) == "sdpa":
        return None
    return config.attn_logit_softcapping


def _frequencies(config: Any, family: Family, key: str, head_dim: int) -> tuple[Tensor, float]:
    parameters = config.rope_parameters[key] if key else config.rope_parameters
    if parameters is None or parameters.get("rope_type", "default") not in STATIC_ROPES:
        raise UnknownModelError(f"rope type {(parameters or {}).get('rope_type')!r}")
    module = importlib.import_module(f"transformers.models.{family.module}.modeling_{family.module}")
    rotary = getattr(module, family.rotary)(config)
    prefix = f"{key}_" if key else ""
    inverse = getattr(rotary, f"{prefix}inv_freq").float().cpu()
    if 2 * inverse.numel() != head_dim:
        raise UnknownModelError("a rotation of a part of each head")
    return inverse, float(getattr(rotary, f"{prefix}attention_scaling"))
