"""Sets of weights as compressed bitmaps: one bit a weight, one array a tensor, in an .npz file without any pickle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...parts import RunError


def write_bitmaps(path: Path, sets: Mapping[str, Tensor]) -> None:
    """Write boolean tensors by name."""
    with path.open("wb") as file:
        packed = {name: np.packbits(mask.cpu().numpy()) for name, mask in sets.items()}
        np.savez_compressed(file, allow_pickle=False, **packed)  # type: ignore[arg-type]


def read_bitmaps(path: Path, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Boolean tensors of these shapes by name.

    Raises:
        RunError: the file is damaged, or not of these tensors.
    """
    masks = {}
    try:
        with np.load(path, allow_pickle=False) as saved:
            for name, shape in shapes.items():
                size = int(np.prod(shape, dtype=np.int64))
                if saved[name].dtype != np.uint8 or saved[name].size != -(-size // 8):
                    raise ValueError(f"{name} has another size")
                bits = np.unpackbits(saved[name], count=size).astype(bool)
                masks[name] = torch.from_numpy(bits).view(tuple(shape))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise RunError(f"{path} does not hold the bitmaps of this model ({error}); start a new run") from error
    return masks
