"""Tensors that FSDP2 shards over ranks, and plain ones, alike."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor


def full(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor, gathered from all ranks; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(whole: Tensor, parameter: Tensor) -> Tensor:
    """This rank's part of `whole`, as `parameter` is sharded; where it is not, `whole` on its device."""
    if not isinstance(parameter, DTensor):
        return whole.to(parameter.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole.to(parameter.device), parameter.device_mesh, parameter.placements)
