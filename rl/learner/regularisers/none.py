"""No regulariser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Regulariser

if TYPE_CHECKING:
    from torch import Tensor, nn


class NONE(Regulariser):
    """Adds nothing to the loss. (`None` is taken.)"""

    def penalty(self, model: nn.Module, step: int) -> Tensor | None:
        """None."""
        return None

    def after_optimizer_step(self, model: nn.Module, step: int) -> None:
        """Nothing is changed."""
