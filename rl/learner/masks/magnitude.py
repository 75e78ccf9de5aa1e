"""The largest weights, or the smallest: controls that know the model but no run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from .base import Sized

if TYPE_CHECKING:
    from torch import Tensor


class Magnitude(Sized):
    """As many weights as another run changed, or of a density, by their magnitude."""

    order: Literal["largest", "smallest"] = "largest"
    """Which end of them. bfloat16 lets the smallest change most easily."""

    def choose(self, base: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
        """The largest or smallest in each tensor, or among all; of equal ones the first."""
        import torch

        sizes = self.sizes(base)
        flat = {name: tensor.detach().float().abs().flatten().cpu() for name, tensor in base.items()}
        if not self.matched:
            flat, sizes = {"": torch.cat(list(flat.values()))}, {"": sum(sizes.values())}
        chosen = {}
        for name, values in flat.items():
            chosen[name] = torch.zeros(len(values), dtype=torch.bool)
            chosen[name][values.argsort(descending=self.order == "largest", stable=True)[: sizes[name]]] = True
        if not self.matched:
            chosen = dict(zip(base, chosen[""].split([t.numel() for t in base.values()]), strict=True))
        return {name: chosen[name].view(tensor.shape) for name, tensor in base.items()}
