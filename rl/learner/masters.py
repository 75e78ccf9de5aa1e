"""What the optimizer works on: trained weights, their float32 masters, and the part of them that a mask leaves.

Where a weight is narrower than float32, gradients add up and steps are taken in a float32 master of it. Where a mask
trains only some weights of a tensor, the optimizer holds these alone, side by side in a vector: what is outside has no
gradient, no optimizer state and no decay, and keeps every bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class _Pair:
    """A weight of the model, and what stands for it in the optimizer."""

    name: str
    weight: Tensor
    master: Tensor
    mask: Tensor | None
    """Which of the weight's elements `master` holds, in order; None is all, in the weight's shape."""

    def inside(self, values: Tensor) -> Tensor:
        """The elements of a tensor of the weight's shape that `master` stands for."""
        return values if self.mask is None else values[self.mask]


class Masters:
    """The optimizer's tensors, by the names of the weights that they are or stand for."""

    def __init__(
        self, trained: Sequence[tuple[str, Tensor]], masks: Mapping[str, Tensor] | None = None, *, wide: bool = True
    ) -> None:
        """Make what is needed beside `trained`, and let gradients flow into it; `wide` asks for float32 masters.

        What `masks` does not name is trained whole.
        """
        self.named: list[tuple[str, Tensor]] = []
        self._pairs: list[_Pair] = []
        for name, weight in trained:
            mask = masks[name].to(weight.device) if masks is not None and name in masks else None
            narrow = wide and weight.dtype.itemsize < 4
            if mask is None and not narrow:
                self.named.append((name, weight))
                continue
            inside = weight.detach() if mask is None else weight.detach()[mask]
            pair = _Pair(name, weight, nn.Parameter(inside.float() if narrow else inside.clone()), mask)
            self.named.append((name, pair.master))
            self._pairs.append(pair)
            weight.register_post_accumulate_grad_hook(lambda _, pair=pair: _move_grad(pair))  # type: ignore[attr-defined]

    def wide(self) -> dict[str, Tensor]:
        """Trained weights with more digits than the model's: by name, whole, in float32."""
        found = {}
        for pair in self._pairs:
            master, whole = pair.master.detach(), pair.weight.detach().float()
            if master.dtype != pair.weight.dtype:
                found[pair.name] = master if pair.mask is None else whole.masked_scatter_(pair.mask, master)
        return found

    def publish(self) -> None:
        """Round what the optimizer made into the weights."""
        with torch.no_grad():
            for pair in self._pairs:
                if pair.mask is None:
                    pair.weight.copy_(pair.master)
                else:
                    pair.weight.masked_scatter_(pair.mask, pair.master.to(pair.weight.dtype))


def _move_grad(pair: _Pair) -> None:
    """Add a micro-batch's gradient to the master's, and free it."""
    assert pair.weight.grad is not None
    gradient = pair.inside(pair.weight.grad)
    if pair.master.grad is None:
        pair.master.grad = gradient.to(pair.master.dtype)
    else:
        pair.master.grad.add_(gradient)
    pair.weight.grad = None
