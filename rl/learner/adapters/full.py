"""Full-parameter training: every weight of the model is trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ....parts import UserError
from .base import Adapter

if TYPE_CHECKING:
    from torch import Tensor, nn


class Full(Adapter):
    """No adapter: all parameters are trained (bfloat16 weights with float32 masters)."""

    def attach(self, model: nn.Module, seed: int, start: Path | None) -> nn.Module:
        """Every parameter requires a gradient.

        Raises:
            UserError: a saved adapter is to be loaded, for which there is no place.
        """
        if start is not None:
            raise UserError("init_adapter needs learner.adapter=lora; with full, give the merged folder as model")
        return model.requires_grad_(True)

    def weights(self, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """The parameters themselves."""
        return ((name, parameter.detach()) for name, parameter in model.named_parameters())
