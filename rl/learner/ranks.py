"""Processes that share one update: FSDP2's sharded parameters, and sums over all ranks.

The loss is a plain sum over tokens whose weights were counted over the whole batch, so gradients are *summed* over
ranks, never averaged, and any number of ranks takes the step that one would take. Micro-batches are those of one
process, dealt out in turn; where they do not come out even, a rank runs an empty one, since every rank must take part
in each pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch

from .scorer import Scorer

Item = TypeVar("Item")


class Ranks:
    """This process's place among those that share the update; alone unless told otherwise."""

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        """With more than one, torch.distributed is already initialised."""
        self.rank, self.world = rank, world

    def shard(self, scorer: Scorer, device: str) -> None:
        """Shard the parameters, a layer at a time and then the rest."""
        if self.world == 1:
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        mesh = init_device_mesh(device, (self.world,))
        for layer in scorer.layers():
            fully_shard(layer, mesh=mesh)
        # Gathered anew at each pass: what a pass without gradients left gathered, a loaded state would not reach.
        fully_shard(scorer, mesh=mesh, reshard_after_forward=True)
        for module in scorer.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        scorer.enter_layers()

    def deal(self, items: Sequence[Item]) -> list[tuple[int, Item | None]]:
        """This rank's items, each with its number among all; None where others still have one."""
        rounds = -(-len(items) // self.world)
        numbers = [self.rank + i * self.world for i in range(rounds)]
        return [(n, items[n] if n < len(items) else None) for n in numbers]

    def total(self, values: dict[str, float]) -> dict[str, float]:
        """Sums over ranks, by name; a name that some ranks lack counts as 0 there."""
        return _merged(self._everyones(values), sum)

    def largest(self, values: dict[str, float]) -> dict[str, float]:
        """Maxima over ranks, by name."""
        return _merged(self._everyones(values), max)

    def collected(self, values: dict[int, Any]) -> dict[int, Any]:
        """What all ranks have, by number."""
        return {key: value for each in self._everyones(values) for key, value in each.items()}

    def _everyones(self, value: Any) -> list[Any]:
        if self.world == 1:
            return [value]
        everyones: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(everyones, value)
        return everyones


def _merged(each: Sequence[dict[str, float]], combine: Any) -> dict[str, float]:
    names = sorted({name for values in each for name in values})
    return {name: combine(values[name] for values in each if name in values) for name in names}
