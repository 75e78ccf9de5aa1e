"""Weights moved for the time in which gradients are taken, and norms of effective weights without forming any.

A shift acts inside a LoRA layer, as a further term of its product: the base weight is never written, so it cannot
drift. Trained tensors are moved in place, and put back from copies, since adding and subtracting would not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

from ...kernels.noise import Noise
from .sharded import full

if TYPE_CHECKING:
    from .masters import Masters

KEY = "underdog_shift"
"""Where a module carries its shift, as a plain attribute."""


class Turn(NamedTuple):
    """The low-rank shift `scale (M_B A + B M_A)` of a layer whose factors are A and B; float32."""

    down_RH: Tensor
    """M_A."""
    up_OR: Tensor
    """M_B."""
    scale: float


Shift = Noise | Turn


@contextmanager
def shifted(shifts: Mapping[nn.Module, Shift]) -> Iterator[None]:
    """Within it the LoRA layers compute with their effective weights plus these shifts, forward and backward."""
    try:
        for module, shift in shifts.items():
            module.__dict__[KEY] = shift
        yield
    finally:
        for module in shifts:
            module.__dict__.pop(KEY, None)


@contextmanager
def moved(masters: Masters, moves: Mapping[str, Tensor]) -> Iterator[None]:
    """Within it the trained tensors are moved by `moves`, by name; after it they have every bit again."""
    places = [(tensor, moves[name]) for name, tensor in masters.named if name in moves]
    kept = [(tensor, tensor.detach().clone()) for tensor, _ in places]
    try:
        for tensor, move in places:
            tensor.data.add_(move)
        masters.publish()
        yield
    finally:
        for tensor, copy in kept:
            tensor.data.copy_(copy)
        masters.publish()


class Layer(NamedTuple):
    """One LoRA layer: its module, and what the optimizer holds for its factors A [R, H] and B [O, R]."""

    name: str
    module: Any
    down: Tensor
    up: Tensor

    @property
    def scale(self) -> float:
        """alpha / r."""
        return self.module.scaling["default"]

    @property
    def weight(self) -> Tensor:
        """The frozen base weight [O, H]; on several ranks sharded."""
        return self.module.base_layer.weight


def layers(base: nn.Module, named: Mapping[str, Tensor]) -> list[Layer]:
    """All LoRA layers of `base`, by the names of their modules."""
    found = []
    for name, module in base.named_modules():
        if f"{name}.lora_A.default.weight" in named:
            down, up = (named[f"{name}.lora_{side}.default.weight"] for side in "AB")
            found.append(Layer(name, module, down, up))
    return found


def row_squares(weight_OH: Tensor) -> Tensor:
    """Squared Euclidean norms of the rows [O] of a weight, which may be sharded; float32."""
    return full(torch.linalg.vector_norm(weight_OH, dim=1, dtype=torch.float32)).square()


def squares_beside(weight_OH: Tensor, squares_O: Tensor, down_RH: Tensor, up_OR: Tensor) -> Tensor:
    """Squared norms of the rows of W + B A, from those of W (which may be sharded): one product with A, no sum."""
    right_HR = down_RH.t().to(weight_OH.dtype)
    if isinstance(weight_OH, DTensor):
        right_HR = DTensor.from_local(right_HR, weight_OH.device_mesh, [Replicate()])
    across_OR = full(weight_OH @ right_HR).float()
    inner_RR = down_RH @ down_RH.t()
    return (squares_O + (up_OR * (2 * across_OR + up_OR @ inner_RR)).sum(1)).clamp_(min=0)


def turn_row_squares(down_RH: Tensor, up_OR: Tensor, d_down_RH: Tensor, d_up_OR: Tensor) -> Tensor:
    """Squared norms [O] of the rows of B dA + dB A, from products of the narrow factors."""
    own, other, mixed = d_down_RH @ d_down_RH.t(), down_RH @ down_RH.t(), d_down_RH @ down_RH.t()
    rows = up_OR @ own * up_OR + d_up_OR @ other * d_up_OR + 2 * (up_OR @ mixed) * d_up_OR
    return rows.sum(1).clamp_(min=0)


def turn_norm(down_RH: Tensor, up_OR: Tensor, d_down_RH: Tensor, d_up_OR: Tensor) -> float:
    """The Frobenius norm of B dA + dB A."""
    return float(turn_row_squares(down_RH, up_OR, d_down_RH, d_up_OR).sum().sqrt())
