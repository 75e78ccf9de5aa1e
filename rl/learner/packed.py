"""The forward pass without padding: a decoder of the Qwen, Llama or Gemma kind read from transformers' own modules.

The modules keep their parameters, so that adapters, exports and checks see one model; only the way through them is
ours. Other architectures take `padded.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from ...kernels.attention import causal_attention
from ...kernels.decoder import gather, rms_norm, rotate, spread, swiglu
from ...kernels.packing import Packing
from ...kernels.precision import compute_dtype
from .adapters.base import Adapter
from .dropout import Dropout

ARCHITECTURES = frozenset({"qwen2", "qwen3", "llama", "mistral", "gemma2", "gemma3_text"})
"""transformers' `model_type`s whose layers are what `PackedDecoder` takes them for."""


class PackedDecoder:
    """Hidden states of packed rows."""

    def __init__(self, model: nn.Module, adapter: Adapter, *, checkpointing: bool) -> None:
        """Read the causal language model `model`, whose linear modules `adapter` has wrapped or left.

        What passes through the layers is of the dtype in which the device computes quickest.
        """
        self._config: Any = model.config
        self._decoder: Any = model.get_decoder()  # type: ignore[operator]
        self._adapter = adapter
        self._checkpointing = checkpointing
        self._entered = False
        self._capped = self._config.model_type == "gemma2"
        self._window = self._config.sliding_window if self._config.model_type == "mistral" else None

    def enter_layers(self) -> None:
        """From now on call the model's layers as modules, whose forward is ours: FSDP's hooks on them then run."""
        self._entered = True
        for layer in self._decoder.layers:
            layer.forward = partial(self._layer, layer)

    @staticmethod
    def knows(model: nn.Module) -> bool:
        """Whether this architecture is one of those that can be packed."""
        config: Any = model.config
        dynamic = any("dynamic" in str(v) or "longrope" in str(v) for v in [getattr(config, "rope_parameters", "")])
        return config.model_type in ARCHITECTURES and not config.attention_dropout and not dynamic

    def __call__(self, packing: Packing, dropout: Dropout | None) -> Tensor:
        """hidden_CH: after the final norm, at the places that predict completion tokens, in the model's dtype."""
        device = self._decoder.embed_tokens.weight.device
        layout = _Layout(packing, device)
        embedded_TH = self._decoder.embed_tokens(torch.from_numpy(packing.tokens_T).to(device))
        x_TH = embedded_TH.to(compute_dtype(embedded_TH.dtype, device.type))
        turns = self._turns(x_TH, torch.from_numpy(packing.positions_T).to(device))
        for index, layer in enumerate(self._decoder.layers):
            place = None if dropout is None else dropout.at(index)
            run = layer if self._entered else partial(self._layer, layer)
            arguments = (x_TH, turns[getattr(layer.self_attn, "layer_type", None)], layout, place)
            if self._checkpointing and torch.is_grad_enabled():
                x_TH = checkpoint(run, *arguments, use_reentrant=False, preserve_rng_state=False)
            else:
                x_TH = run(*arguments)
        predict_C = torch.from_numpy(packing.predict_C).to(device)
        return _norm(self._decoder.norm, x_TH.index_select(0, predict_C)).to(embedded_TH.dtype)

    def _turns(self, x_TH: Tensor, positions_T: Tensor) -> dict[str | None, tuple[Tensor, Tensor]]:
        """cos_TD and sin_TD for each type of layer."""
        kinds = {getattr(layer.self_attn, "layer_type", None) for layer in self._decoder.layers}
        extra = {kind: (kind,) if self._config.model_type == "gemma3_text" else () for kind in kinds}
        turns = {k: self._decoder.rotary_emb(x_TH[None], positions_T[None], *extra[k]) for k in kinds}
        return {kind: (cos[0], sin[0]) for kind, (cos, sin) in turns.items()}

    def _layer(
        self, layer: Any, x_TH: Tensor, turn: tuple[Tensor, Tensor], layout: _Layout, dropout: Dropout | None
    ) -> Tensor:
        sandwich = hasattr(layer, "pre_feedforward_layernorm")
        attention, mlp = layer.self_attn, layer.mlp
        normed = _norm(layer.input_layernorm, x_TH)
        qkv = self._linears([attention.q_proj, attention.k_proj, attention.v_proj], normed, dropout, "qkv")
        mixed = self._attention(attention, qkv, turn, layout)
        (out,) = self._linears([attention.o_proj], mixed, dropout, "o")
        x_TH = x_TH + (_norm(layer.post_attention_layernorm, out) if sandwich else out)
        normed = _norm(layer.pre_feedforward_layernorm if sandwich else layer.post_attention_layernorm, x_TH)
        gate, up = self._linears([mlp.gate_proj, mlp.up_proj], normed, dropout, "gate_up")
        silu = isinstance(mlp.act_fn, nn.SiLU) or type(mlp.act_fn).__name__ == "SiLUActivation"
        inner = swiglu(gate, up) if silu else mlp.act_fn(gate) * up
        (out,) = self._linears([mlp.down_proj], inner, dropout, "down")
        return x_TH + (_norm(layer.post_feedforward_layernorm, out) if sandwich else out)

    def _linears(self, modules: list[nn.Module], x_TH: Tensor, dropout: Dropout | None, site: str) -> list[Tensor]:
        return self._adapter.linears(modules, x_TH, None if dropout is None else dropout.at(site))

    def _attention(self, module: Any, qkv: list[Tensor], turn: tuple[Tensor, Tensor], layout: _Layout) -> Tensor:
        """Causal attention within rows, from packed projections to packed outputs."""
        q, k, v = (x.unflatten(-1, (-1, module.head_dim)) for x in qkv)
        if hasattr(module, "q_norm"):
            q, k = _norm(module.q_norm, q), _norm(module.k_norm, k)
        q, k = rotate(q, *turn), rotate(k, *turn)
        cap = module.attn_logit_softcapping if self._capped else None
        blocks = zip(*(layout.spread(x) for x in (q, k, v)), strict=True)
        window = getattr(module, "sliding_window", self._window)
        outputs = [attend(*block, scale=module.scaling, window=window, cap=cap).flatten(0, 1) for block in blocks]
        return gather(outputs[0] if len(outputs) == 1 else torch.cat(outputs), layout.home_T).flatten(1)


