"""Several LoRA layers of one input in one pass: y_i = W_i x + b_i + s_i B_i A_i dropout(x).

The base is frozen, so its weights get no gradient; the A are stacked, so the narrow products become one; sums happen
inside the matrix products. The input's dtype is that of all products; base and factors are cast to it as they are used.

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

from .dropout import Dropout

KEPT = 4
"""Merged weights are kept for the backward pass where there are this many times as many tokens as inputs: they are then
few beside the outputs, which are kept as well."""
NAME = "default"
"""PEFT's name for its first adapter."""


def apply(modules: Sequence[nn.Module], x_TH: Tensor, dropout: Dropout | None) -> list[Tensor]:
    """Each module applied to `x_TH`; what is no plain PEFT LoRA goes its own way."""
    together = [module for module in modules if _is_plain(module)]
    outputs = iter(_apply_together(together, x_TH, dropout) if together else ())
    return [next(outputs) if _is_plain(module) else apply_plain(module, x_TH) for module in modules]


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
    frozen = _Frozen(weights, biases, [m.scaling[NAME] / probability for m in layers])
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


def _is_plain(module: Any) -> bool:
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
        outputs = []
        for weight, bias, up, low in zip(*frozen[:2], ups, low_TR.split([u.shape[1] for u in ups], 1), strict=True):
            y = linear(x_TH, weight.to(x_TH.dtype), _cast(bias, x_TH))
            outputs.append(y.addmm_(low, up.t()))
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
            for g, weight in zip(sent, ctx.frozen.weights, strict=True):
                x_grad_TH.addmm_(g, weight.to(g.dtype))
        return (x_grad_TH, None, None, *down_grad_RH.split(widths, 0), *up_grads)


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
    """W_i + s_i B_i A_i, in the dtype of the factors."""
    downs, ups = factors[: len(frozen.weights)], factors[len(frozen.weights) :]
    return [
        torch.addmm(weight.to(up.dtype), up, down, alpha=scale)
        for weight, up, down, scale in zip(frozen.weights, ups, downs, frozen.scales, strict=True)
    ]
