"""Adafactor (Shazeer and Stern 2018, arXiv 1804.04235) at a rate of its user's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from .base import Optimizer

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer as TorchOptimizer


class Adafactor(Optimizer):
    """Second moments of a matrix by its rows and columns only, updates clipped by their root mean square.

    The rate is `learner.lr` by its schedule: neither relative to the step nor to the weights' size, as in RL4GLUE.
    """

    shards: ClassVar[bool] = False

    clip: float = Field(default=1.0, gt=0)
    """Largest root mean square of an update, before the rate."""
    decay: float = Field(default=0.8, gt=0, le=1)
    """Memory of the gradients' square at step t is 1 − t^−decay."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Share of each weight, times the rate, that a step takes away."""

    def build(self, named: Sequence[tuple[str, Tensor]], lr: float) -> TorchOptimizer:
        """transformers' Adafactor."""
        from transformers.optimization import Adafactor

        return Adafactor(
            [parameter for _, parameter in named],
            lr=lr,
            clip_threshold=self.clip,
            decay_rate=-self.decay,
            weight_decay=self.weight_decay,
            scale_parameter=False,
            relative_step=False,
            warmup_init=False,
        )
