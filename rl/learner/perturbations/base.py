"""What every perturbation is: the weights are moved while gradients are taken, and back before the step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....parts import Part

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer as TorchOptimizer


class Perturbation(Part):
    """Called around the gradients of each optimizer step. Old log-probs are always those of the unmoved weights."""

    def before_gradients(self, model: nn.Module, optimizer: TorchOptimizer, step: int) -> None:
        """Move the weights of `model`."""
        raise NotImplementedError

    def before_optimizer_step(self, model: nn.Module, optimizer: TorchOptimizer, step: int) -> None:
        """Put the weights back, bit for bit; gradients may be changed too."""
        raise NotImplementedError
