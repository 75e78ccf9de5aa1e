"""Which tensors go through the Triton kernels of this folder: the one place that decides it.

Each kernel has a form in torch or numba beside it, in the folder above, which is its reference and takes all else.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor


def takes(tensor: Tensor) -> bool:
    """Whether the kernels take this tensor: on an NVIDIA GPU (Ampere or later), with triton there.

    Under TRITON_INTERPRET=1, by which triton itself runs kernels on a CPU for tests, they take any tensor.
    """
    if tensor.is_cuda:
        return _able(tensor.get_device())
    return os.environ.get("TRITON_INTERPRET") == "1" and _installed()


def launch(kernel: Any, grid: tuple[int, ...], like: Tensor, *arguments: Any, **options: Any) -> None:
    """Run a kernel on the device of `like`, with fused multiply-adds unless told; a grid of nothing is no launch."""
    if 0 in grid:
        return
    with torch.cuda.device_of(like):
        kernel[grid](*arguments, **{"enable_fp_fusion": True, **options})


@cache
def _able(index: int) -> bool:
    # bfloat16 needs the eighth generation, and so does triton.
    return torch.version.hip is None and _installed() and torch.cuda.get_device_capability(index) >= (8, 0)


@cache
def _installed() -> bool:
    return find_spec("triton") is not None