class _Layout:
    """A packing's indices on the device."""

    def __init__(self, packing: Packing, device: torch.device) -> None:
        self._cell_N = torch.from_numpy(packing.cell_N).to(device)
        self.home_T = torch.from_numpy(packing.home_T).to(device)
        self._shapes = packing.shapes
        self._shared = packing.shared

    def spread(self, x_THD: Tensor) -> list[Tensor]:
        """One [rows, width, heads, D] a block."""
        cells = spread(x_THD, self._cell_N, self.home_T, self._shared)
        parts = cells.split([rows * width for rows, width in self._shapes])
        return [part.unflatten(0, shape) for part, shape in zip(parts, self._shapes, strict=True)]


def attend(
    q_RSHD: Tensor, k_RSKD: Tensor, v_RSKD: Tensor, *, scale: float, window: int | None, cap: float | None
) -> Tensor:
    """Causal attention of each row to itself; K key heads serve H query heads; [R, S, H, D]."""
    length = q_RSHD.shape[1]
    if window is not None and window >= length:
        window = None
    if cap is None and q_RSHD.device.type == "cpu":
        return causal_attention(q_RSHD, k_RSKD, v_RSKD, scale=scale, window=window)
    q, k, v = (x.transpose(1, 2) for x in (q_RSHD, k_RSKD, v_RSKD))
    if cap is None and window is None:
        out = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
        return out.transpose(1, 2)
    at = torch.arange(length, device=q.device)
    back = at[:, None] - at
    seen = back >= 0 if window is None else (back >= 0) & (back < window)
    if cap is None:
        out = scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale, enable_gqa=True)
        return out.transpose(1, 2)
    share = q.shape[1] // k.shape[1]
    scores = cap * torch.tanh(q @ k.repeat_interleave(share, 1).mT * (scale / cap))
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32))
    return (weights.to(q.dtype) @ v.repeat_interleave(share, 1)).transpose(1, 2)


def _norm(module: Any, x: Tensor) -> Tensor:
    if "Gemma" in type(module).__name__:
        return rms_norm(x, 1 + module.weight.to(torch.promote_types(x.dtype, torch.float32)), module.eps)
    return rms_norm(x, module.weight, module.variance_epsilon)
