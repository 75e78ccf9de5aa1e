"""Causal attention of short rows on a CPU: batched matrix products over blocks of queries.

torch's fused CPU kernel pays for long rows; for rows of a few hundred tokens, and in bfloat16 above all, its backward
takes several times what the matrix products take. Here a block of queries meets only the keys up to its end, query
heads that share a key head stand in one matrix product, and the probabilities are kept for the backward pass while
they are few, else computed again.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 128
"""Queries a block at most."""
KEPT = 256
"""Rows up to this length keep their probabilities for the backward pass."""


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
            out[:, :, block.rows] = torch.bmm(p, v[:, : block.stop]).view(block.shape)
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
        grad = _stacked(grad_RSHD, len(q) // len(grad_RSHD))
        along = torch.linalg.vecdot(grad, out)[..., None] if grad.dtype.itemsize >= 4 else (grad * out).sum(-1, True)
        q_grad, k_grad, v_grad = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for index, block in enumerate(_blocks(q, ctx.window)):
            p = kept[index] if kept else _probabilities(q, k, block, ctx.scale)
            sent = grad[:, :, block.rows].flatten(1, 2)
            keys = slice(0, block.stop)
            v_grad[:, keys].baddbmm_(p.mT, sent)
            s = torch.bmm(sent, v[:, keys].mT).sub_(along[:, :, block.rows].flatten(1, 2)).mul_(p)
            q_grad[:, :, block.rows] = torch.bmm(s, k[:, keys]).mul_(ctx.scale).view(block.shape)
            k_grad[:, keys].baddbmm_(s.mT, q[:, :, block.rows].flatten(1, 2), alpha=ctx.scale)
        shape = grad_RSHD.shape
        few = (*shape[:2], len(q) // shape[0], shape[3])
        return _unstacked(q_grad, shape), _unstacked(k_grad[:, None], few), _unstacked(v_grad[:, None], few), None, None
