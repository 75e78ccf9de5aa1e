"""What every initialisation is: where the trained parameters start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....parts import Part

if TYPE_CHECKING:
    from torch import nn


class Initialisation(Part):
    """Called once, when the adapter is attached and nothing has been trained."""

    def on_init(self, model: nn.Module, seed: int) -> None:
        """Set the trained parameters of `model` in place."""
        raise NotImplementedError
