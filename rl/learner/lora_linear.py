"""Several LoRA layers of one input in one pass: y_i = W_i x + b_i + s_i B_i A_i dropout(x).

The base is frozen, so its weights get no gradient; the A are stacked, so the narrow products become one; sums happen
inside the matrix products. The input's dtype is that of all products; base and factors are cast to it as they are used.

A module that carries a shift (`shifts.py`) computes with W_i plus that shift, of which neither base nor factors learn;
noise is made a tile at a time, anew in the backward pass.

In float32, without dropout and with more tokens than a weight has rows, W_i + s_i B_i A_i is formed first: the narrow
products with B and A, and their passes over all outputs and inputs, then fall away. A narrower dtype would round the
update away, so there the sum stays apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from ...kernels.noise import Noise
from .dropout import Dropout
from .shifts import KEY, Shift, Turn

KEPT = 4
"""Merged weights are kept for the backward pass where there are this many times as many tokens as inputs: they are then
few beside the outputs, which are kept as well."""
TILE = 1 << 23
"""Entries of a base weight to which noise is added at a time, at most: 32 MiB. Narrow tiles make slow products."""
NAME = "default"
"""PEFT's name for its first adapter."""


def apply(modules: Sequence[nn.Module], x_TH: Tensor, dropout: Dropout | None) -> list[Tensor]:
    """Each module applied to `x_TH`; what is no plain PEFT LoRA goes its own way."""
    together = [module for module in modules if is_plain(module)]
    outputs = iter(_apply_together(together, x_TH, dropout) if together else ())
    return [next(outputs) if is_plain(module) else apply_plain(module, x_TH) for module in modules]


def _apply_together(layers: Sequence[Any], x_TH: Tensor, dropout: Dropout | None) -> list[Tensor]:
    if layers[0].disable_adapters:
        return [apply_plain(m.base_layer, x_TH) for m in layers]
    share = getattr(layers[0].lora_dropout[NAME], "p", 0.0)
    mask, probability = dropout.kept(x_TH, share) if dropout is not None and share > 0 else (None, 1.0)
    weights = [m.base_layer.weight for m in layers]
    trained = [m.base_layer.bias if _is_trained(m.base_layer.bias) else None for m in layers]
    biases = [None if own is not None else m.base_layer.bias for m, own in zip(layers, trained, strict=True)]
    downs = [m.lora_A[NAME].weight for m in layers]
    ups = [m.lora_B[NAME].weight for m in layers]
    shifts = [m.__dict__.get(KEY) for m in layers]
    frozen = _Frozen(weights, biases, [m.scaling[NAME] / probability for m in layers], shifts)
    exact = x_TH.dtype.itemsize >= 4 and all(down.dtype == x_TH.dtype for down in downs)
    if mask is None and exact and len(x_TH) >= max(max(w.shape) for w in weights):
        outputs = _MergedLinears.apply(x_TH, frozen, *downs, *ups)
    else:
        outputs = _LoraLinears.apply(x_TH, mask, frozen, *downs, *ups)
    return [y if own is None else y + own.to(y.dtype) for y, own in zip(outputs, trained, strict=True)]


def _is_trained(bias: Tensor | None) -> bool:
    return bias is not None and bias.requires_grad


def apply_plain(module: Any, x_TH: Tensor) -> Tensor:
    """A linear module of any kind applied to `x_TH`, whose dtype its weight may not have; in the dtype of `x_TH`."""
    if type(module) is nn.Linear:
        return linear(x_TH, module.weight.to(x_TH.dtype), _cast(module.bias, x_TH))
    weight = getattr(module, "base_layer", module).weight
    own = weight.dtype if weight.is_floating_point() else x_TH.dtype  # quantised weights take any
    return module(x_TH.to(own)).to(x_TH.dtype)


def _cast(tensor: Tensor | None, like: Tensor) -> Tensor | None:
    return None if tensor is None else tensor.to(like.dtype)


def is_plain(module: Any) -> bool:
    """Whether a module is PEFT's plain LoRA over a frozen `nn.Linear`, which is what is computed here."""
    return (
        type(module) is PeftLinear
        and type(module.base_layer) is nn.Linear
        and not module.base_layer.weight.requires_grad
        and not module.lora_variant
        and not module.merged
    )


