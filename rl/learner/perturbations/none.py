"""No perturbation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Perturbation

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer as TorchOptimizer


class NONE(Perturbation):
    """Gradients are taken where the weights are. (`None` is taken.)"""

    def before_gradients(self, model: nn.Module, optimizer: TorchOptimizer, step: int) -> None:
        """Nothing is moved."""

    def before_optimizer_step(self, model: nn.Module, optimizer: TorchOptimizer, step: int) -> None:
        """Nothing is put back."""
