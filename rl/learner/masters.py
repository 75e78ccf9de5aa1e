"""Float32 masters of narrower trained weights: gradients add up and steps are taken in float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Masters:
    """What the optimizer works on: the trained parameters themselves where they are wide, masters where not."""

    def __init__(self, trained: Sequence[tuple[str, Tensor]]) -> None:
        """Make masters for what is narrower than float32, and let gradients flow into them."""
        self.named: list[tuple[str, Tensor]] = []
        self._pairs: list[tuple[Tensor, Tensor]] = []
        for name, parameter in trained:
            if parameter.dtype.itemsize >= 4:
                self.named.append((name, parameter))
                continue
            master = nn.Parameter(parameter.detach().float())
            self.named.append((name, master))
            self._pairs.append((parameter, master))
            parameter.register_post_accumulate_grad_hook(lambda p, master=master: _move_grad(p, master))  # type: ignore

    def wide(self) -> dict[str, Tensor]:
        """The masters by the names of the weights that they stand for."""
        return {name: master.detach() for name, master in self.named if any(master is m for _, m in self._pairs)}

    def publish(self) -> None:
        """Round the masters into the weights."""
        with torch.no_grad():
            for parameter, master in self._pairs:
                parameter.copy_(master)


def _move_grad(parameter: Tensor, master: Tensor) -> None:
    """Add a micro-batch's gradient to the master's, and free it."""
    assert parameter.grad is not None
    if master.grad is None:
        master.grad = parameter.grad.float()
    else:
        master.grad.add_(parameter.grad)
    parameter.grad = None
