"""Causal attention of short rows on a CPU: batched matrix products over blocks of queries.

torch's fused CPU kernel pays for long rows; for rows of a few hundred tokens, and in bfloat16 above all, its backward
takes several times what the matrix products take. Here a block of queries meets only the keys up to its end, query
heads that share a key head stand in one matrix product, and the probabilities are kept for the backward pass while
they are few, else computed again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 64
"""Queries a block at most."""
KEPT = 256
"""Rows up to this length keep their probabilities for the backward pass."""


class _Block(NamedTuple):
    """Queries `rows`, the keys `first` to `stop` that they see, and what hides some of those from some."""

    rows: slice
    keys: slice
    mask: Tensor


def causal_attention(
    q_RSHD: Tensor, k_RSKD: Tensor, v_RSKD: Tensor, *, scale: float, window: int | None = None
) -> Tensor:
    """softmax(scale q k^T, over keys not after the query and less than `window` before it) v; [R, S, H, D].

    H is a multiple of K. The softmax is float32 within, and rounded to the inputs' dtype.
    """
    return _CausalAttention.apply(q_RSHD, k_RSKD, v_RSKD, scale, window)


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_RSHD: Tensor, k_RSKD: Tensor, v_RSKD: Tensor, scale: float, window: int | None) -> Tensor:
        shape, heads = q_RSHD.shape, k_RSKD.shape[2]
        q, k, v = _stacked(q_RSHD, heads), _stacked(k_RSKD, heads)[:, 0], _stacked(v_RSKD, heads)[:, 0]
        out = torch.empty_like(q)
        kept = []
        for block in _blocks(q, window):
            p = _probabilities(q, k, block, scale)
            out[:, :, block.rows] = torch.bmm(p, v[:, block.keys]).view_as(q[:, :, block.rows])
            if shape[1] <= KEPT:
                kept.append(p)
        ctx.save_for_backward(q, k, v, out, *kept)
        ctx.scale, ctx.window = scale, window
        return _unstacked(out, shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_RSHD: Tensor) -> tuple[Tensor | None, ...]:
        """dV = P^T dO; dS = P (dO V^T - sum of dO O); dQ = scale dS K; dK = scale dS^T Q."""
        q, k, v, out, *kept = ctx.saved_tensors
        shape, heads = grad_RSHD.shape, len(q) // len(grad_RSHD)
        grad = _stacked(grad_RSHD, heads)
        along = (grad * out).sum(-1, keepdim=True)
        q_grad, k_grad, v_grad = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for index, block in enumerate(_blocks(q, ctx.window)):
            rows, keys, _ = block
            p = kept[index] if kept else _probabilities(q, k, block, ctx.scale)
            sent = grad[:, :, rows].flatten(1, 2)
            # (baddbmm_ on a slice would go one matrix at a time.)
            v_grad[:, keys].add_(torch.bmm(p.mT, sent))
            s = torch.bmm(sent, v[:, keys].mT).sub_(along[:, :, rows].flatten(1, 2)).mul_(p)
            q_grad[:, :, rows] = torch.bmm(s, k[:, keys]).mul_(ctx.scale).view_as(q[:, :, rows])
            k_grad[:, keys].add_(torch.bmm(s.mT, q[:, :, rows].flatten(1, 2)), alpha=ctx.scale)
        few = (*shape[:2], heads, shape[3])
        return _unstacked(q_grad, shape), _unstacked(k_grad[:, None], few), _unstacked(v_grad[:, None], few), None, None


def _blocks(q: Tensor, window: int | None) -> list[_Block]:
    """Even blocks of queries for q of [rows and key heads, heads a key head, S, D]."""
    share, length = q.shape[1:3]
    step = -(-length // -(-length // BLOCK))
    blocks = []
    for start in range(0, length, step):
        stop = min(start + step, length)
        first = 0 if window is None else max(0, start - window + 1)
        back = torch.arange(start, stop, device=q.device)[:, None] - torch.arange(first, stop, device=q.device)
        hidden = back < 0 if window is None else (back < 0) | (back >= window)
        mask = torch.zeros(hidden.shape, dtype=q.dtype, device=q.device).masked_fill_(hidden, float("-inf"))
        blocks.append(_Block(slice(start, stop), slice(first, stop), mask.repeat(share, 1)))
    return blocks


def _probabilities(q: Tensor, k: Tensor, block: _Block, scale: float) -> Tensor:
    scores = torch.baddbmm(block.mask, q[:, :, block.rows].flatten(1, 2), k[:, block.keys].mT, alpha=scale)
    return torch.softmax(scores, -1)


def _stacked(x_RSHD: Tensor, heads: int) -> Tensor:
    """[R, S, H, D] to contiguous [R heads, H / heads, S, D]."""
    rows, length, _, width = x_RSHD.shape
    return x_RSHD.unflatten(2, (heads, -1)).permute(0, 2, 3, 1, 4).reshape(rows * heads, -1, length, width)


def _unstacked(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The way back, contiguous."""
    return x.unflatten(0, (shape[0], -1)).permute(0, 3, 1, 2, 4).reshape(shape)
