"""What every regulariser is: a term added to the loss, a change after the step, or both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....parts import Part

if TYPE_CHECKING:
    from torch import Tensor, nn


class Regulariser(Part):
    """Called once an optimizer step."""

    def penalty(self, model: nn.Module, step: int) -> Tensor | None:
        """A scalar added to the loss, or None."""
        raise NotImplementedError

    def after_optimizer_step(self, model: nn.Module, step: int) -> None:
        """Change the trained parameters in place (proximal steps, projections)."""
        raise NotImplementedError
