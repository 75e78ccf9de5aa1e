"""What every optimizer is: options that build a torch optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from ....parts import Part

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer as TorchOptimizer


class Optimizer(Part):
    """Options of an optimizer; the learner sets its rate before each step and saves its state by parameter name."""

    shards: ClassVar[bool] = True
    """Whether its state is shaped as the parameters are, so that ranks may each hold a part of it."""

    def build(self, named: Sequence[tuple[str, Tensor]], lr: float) -> TorchOptimizer:
        """The optimizer over the trained parameters (float32, or float32 masters of narrower ones) in this order."""
        raise NotImplementedError
