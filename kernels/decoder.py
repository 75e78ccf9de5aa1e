"""What a decoder layer does beside its matrix products, as few passes over memory, forward and backward.

Plain torch would keep and re-read a tensor for each small step; here each function keeps its inputs only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from .packing import Shared


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_H: Tensor, eps: float) -> Tensor:
        wide = x if x.dtype.itemsize >= 4 else x.float()
        rstd = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight_H, rstd)
        return (wide * rstd).mul_(weight_H).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """With n = x rstd: dx = rstd (g w - n mean(g w n)), dw = sum of g n."""
        x, weight_H, rstd = ctx.saved_tensors
        x = x.to(rstd.dtype)
        weight_grad = None
        if ctx.needs_input_grad[1]:
            weight_grad = (grad * (x * rstd)).reshape(-1, x.shape[-1]).sum(0).to(weight_H.dtype)
        pulled = grad * weight_H
        along = torch.linalg.vecdot(pulled.to(rstd.dtype), x)[..., None].mul_(rstd.pow(3) / -x.shape[-1])
        return (pulled * rstd).addcmul_(x, along).to(grad.dtype), weight_grad, None


def rms_norm(x: Tensor, weight_H: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean of x squared + eps) * weight over the last axis; sums in float32."""
    return _RmsNorm.apply(x, weight_H, eps)


class _Swiglu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        up_grad = functional.silu(gate).mul_(grad)
        return torch.ops.aten.silu_backward(grad * up, gate), up_grad


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up."""
    return _Swiglu.apply(gate, up)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotated(grad, cos, -sin), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, -1)
    out = x * cos
    out_left, out_right = out.chunk(2, -1)
    half = sin[..., : sin.shape[-1] // 2]
    out_left.addcmul_(right, half, value=-1)
    out_right.addcmul_(left, half)
    return out


def rotate(x_THD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    """Rotary position embedding in transformers' layout: the two halves of each head are rotated as pairs."""
    return _Rotate.apply(x_THD, cos_TD[:, None], sin_TD[:, None])


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cell_N: Tensor, home_T: Tensor, shared: tuple[Shared, ...]) -> Tensor:
        ctx.save_for_backward(home_T)
        ctx.shared = shared
        return x.index_select(0, cell_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:
        (home_T,) = ctx.saved_tensors
        grad_T = grad_N.index_select(0, home_T)
        for run in ctx.shared:
            rows = grad_N[run.cell : run.cell + run.rows * run.width].unflatten(0, (run.rows, run.width))
            total = rows[:, : run.length].sum(0, dtype=torch.float32 if grad_N.dtype.itemsize < 4 else None)
            target = grad_T[run.place : run.place + run.length]
            target.copy_(total) if run.first else target.add_(total)
        return grad_T, None, None, None


def spread(x_T: Tensor, cell_N: Tensor, home_T: Tensor, shared: tuple[Shared, ...]) -> Tensor:
    """Packed tokens into the cells of blocks of rows (`packing.Packing`)."""
    return _Spread.apply(x_T, cell_N, home_T, shared)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_N: Tensor, home_T: Tensor) -> Tensor:
        ctx.save_for_backward(home_T)
        ctx.cells = len(x_N)
        return x_N.index_select(0, home_T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_T: Tensor) -> tuple[Tensor, None]:
        (home_T,) = ctx.saved_tensors
        return grad_T.new_zeros(ctx.cells, *grad_T.shape[1:]).index_copy_(0, home_T, grad_T), None


def gather(x_N: Tensor, home_T: Tensor) -> Tensor:
    """Cells back to packed tokens: each token from its first cell."""
    return _Gather.apply(x_N, home_T)
