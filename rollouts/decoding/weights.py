"""The decoder's own copy of the policy: joined projections, refreshed in place.

Query, key and value of all heads are one product, and so are gate and up. The joined rows stand in the order in which
attention reads them: for every key head its query heads, itself, its value. No tensor of the policy is kept. Weights
lie in memory as [in, out], the order in which a product with few rows reads them quickest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ...parts import RunError
from .family import Shape
from .held import one_plus
from .linear import Gated, Linear


class Layer(NamedTuple):
    """One layer's tensors; a norm that the family does not have is None."""

    norm_in: Tensor
    qkv: Linear
    norm_q: Tensor | None
    norm_k: Tensor | None
    out: Linear
    norm_attention: Tensor | None
    norm_mlp: Tensor
    gate_up: Gated
    down: Linear
    norm_out: Tensor | None


class Weights:
    """Preallocated buffers of one model, and where each of the policy's tensors goes in them."""

    def __init__(self, shape: Shape, dtype: torch.dtype, device: str) -> None:
        self.shape, self.dtype, self.device = shape, dtype, torch.device(device)
        self._slots: dict[str, Tensor] = {}
        self._sizes: dict[str, torch.Size] = {}
        self._sent: torch.dtype | None = None
        self._projections: list[Linear | Gated] = []
        self.embedding = self._new("model.embed_tokens.weight", shape.vocab, shape.hidden)
        self.layers = [self._layer(f"model.layers.{i}.") for i in range(shape.layers)]
        self.norm = self._norm("model.norm.weight", shape.hidden)
        self.head = self._joined(
            self.embedding if shape.tied else self._new("lm_head.weight", shape.vocab, shape.hidden), None
        )

    @torch.no_grad()
    def load(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Copy the policy's effective weights in.

        Raises:
            RunError: a tensor is missing, has another shape, or is not one of this architecture's.
        """
        missing = set(self._slots)
        self._sent = None
        tied_head = None
        for name, tensor in tensors:
            if name == "lm_head.weight" and self.shape.tied:
                tied_head = tensor
                continue
            slot = self._slots.get(name)
            if slot is None or slot.numel() != tensor.numel():
                raise RunError(f"the policy's tensor {name} {tuple(tensor.shape)} does not fit its configuration")
            self._sent = tensor.dtype if self._sent is None else self._sent
            value = one_plus(tensor) if self._is_gemma_norm(name) else tensor
            slot.copy_(value.reshape(slot.shape))
            self._sizes[name] = tensor.shape
            missing.discard(name)
        if missing:
            raise RunError(f"the policy's weights lack {sorted(missing)[0]} and {len(missing) - 1} more")
        if self.shape.tied:
            self._load_tied_head(tied_head)
        for projection in self._projections:
            projection.pack()

    def held(self) -> Iterator[tuple[str, Tensor]]:
        """What decodes, read back from the joined buffers by the policy's names; a tied head is its embedding.

        Raises:
            RunError: a copy in the processor's own order, which then is what decodes, holds other values.
        """
        if not all(projection.intact() for projection in self._projections):
            raise RunError(
                "the engine's packed weights are not those that it was sent; this is a bug, please report it"
            )
        for name, slot in self._slots.items():
            narrow = slot.to(self._sent)
            exact = torch.equal(narrow.to(slot.dtype), slot)  # computed in a wider dtype: the values are those sent
            yield name, (narrow if exact and not self._is_gemma_norm(name) else slot).reshape(self._sizes[name])

    def _is_gemma_norm(self, name: str) -> bool:
        return self.shape.gemma and "norm" in name

    def _load_tied_head(self, tensor: Tensor | None) -> None:
        """A tied head is kept apart only where it differs from the embedding (an adapter on it)."""
        if tensor is None or torch.equal(tensor.to(self.embedding), self.embedding):
            self.head.weight = self.embedding
        else:
            self.head.weight = tensor.detach().to(self.embedding, copy=True)

    def _layer(self, prefix: str) -> Layer:
        s = self.shape
        attention, mlp = f"{prefix}self_attn.", f"{prefix}mlp."
        after = "post_attention_layernorm.weight"
        return Layer(
            norm_in=self._norm(f"{prefix}input_layernorm.weight", s.hidden),
            qkv=self._qkv(attention),
            norm_q=self._norm(f"{attention}q_norm.weight", s.head_dim) if s.qk_norm else None,
            norm_k=self._norm(f"{attention}k_norm.weight", s.head_dim) if s.qk_norm else None,
            out=self._linear(f"{attention}o_proj", s.heads * s.head_dim, s.hidden, s.bias_out),
            norm_attention=self._norm(prefix + after, s.hidden) if s.sandwich else None,
            norm_mlp=self._norm(prefix + ("pre_feedforward_layernorm.weight" if s.sandwich else after), s.hidden),
            gate_up=self._gate_up(mlp),
            down=self._linear(f"{mlp}down_proj", s.intermediate, s.hidden, s.bias_mlp),
            norm_out=self._norm(f"{prefix}post_feedforward_layernorm.weight", s.hidden) if s.sandwich else None,
        )

    def _new(self, name: str, *size: int, dtype: torch.dtype | None = None) -> Tensor:
        self._slots[name] = torch.zeros(*size, dtype=dtype or self.dtype, device=self.device)
        return self._slots[name]

    def _norm(self, name: str, size: int) -> Tensor:
        """Gemma's 1 + w is kept in float32, as transformers adds it in float32."""
        return self._new(name, size, dtype=torch.float32 if self.shape.gemma else None)

    def _joined(self, weight: Tensor, bias: Tensor | None) -> Linear:
        linear = Linear(weight, bias)
        self._projections.append(linear)
        return linear

    def _linear(self, name: str, inputs: int, outputs: int, bias: bool) -> Linear:
        weight = torch.zeros(inputs, outputs, dtype=self.dtype, device=self.device).t()
        self._slots[f"{name}.weight"] = weight
        return self._joined(weight, self._new(f"{name}.bias", outputs) if bias else None)

    def _qkv(self, attention: str) -> Linear:
        s = self.shape
        weight = self._join_qkv(f"{attention}{{}}_proj.weight", s.hidden)
        bias = self._join_qkv(f"{attention}{{}}_proj.bias", 1) if s.bias_qkv else None
        return self._joined(weight, None if bias is None else bias[:, 0])

    def _join_qkv(self, name: str, inputs: int) -> Tensor:
        """[out, in], into whose rows the three projections are copied."""
        s = self.shape
        joined = torch.zeros(inputs, s.kv_heads, s.group + 2, s.head_dim, dtype=self.dtype, device=self.device)
        heads = joined.permute(1, 2, 3, 0)
        self._slots[name.format("q")] = heads[:, : s.group]
        self._slots[name.format("k")] = heads[:, s.group]
        self._slots[name.format("v")] = heads[:, s.group + 1]
        return joined.view(inputs, -1).t()

    def _gate_up(self, mlp: str) -> Gated:
        s = self.shape
        weight = torch.zeros(s.hidden, 2 * s.intermediate, dtype=self.dtype, device=self.device).t()
        bias = torch.zeros(2 * s.intermediate, dtype=self.dtype, device=self.device) if s.bias_mlp else None
        for kind, joined in (("weight", weight), ("bias", bias)):
            if joined is not None:
                self._slots[f"{mlp}gate_proj.{kind}"], self._slots[f"{mlp}up_proj.{kind}"] = joined.chunk(2)
        gated = Gated(weight, bias, s.activation)
        self._projections.append(gated)
        return gated
