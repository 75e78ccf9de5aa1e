"""The fast decoder: one forward for Qwen2, Qwen3, Llama and Gemma, written for small models and many rows.

A step is a handful of operations a layer: joined projections, rotation of queries and keys at once, keys and values
written in place, attention over the used part of the cache as two batched products. Attention runs in float32 on a
CPU, where its cost is memory traffic and small products, and bfloat16 would only lose digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from .cache import BLOCK, Cache, Prefix
from .family import Shape
from .linear import Linear
from .threads import fitting_threads
from .weights import Layer, Weights

ROWS = 8
"""A step computes a multiple of this many rows, so that few sizes occur and their set-up is reused."""
PACK = 8192
"""Prompt tokens computed in one forward."""
QUERIES = 512
"""Queries whose scores are held at once where attention needs them explicitly (a window, capped scores)."""


class FastDecoder:
    """Prompts to prefixes, and rows one token further. Rows can be seated while others decode."""

    rolling = True

    def __init__(self, shape: Shape, dtype: torch.dtype, device: str) -> None:
        self.shape = shape
        self.vocab = shape.vocab
        self.weights = Weights(shape, dtype, device)
        self.device = self.weights.device
        self._compute = torch.float32 if self.device.type == "cpu" else dtype
        self.cache = Cache(shape, self._compute, self.device)
        self._angles: dict[str, tuple[Tensor, Tensor]] = {}
        self._eps = torch.tensor(shape.eps, dtype=torch.float32, device=self.device)
        self._embed_scale = torch.tensor(shape.hidden**0.5, dtype=dtype, device=self.device)

    def load(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Copy the policy's effective weights in."""
        self.weights.load(tensors)

    def held(self) -> Iterator[tuple[str, Tensor]]:
        """What decodes, by the policy's names, see `held.Expected`."""
        return self.weights.held()

    def row_bytes(self, length: int) -> int:
        """Bytes of cache that a row of `length` positions takes."""
        return self.cache.row_bytes(length)

    def threads(self, rows: int) -> AbstractContextManager[None]:
        """One thread for a small model, else all."""
        return fitting_threads(rows, self.weights.layers[0].gate_up.joined.weight)

    # Prompts

    def prefill(self, prompts: Sequence[np.ndarray]) -> list[Prefix]:
        """Compute each prompt once. Their tokens are packed end to end: no padding in any product."""
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        prefixes: dict[int, Prefix] = {}
        for pack in _packs(order, [len(p) for p in prompts]):
            prefixes.update(zip(pack, self._prefill_pack([prompts[i] for i in pack]), strict=True))
        return [prefixes[i] for i in range(len(prompts))]

    def _prefill_pack(self, prompts: list[np.ndarray]) -> list[Prefix]:
        s = self.shape
        lengths = [len(p) for p in prompts]
        ends = np.cumsum(lengths)
        tokens_N = self._to_device(np.concatenate(prompts))
        positions_N = self._to_device(np.concatenate([np.arange(n) for n in lengths]))
        angles = {key: self._rotation(key, positions_N, max(lengths)) for key in s.frequencies}
        x_NH = self._embed(tokens_N)
        kv = []
        for layer, window, rope in zip(self.weights.layers, s.windows, s.ropes, strict=True):
            heads = self._project(layer, x_NH, *angles[rope])
            kv.append(heads[:, :, s.group :])
            out = self._attend_prompts(heads, lengths, window)
            x_NH = self._finish(layer, x_NH, out)
        out_PH = self._norm(x_NH[self._to_device(ends - 1)], self.weights.norm)
        keys, values = torch.stack(kv).permute(3, 0, 2, 1, 4).contiguous()
        starts = ends - lengths
        return [
            Prefix(keys[:, :, a:b], values[:, :, a:b], out)
            for a, b, out in zip(starts.tolist(), ends.tolist(), out_PH, strict=True)
        ]

    def _attend_prompts(self, heads: Tensor, lengths: list[int], window: int | None) -> Tensor:
        """Causal attention within each prompt; `heads` [N, key head, group + 2, D], prompts of one length together."""
        s = self.shape
        out = torch.empty(heads.shape[0], s.heads * s.head_dim, dtype=heads.dtype, device=heads.device)
        start = 0
        for length in sorted(set(lengths)):
            count = lengths.count(length)
            stop = start + count * length
            part = heads[start:stop].view(count, length, s.kv_heads, s.group + 2, s.head_dim)
            q = part[:, :, :, : s.group].flatten(2, 3).transpose(1, 2)
            k, v = (part[:, :, :, s.group + i].transpose(1, 2).repeat_interleave(s.group, 1) for i in (0, 1))
            attended = self._causal(q, k, v, window if window is not None and window < length else None)
            out[start:stop] = attended.transpose(1, 2).reshape(count * length, -1)
            start = stop
        return out

    def _causal(self, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        """Attention of each position to itself and those before it; all [P, head, T, D]."""
        if window is None and self.shape.softcap_attention is None:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.shape.scale)
        length = q.shape[2]
        at = torch.arange(length, device=q.device)
        parts = []
        for start in range(0, length, QUERIES):
            stop = min(start + QUERIES, length)
            behind = at[start:stop, None] - at[None, :stop]
            hidden = behind < 0 if window is None else (behind < 0) | (behind >= window)
            scores = self._cap(q[:, :, start:stop] @ k[:, :, :stop].transpose(2, 3) * self.shape.scale)
            scores = scores.masked_fill(hidden, -math.inf)
            parts.append(scores.softmax(-1, dtype=torch.float32).to(v.dtype) @ v[:, :, :stop])
        return torch.cat(parts, 2)

    # Rows

    def fit(self, rows: int, length: int) -> None:
        """Make room for `rows` rows, and for `length` positions, which is all that any of them uses."""
        self.cache.fit(-(-rows // ROWS) * ROWS, length)

    def seat(self, rows: Sequence[int], prefixes: Sequence[Prefix]) -> None:
        """Let each row start after its prompt."""
        self.cache.seat(rows, prefixes)

    def keep(self, order: Sequence[int]) -> None:
        """Row i goes on with what row `order[i]` was."""
        self.cache.keep(order)

    def release(self) -> None:
        """Free the rows' memory."""
        self.cache.release()

    def step(self, tokens_B: np.ndarray, positions_B: np.ndarray) -> Tensor:
        """Feed row i its token at its position, for the first B rows; the rows' outputs [B, H] for `logits`."""
        s = self.shape
        count = len(tokens_B)
        rows = -(-count // ROWS) * ROWS
        positions_R = np.zeros(rows, dtype=np.int64)
        tokens_R = np.zeros(rows, dtype=np.int64)
        positions_R[:count], tokens_R[:count] = positions_B, tokens_B
        last = int(positions_R.max())
        positions = self._to_device(positions_R)
        angles = {key: self._rotation(key, positions, last + 1) for key in s.frequencies}
        masks = {window: self._mask(positions, window, last) for window in set(s.windows)}
        heads_at = torch.arange(rows * s.kv_heads, device=self.device) * self.cache.length
        at = positions.repeat_interleave(s.kv_heads).add_(heads_at)
        x_RH = self._embed(self._to_device(tokens_R))
        for i, layer in enumerate(self.weights.layers):
            heads = self._project(layer, x_RH, *angles[s.ropes[i]])
            by_head = heads.flatten(0, 1)
            keys, values = self.cache.keys[i], self.cache.values[i]
            keys.view(-1, s.head_dim).index_copy_(0, at, by_head[:, s.group])
            values.view(-1, s.head_dim).index_copy_(0, at, by_head[:, s.group + 1])
            out = self._attend_rows(by_head[:, : s.group], keys[:rows], values[:rows], masks[s.windows[i]])
            x_RH = self._finish(layer, x_RH, out)
        return self._norm(x_RH, self.weights.norm)[:count]

    def logits(self, out_BH: Tensor) -> Tensor:
        """Float32 logits [B, V] of rows' outputs."""
        logits_BV = self.weights.head(out_BH)
        cap = self.shape.softcap_logits
        if cap is not None:
            logits_BV = torch.tanh(logits_BV / cap) * cap
        return logits_BV.float()

    def _attend_rows(self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Each row's queries over its own past, [rows, heads * D]; a key head's queries are one product.

        `q` [rows * key heads, group, D]; `keys` and `values` [rows, key heads, length, D].
        """
        s = self.shape
        past_keys, past_values = keys.flatten(0, 1).transpose(1, 2), values.flatten(0, 1)
        if s.softcap_attention is None:
            scores = torch.baddbmm(mask, q, past_keys, alpha=s.scale)
        else:
            scores = self._cap(torch.bmm(q, past_keys).mul_(s.scale)).add_(mask)
        return torch.bmm(scores.softmax(-1), past_values).view(len(keys), s.heads * s.head_dim)

    def _mask(self, positions_R: Tensor, window: int | None, last: int) -> Tensor:
        """0 where a row may look, minus infinity elsewhere: [rows * key heads, 1, length of the cache]."""
        at = torch.arange(self.cache.length, device=self.device)
        hidden = at > positions_R[:, None]
        if window is not None and last >= window:
            hidden |= at <= positions_R[:, None] - window
        mask = torch.zeros(hidden.shape, dtype=self._compute, device=self.device)
        mask.masked_fill_(hidden, -math.inf)
        return mask.repeat_interleave(self.shape.kv_heads, 0)[:, None]

    # What both share

    def _embed(self, tokens_N: Tensor) -> Tensor:
        x_NH = F.embedding(tokens_N, self.weights.embedding)
        return x_NH * self._embed_scale if self.shape.gemma else x_NH

    def _project(self, layer: Layer, x_NH: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotated queries and keys, and values: [N, key head, group + 2, D], for each key head its queries first."""
        s = self.shape
        joined = layer.qkv(self._norm(x_NH, layer.norm_in))
        heads = joined.view(-1, s.kv_heads, s.group + 2, s.head_dim)
        if layer.norm_q is not None and layer.norm_k is not None:
            heads[:, :, : s.group] = self._norm(heads[:, :, : s.group], layer.norm_q)
            heads[:, :, s.group] = self._norm(heads[:, :, s.group], layer.norm_k)
        # rotate_half with the sign folded into the sine; values meet cosine 1 and sine 0.
        return (heads * cos).addcmul_(heads.roll(s.head_dim // 2, -1), sin).to(self._compute)

    def _finish(self, layer: Layer, x_NH: Tensor, attended: Tensor) -> Tensor:
        """Output projection and MLP, each added to the residual."""
        attended = attended.to(x_NH.dtype)
        x_NH = self._add(x_NH, attended, layer.out, layer.norm_attention)
        inner = layer.gate_up(self._norm(x_NH, layer.norm_mlp))
        return self._add(x_NH, inner, layer.down, layer.norm_out)

    def _add(self, x_NH: Tensor, inner: Tensor, linear: Linear, norm: Tensor | None) -> Tensor:
        if norm is None:
            return linear.added_to(x_NH, inner)
        return x_NH + self._norm(linear(inner), norm)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """RMS norm in float32, rounded where transformers rounds it: Gemma at the end, the others before the weight."""
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = torch.addcmul(self._eps, size, size, value=1.0 / x.shape[-1]).rsqrt_()
        normed = x * scale
        if self.shape.gemma:
            return normed.mul_(weight).to(x.dtype)
        return normed.to(x.dtype).mul_(weight)

    def _cap(self, scores: Tensor) -> Tensor:
        cap = self.shape.softcap_attention
        return scores if cap is None else scores.div_(cap).tanh_().mul_(cap)

    def _rotation(self, key: str, positions_N: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Cosine and signed sine of each position for queries, key and value of one key head: [N, 1, group + 2, D]."""
        if key not in self._angles or self._angles[key][0].shape[0] < length:
            self._angles[key] = self._table(key, -(-2 * length // BLOCK) * BLOCK)
        cos, sin = self._angles[key]
        return cos[positions_N], sin[positions_N]

    def _table(self, key: str, length: int) -> tuple[Tensor, Tensor]:
        s = self.shape
        inverse, factor = s.frequencies[key]
        angle = torch.arange(length, dtype=torch.float32)[:, None] * inverse
        cos = torch.ones(length, 1, s.group + 2, s.head_dim)
        sin = torch.zeros(length, 1, s.group + 2, s.head_dim)
        cos[:, 0, : s.group + 1] = (angle.cos() * factor).repeat(1, 2)[:, None]
        sin[:, 0, : s.group + 1] = torch.cat([-angle.sin(), angle.sin()], -1)[:, None] * factor
        return cos.to(self.device, self.weights.dtype), sin.to(self.device, self.weights.dtype)

    def _to_device(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64)).to(self.device)


def _packs(order: list[int], lengths: list[int]) -> Iterator[list[int]]:
    """Prompts in `order`, cut into runs of at most PACK tokens (a longer prompt stands alone)."""
    pack: list[int] = []
    tokens = 0
    for i in order:
        if pack and tokens + lengths[i] > PACK:
            yield pack
            pack, tokens = [], 0
        pack.append(i)
        tokens += lengths[i]
    if pack:
        yield pack