class _Frozen(NamedTuple):
    """What gets no gradient; `scales` hold PEFT's scale over the probability of being kept."""

    weights: list[Tensor]
    biases: list[Tensor | None]
    scales: list[float]
    shifts: list[Shift | None]
    """All of one kind, or all None."""

    def turns(self, dtype: torch.dtype) -> list[Turn]:
        """The low-rank shifts, in `dtype`; empty where there are none."""
        return [Turn(s.down_RH.to(dtype), s.up_OR.to(dtype), s.scale) for s in self.shifts if isinstance(s, Turn)]


class _LoraLinears(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_TH: Tensor, mask_TH: Tensor | None, frozen: _Frozen, *factors: Tensor
    ) -> tuple[Tensor, ...]:
        count = len(factors) // 2
        down_RH = torch.cat(factors[:count]).to(x_TH.dtype)
        ups = [(up * s).to(x_TH.dtype) for up, s in zip(factors[count:], frozen.scales, strict=True)]
        kept_TH = x_TH if mask_TH is None else x_TH * mask_TH.to(x_TH.dtype)
        low_TR = kept_TH @ down_RH.t()
        narrow = list(zip(low_TR.split([u.shape[1] for u in ups], 1), ups, strict=True))
        if turns := frozen.turns(x_TH.dtype):
            narrow = _turned(x_TH, None if mask_TH is None else down_RH, narrow, turns, frozen.scales)
        outputs = []
        for weight, bias, shift, (low, up) in zip(*frozen[:2], frozen.shifts, narrow, strict=True):
            noise = shift if isinstance(shift, Noise) else None
            outputs.append(_base(x_TH, weight, bias, noise).addmm_(low, up.t()))
        ctx.save_for_backward(x_TH, mask_TH, low_TR, down_RH, *ups)
        ctx.frozen = frozen
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *sent: Tensor) -> tuple[Tensor | None, ...]:
        x_TH, mask_TH, low_TR, down_RH, *ups = ctx.saved_tensors
        widths = [up.shape[1] for up in ups]
        grad_low_TR = torch.empty_like(low_TR)
        up_grads = []
        for g, up, scale, low, out in zip(
            sent, ups, ctx.frozen.scales, low_TR.split(widths, 1), grad_low_TR.split(widths, 1), strict=True
        ):
            torch.mm(g, up, out=out)
            up_grads.append((g.t() @ low).float().mul_(scale))
        kept_TH = x_TH if mask_TH is None else x_TH * mask_TH.to(x_TH.dtype)
        down_grad_RH = (grad_low_TR.t() @ kept_TH).float()
        x_grad_TH = None
        if ctx.needs_input_grad[0]:
            x_grad_TH = grad_low_TR @ down_RH
            if mask_TH is not None:
                x_grad_TH.mul_(mask_TH.to(x_TH.dtype))
            if turns := ctx.frozen.turns(x_TH.dtype):
                _send_turned(x_grad_TH, sent, grad_low_TR, down_RH, turns, ctx.frozen.scales)
            for g, weight, shift in zip(sent, ctx.frozen.weights, ctx.frozen.shifts, strict=True):
                _send(x_grad_TH, g, weight, shift if isinstance(shift, Noise) else None)
        return (x_grad_TH, None, None, *down_grad_RH.split(widths, 0), *up_grads)


def _even(size: int) -> int:
    """Rows or columns of a tile: a multiple of what GPUs multiply at once, where it can be one."""
    return size // 128 * 128 or max(1, size)


