"""A part of a matrix plus its seeded noise, in one Triton kernel: read, hashed, added and rounded once.

A LoRA layer's product takes the noisy weight a tile at a time from here (`rl/learner/lora_linear.py`); a tile of 2^23
entries is 16 MiB in bfloat16, and so is still in the second-level cache of an H100 (50 MiB) when cuBLAS reads it. To
hash inside the matrix product instead would make each entry anew for every block of tokens: a hash costs some thirty
integer operations, and with 128 tokens a block all of them together more than the product itself.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device import launch

TILE = (4, 256)
"""Rows and columns that a program holds at once."""
OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}
"""A fused multiply-add would round once where the plain form rounds twice."""


def add(
    part: Tensor, total: Tensor, scale_R: Tensor, keys: tuple[int, int], top: int, left: int, columns: int
) -> Tensor:
    """`part` [R, C] plus its noise, in `total`, which may be `part` itself, of any floating dtype: the sum is float32,
    or float64 where `part` is, and its bits are those of the plain form."""
    first, second = (word - ((word >> 31) << 32) for word in keys)  # the same bits, signed
    rows, width = part.shape
    grid = (triton.cdiv(width, TILE[1]), triton.cdiv(rows, TILE[0]))
    place = (first, second, top, left, columns, rows, width)
    wide = tl.float64 if torch.float64 in (part.dtype, total.dtype) else tl.float32
    strides = (*part.stride(), *total.stride())
    launch(_add, grid, part, part, total, scale_R, *place, *strides, wide, *TILE, **OPTIONS)
    return total


@triton.jit
def _ones(x):
    """How many bits are set."""
    x = x - ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F
    return (x * 0x01010101) >> 24


@triton.jit
def integers(place, first, second):
    """k of each place, all uint32: the hash of `../noise.py`."""
    h = place + first
    h = ((h ^ (h >> 16)) * 0x7FEB352D) ^ second
    h = (h ^ (h >> 15)) * 0x846CA68B
    h = h ^ (h >> 16)
    return ((_ones(h >> 12) << 6) + ((h >> 6) & 63) + (h & 63)).to(tl.int32) - 703


@triton.jit(do_not_specialize=["first", "second", "top", "left", "columns"])
def _add(
    part, total, scale, first, second, top, left, columns, rows, width, part_r, part_c, total_r, total_c,
    WIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    c = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (r < rows) & (c < width)
    place = (top + r).to(tl.uint32) * columns.to(tl.uint32) + (left + c).to(tl.uint32)
    k = integers(place, first.to(tl.uint32, bitcast=True), second.to(tl.uint32, bitcast=True))
    noise = k.to(tl.float32) * tl.load(scale + r, mask=r < rows, other=0.0)
    r = r.to(tl.int64)
    x = tl.load(part + r * part_r + c * part_c, mask=inside, other=0.0).to(WIDE)
    x += noise.to(WIDE)
    tl.store(total + r * total_r + c * total_c, x.to(total.dtype.element_ty), mask=inside)
