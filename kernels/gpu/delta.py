"""`../delta.py` on a GPU: two matrices read once by a Triton kernel, and all of their differences counted on the way.

A program walks down some rows of a few columns. It counts in registers, two counts a word, a lane each, so a column's
own tells whether it was touched; sums of squares are a lane's too, and only those of the programs are added in float64.
The exponents are those of the same blocks as there: every sixteenth of a large slab.
"""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from ..delta import BINADES, BLOCK, LARGE, SAMPLED, TOLERANCES, ULPS, Counted
from .device import launch

COLUMNS = 512
"""Lanes of a program; they divide a block."""
PROGRAMS = 4096
"""At least so many share a large matrix: some thirty a multiprocessor."""
ROWS = (8, 2**14)
"""Rows of a program, at least and at most: more would run over the half word that counts them."""


def count(base_RC: Tensor, tuned_RC: Tensor, touched_C: Tensor) -> Counted:
    """As `delta.count`, of bfloat16, float16 or float32 on a GPU; rows contiguous, `touched_C` uint8 and there too.

    Raises:
        TypeError: the matrices are of another or of two dtypes.
    """
    dtype = base_RC.dtype
    if dtype != tuned_RC.dtype or dtype not in (torch.bfloat16, torch.float16, torch.float32):
        raise TypeError(f"bfloat16, float16 or float32, not {dtype} and {tuned_RC.dtype}")
    rows, columns = base_RC.shape
    tiles = triton.cdiv(columns, COLUMNS)
    each = min(max(ROWS[0], triton.cdiv(rows * tiles, PROGRAMS)), ROWS[1])
    grid = (tiles, triton.cdiv(rows, each))
    differ_R = touched_C.new_zeros(rows)
    counts = touched_C.new_zeros(grid[0] * grid[1], 1 + len(TOLERANCES) + len(ULPS), dtype=torch.int64)
    squares = touched_C.new_zeros(grid[0] * grid[1], 2, dtype=torch.float64)
    binades = touched_C.new_zeros(BINADES, dtype=torch.int32)
    every = 1 if base_RC.numel() < LARGE else SAMPLED
    bits = torch.int32 if dtype == torch.float32 else torch.int16
    matrices = (base_RC.contiguous().view(bits), tuned_RC.contiguous().view(bits))
    into = (touched_C, differ_R, counts, squares, binades)
    blocks = (max(1, BLOCK // max(columns, 1)), triton.cdiv(columns, BLOCK), every)
    form = (dtype == torch.float16, BLOCK, BINADES, COLUMNS, *TOLERANCES, *ULPS)
    launch(_count, grid, touched_C, *matrices, *into, rows, columns, each, *blocks, *form, num_warps=4)
    found = np.asarray(counts.sum(0).cpu()), np.asarray(squares.sum(0).cpu())
    return Counted(*found, np.asarray(binades.cpu(), np.int64) * every, int(differ_R.count_nonzero()))


@triton.jit
def _wide(bits, FLOAT16: tl.constexpr):
    """The float32 of stored bits."""
    if bits.dtype == tl.int32:
        return bits.to(tl.float32, bitcast=True)
    elif FLOAT16:
        return bits.to(tl.float16, bitcast=True).to(tl.float32)
    else:
        return (bits.to(tl.int32) << 16).to(tl.float32, bitcast=True)


@triton.jit
def _place(bits):
    """A value's place in the order of all of its dtype: without the sign, negated where it is negative."""
    magnitude = bits.to(tl.int32) & (0x7FFF if bits.dtype == tl.int16 else 0x7FFFFFFF)
    return tl.where(bits < 0, -magnitude, magnitude)


@triton.jit
def _two(low, high):
    return low.to(tl.int32) + (high.to(tl.int32) << 16)


@triton.jit
def _store(counts, pair):
    """Both counts of a word, of all lanes."""
    tl.store(counts, tl.sum((pair & 0xFFFF).to(tl.int64)))
    tl.store(counts + 1, tl.sum((pair >> 16).to(tl.int64)))


@triton.jit
def _count(
    base, tuned, touched, differ, counts, squares, binades, R, C, each, height, per_row, every,
    FLOAT16: tl.constexpr, BLOCK: tl.constexpr, BINADES: tl.constexpr, COLUMNS: tl.constexpr,
    T0: tl.constexpr, T1: tl.constexpr, T2: tl.constexpr, T3: tl.constexpr, T4: tl.constexpr, T5: tl.constexpr,
    U1: tl.constexpr, U2: tl.constexpr, U3: tl.constexpr,
):  # fmt: skip
    left, first = tl.program_id(0) * COLUMNS, tl.program_id(1) * each
    c = left + tl.arange(0, COLUMNS)
    inside = c < C
    pair0 = tl.zeros([COLUMNS], tl.int32)
    pair1, pair2, pair3, pair4 = pair0, pair0, pair0, pair0
    moved, size = tl.zeros([COLUMNS], tl.float32), tl.zeros([COLUMNS], tl.float32)
    exponents = tl.zeros([BINADES], tl.int32)
    base += first.to(tl.int64) * C
    tuned += first.to(tl.int64) * C
    for r in range(first, min(first + each, R)):
        a = tl.load(base + c, mask=inside, other=0)
        b = tl.load(tuned + c, mask=inside, other=0)
        base += C
        tuned += C
        x = _wide(a, FLOAT16)
        delta = _wide(b, FLOAT16) - x
        moved += delta * delta
        size += x * x
        delta = tl.abs(delta)
        here, there = _place(a), _place(b)
        apart = (tl.maximum(here, there) - tl.minimum(here, there)).to(tl.uint32, bitcast=True)
        changed = apart > 0
        pair0 += _two(changed, delta > T0)
        pair1 += _two(delta > T1, delta > T2)
        pair2 += _two(delta > T3, delta > T4)
        pair3 += _two(delta > T5, apart > U1)
        pair4 += _two(apart > U2, apart > U3)
        tl.store(differ + r, 1, mask=tl.max(changed.to(tl.int32)) != 0)
        if ((r // height) * per_row + left // BLOCK) % every == 0:
            e = (x.to(tl.int32, bitcast=True) >> 23) & (BINADES - 1)
            exponents += tl.histogram(e, BINADES, mask=inside)
    tl.store(touched + c, 1, mask=inside & ((pair0 & 0xFFFF) > 0))
    program = tl.program_id(1).to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
    counts += program * 10
    _store(counts, pair0)
    _store(counts + 2, pair1)
    _store(counts + 4, pair2)
    _store(counts + 6, pair3)
    _store(counts + 8, pair4)
    tl.store(squares + program * 2, tl.sum(moved.to(tl.float64)))
    tl.store(squares + program * 2 + 1, tl.sum(size.to(tl.float64)))
    tl.atomic_add(binades + tl.arange(0, BINADES), exponents, sem="relaxed")