def _base(x_TH: Tensor, weight: Tensor, bias: Tensor | None, noise: Noise | None) -> Tensor:
    """x (W + noise)^T + b, the noisy weight formed some rows at a time."""
    if noise is None:
        return linear(x_TH, weight.to(x_TH.dtype), _cast(bias, x_TH))
    y = x_TH.new_empty(len(x_TH), len(weight))
    height = _even(TILE // weight.shape[1])
    for top in range(0, len(weight), height):
        rows = noise.added(weight[top : top + height], top, dtype=x_TH.dtype)
        torch.mm(x_TH, rows.t(), out=y[:, top : top + height])
    return y if bias is None else y.add_(bias)


def _send(x_grad_TH: Tensor, g: Tensor, weight: Tensor, noise: Noise | None) -> None:
    """Add g (W + noise) to the input's gradient, the noisy weight formed some columns at a time."""
    if noise is None:
        x_grad_TH.addmm_(g, weight.to(g.dtype))
        return
    width = _even(TILE // len(weight))
    for left in range(0, weight.shape[1], width):
        columns = noise.added(weight[:, left : left + width], 0, left, g.dtype)
        x_grad_TH[:, left : left + width].addmm_(g, columns)


def _turned(
    x_TH: Tensor, down_RH: Tensor | None, narrow: list[Any], turns: list[Turn], scales: list[float]
) -> list[tuple[Tensor, Tensor]]:
    """Each layer's narrow product (x A^T, s B), and in the same one that of its turn c (M_B A + B M_A).

    The turn takes the input without dropout: `down_RH`, where there is dropout, makes x A^T of it.
    """
    widths = [up.shape[1] for _, up in narrow]
    moved = (x_TH @ torch.cat([turn.down_RH for turn in turns]).t()).split(widths, 1)
    plain = [None] * len(turns) if down_RH is None else (x_TH @ down_RH.t()).split(widths, 1)
    found = []
    for (low, up), turn, scale, own, other in zip(narrow, turns, scales, plain, moved, strict=True):
        swapped, along = up * (turn.scale / scale), turn.up_OR * turn.scale
        if own is None:
            found.append((torch.cat([low, other], 1), torch.cat([up + along, swapped], 1)))
        else:
            found.append((torch.cat([low, own, other], 1), torch.cat([up, along, swapped], 1)))
    return found


def _send_turned(
    x_grad_TH: Tensor, sent: Any, grad_low_TR: Tensor, down_RH: Tensor, turns: list[Turn], scales: list[float]
) -> None:
    """Add what the turns send to the input's gradient: c (g M_B A + g B M_A), of s g B."""
    widths = [turn.up_OR.shape[1] for turn in turns]
    along_TR, swapped_TR = torch.empty_like(grad_low_TR), torch.empty_like(grad_low_TR)
    parts = zip(*(tensor.split(widths, 1) for tensor in (grad_low_TR, along_TR, swapped_TR)), strict=True)
    for g, turn, scale, (low, along, swapped) in zip(sent, turns, scales, parts, strict=True):
        torch.mm(g, turn.up_OR * turn.scale, out=along)
        torch.mul(low, turn.scale / scale, out=swapped)
    x_grad_TH.addmm_(along_TR, down_RH).addmm_(swapped_TR, torch.cat([turn.down_RH for turn in turns]))


class _MergedLinears(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TH: Tensor, frozen: _Frozen, *factors: Tensor) -> tuple[Tensor, ...]:
        merged = _merged(frozen, factors)
        ctx.save_for_backward(x_TH, *factors)
        ctx.frozen, ctx.merged = frozen, merged if len(x_TH) >= KEPT * x_TH.shape[1] else None
        return tuple(linear(x_TH, w, _cast(b, x_TH)) for w, b in zip(merged, frozen.biases, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *sent: Tensor) -> tuple[Tensor | None, ...]:
        """Merged weights that are not few are formed again: kept, they would be a second copy of the model."""
        x_TH, *factors = ctx.saved_tensors
        downs, ups = factors[: len(sent)], factors[len(sent) :]
        down_RH = torch.cat(downs)
        widths = [len(down) for down in downs]
        low_TR = x_TH @ down_RH.t()
        grad_low_TR = torch.empty_like(low_TR)
        up_grads = []
        for g, up, scale, low, out in zip(
            sent, ups, ctx.frozen.scales, low_TR.split(widths, 1), grad_low_TR.split(widths, 1), strict=True
        ):
            torch.mm(g, up * scale, out=out)
            up_grads.append((g.t() @ low).mul_(scale))
        down_grad_RH = grad_low_TR.t() @ x_TH
        x_grad_TH = None
        if ctx.needs_input_grad[0]:
            first, *others = zip(sent, ctx.merged or _merged(ctx.frozen, factors), strict=True)
            x_grad_TH = torch.mm(*first)
            for g, merged in others:
                x_grad_TH.addmm_(g, merged)
        return (x_grad_TH, None, *down_grad_RH.split(widths, 0), *up_grads)


def _merged(frozen: _Frozen, factors: Sequence[Tensor]) -> list[Tensor]:
    """W_i + s_i B_i A_i and the shift, in the dtype of the factors."""
    downs, ups = factors[: len(frozen.weights)], factors[len(frozen.weights) :]
    merged = []
    for weight, up, down, scale, shift in zip(frozen.weights, ups, downs, *frozen[2:], strict=True):
        if isinstance(shift, Turn):
            up = torch.cat([up + shift.up_OR * (shift.scale / scale), up * (shift.scale / scale)], 1)
            down = torch.cat([down, shift.down_RH])
        merged.append(torch.addmm(weight.to(up.dtype), up, down, alpha=scale))
        if isinstance(shift, Noise):
            shift.add_(merged[-1])
    return merged
