"""Weights drawn at random: the control for a mask that means something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .base import Sized

if TYPE_CHECKING:
    from torch import Tensor


class Random(Sized):
    """As many weights as another run changed, or of a density, anywhere: drawn from the run's seed."""

    def choose(self, base: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
        """Drawn without replacement, in each tensor or among all weights."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        sizes = self.sizes(base)
        whole = {"": sum(sizes.values())} if not self.matched else sizes
        widths = {"": sum(t.numel() for t in base.values())} if not self.matched else {n: base[n].numel() for n in base}
        drawn = {}
        for name, size in whole.items():
            drawn[name] = torch.zeros(widths[name], dtype=torch.bool)
            drawn[name][torch.randperm(widths[name], generator=generator)[:size]] = True
        if not self.matched:
            drawn = dict(zip(base, drawn[""].split([t.numel() for t in base.values()]), strict=True))
        return {name: drawn[name].view(tensor.shape) for name, tensor in base.items()}
