"""AdamW (Loshchilov and Hutter 2017, arXiv 1711.05101)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from .base import Optimizer

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer as TorchOptimizer


class AdamW(Optimizer):
    """Adam with decoupled weight decay."""

    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Memory of the gradients' mean."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """Memory of the gradients' square."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the root of the mean square."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Share of each weight, times the rate, that a step takes away."""

    def build(self, named: Sequence[tuple[str, Tensor]], lr: float) -> TorchOptimizer:
        """torch's AdamW."""
        import torch

        return torch.optim.AdamW(
            [parameter for _, parameter in named],
            lr=lr,
            betas=(self.beta1, self.beta2),
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=True,
        )
