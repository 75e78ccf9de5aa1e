"""The adapter's own start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Initialisation

if TYPE_CHECKING:
    from torch import nn


class Default(Initialisation):
    """The adapter's own start: for LoRA, A uniform (Kaiming) and B zero, so that training begins at the base."""

    def on_init(self, model: nn.Module, seed: int) -> None:
        """Leave all as it is."""
