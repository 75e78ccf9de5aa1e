"""How two tensors of one shape differ, counted in one pass over their stored bits.

A block is read once: while it is in the first-level cache its values are widened to float32, compared, and counted.
Counts are of plain integers, so those of blocks, tensors and models add up. Compiled by numba, without the
interpreter's lock: threads share the work. `gpu/delta.py` counts the same on an NVIDIA GPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

TOLERANCES = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
"""Absolute differences beyond which weights are counted."""
ULPS = (1, 4, 16)
"""Differences in units of the stored dtype's last place beyond which weights are counted."""
BINADES = 256
"""Exponents of a float32, and of a bfloat16."""
BLOCK = 8192
_TOLERANCES = np.array(TOLERANCES, dtype=np.float32)


class Counted(NamedTuple):
    """Sums over the elements of one or more slabs of rows."""

    counts: np.ndarray
    """int64: values that differ, then those beyond each of `TOLERANCES`, then beyond each of `ULPS`."""
    squares: np.ndarray
    """float64 [2]: the sum of the squared differences, and of the squares of the base."""
    binades: np.ndarray
    """int64 [256]: elements of the base by their exponent as a float32; of a large slab from every sixteenth block."""
    rows: int
    """Rows with a difference."""


def empty() -> Counted:
    """Nothing counted yet."""
    return Counted(np.zeros(1 + len(TOLERANCES) + len(ULPS), np.int64), np.zeros(2), np.zeros(BINADES, np.int64), 0)


def total(counted: Iterable[Counted]) -> Counted:
    """Those of several slabs together."""
    into = empty()
    for one in counted:
        for mine, own in zip(into[:3], one[:3], strict=True):
            mine += own
        into = into._replace(rows=into.rows + one.rows)
    return into


def count(base_RC: np.ndarray, tuned_RC: np.ndarray, touched_C: np.ndarray) -> Counted:
    """Compare two slabs of rows, and set in `touched_C` (uint8) the columns in which they differ.

    The slabs hold the stored bits: uint16 are those of bfloat16, float16 is itself, uint32 those of float32. Values are
    compared, not bits: 0 and -0 are equal, and so is a NaN and the same NaN. Where a value is not finite, `squares`
    are not.

    Raises:
        TypeError: the slabs are of another or of two dtypes.
    """
    dtype = base_RC.dtype
    if dtype != tuned_RC.dtype or dtype not in (np.uint16, np.float16, np.uint32):
        raise TypeError(f"bits of bfloat16 (uint16), float16 or bits of float32 (uint32), not {dtype}")
    into, fours = empty(), np.zeros((4, BINADES), np.int64)
    every = 1 if base_RC.size < LARGE else SAMPLED
    table = _float16_bits() if dtype == np.float16 else np.zeros(0, np.uint32)
    bits = np.uint16 if dtype.itemsize == 2 else np.uint32
    slabs = (base_RC.view(bits), tuned_RC.view(bits), touched_C)
    rows = _count(*slabs, into.counts, into.squares, fours, every, table)
    return into._replace(rows=int(rows), binades=fours.sum(0) * every)


def warm() -> None:
    """Compile, or load what was compiled before: seconds the first time."""
    for dtype in (np.uint16, np.uint32):
        count(np.zeros((1, 1), dtype), np.zeros((1, 1), dtype), np.zeros(1, np.uint8))


@cache
def _float16_bits() -> np.ndarray:
    """uint32 [65536]: each float16 as the bits of a float32."""
    return np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32).view(np.uint32)


_FAST = {"nogil": True, "cache": True, "fastmath": {"reassoc", "contract", "nsz"}}
SAMPLED, LARGE = 16, 2**20
# What LLVM turns into vector code: short loops that write one array or only sum, and sums that are narrowed again at
# once (numba widens those of small integers).


def _intrinsic(function: Any) -> Any:
    """numba's, which type checkers take for the function it is given."""
    return intrinsic(function)


@_intrinsic
def _as_float(context, bits):  # type: ignore[no-untyped-def]
    """The float32 of 32 bits; of 16 bits, those of bfloat16, which are the upper ones."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        (wide,) = args
        if bits == types.uint16:
            wide = builder.shl(builder.zext(wide, ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
        return builder.bitcast(wide, ir.FloatType())

    return types.float32(bits), generate


@_intrinsic
def _magnitude(context, bits):  # type: ignore[no-untyped-def]
    """Bits without the sign."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.and_(args[0], ir.Constant(args[0].type, 2 ** (bits.bitwidth - 1) - 1))

    return bits(bits), generate


@njit(**_FAST)
def _values(base, tuned, counts, squares):  # type: ignore[no-untyped-def]
    """Counts by tolerance, and sums of squares."""
    t0, t1, t2, t3, t4, t5 = _TOLERANCES
    count = np.int32
    c0 = c1 = c2 = c3 = c4 = c5 = count(0)
    moved = size = np.float32(0)
    for i in range(len(base)):
        first = _as_float(base[i])
        delta = _as_float(tuned[i]) - first
        moved += delta * delta
        size += first * first
        delta = abs(delta)
        c0 = count(c0 + (delta > t0))
        c1 = count(c1 + (delta > t1))
        c2 = count(c2 + (delta > t2))
        c3 = count(c3 + (delta > t3))
        c4 = count(c4 + (delta > t4))
        c5 = count(c5 + (delta > t5))
    for k, c in enumerate((c0, c1, c2, c3, c4, c5)):
        counts[1 + k] += c
    squares[0] += moved
    squares[1] += size


@njit(**_FAST)
def _places16(base, tuned, counts):  # type: ignore[no-untyped-def]
    """Counts by last places of 16-bit floats, in 16-bit arithmetic; returns how many values differ.

    Without its sign bit a float's bits are in the order of its values; negated where it is negative, in all of it.
    """
    c = np.int16  # holds a block's counts
    u0 = u1 = u2 = u3 = c(0)
    for i in range(len(base)):
        a, b = c(base[i]), c(tuned[i])
        sign_a, sign_b = c(a >> 15), c(b >> 15)
        x, y = c(c(c(a & 0x7FFF) ^ sign_a) - sign_a), c(c(c(b & 0x7FFF) ^ sign_b) - sign_b)
        apart = np.uint16(np.uint16(max(x, y)) - np.uint16(min(x, y)))
        u0 = c(u0 + (apart > 0))
        u1 = c(u1 + (apart > 1))
        u2 = c(u2 + (apart > 4))
        u3 = c(u3 + (apart > 16))
    return _add_places(counts, u0, u1, u2, u3)


@njit(**_FAST)
def _places32(base, tuned, counts):  # type: ignore[no-untyped-def]
    """The same of float32."""
    u0 = u1 = u2 = u3 = 0
    for i in range(len(base)):
        x, y = np.int64(base[i] & 0x7FFFFFFF), np.int64(tuned[i] & 0x7FFFFFFF)
        apart = abs((-x if base[i] >> 31 else x) - (-y if tuned[i] >> 31 else y))
        u0 += apart > 0
        u1 += apart > 1
        u2 += apart > 4
        u3 += apart > 16
    return _add_places(counts, u0, u1, u2, u3)


@njit(**_FAST)
def _add_places(counts, u0, u1, u2, u3):  # type: ignore[no-untyped-def]
    counts[0] += u0
    for k, u in enumerate((u1, u2, u3)):
        counts[7 + k] += u
    return u0


@njit(**_FAST)
def _look_up(bits, wide, table):  # type: ignore[no-untyped-def]
    for i in range(len(bits)):
        wide[i] = table[bits[i]]


@njit(**_FAST)
def _exponents(bits, binades):  # type: ignore[no-untyped-def]
    shift = 7 if bits.itemsize == 2 else 23
    for i in range(len(bits)):  # four histograms, so that an increment need not wait for the one before
        binades[i & 3, (bits[i] >> shift) & 255] += 1


@njit(**_FAST)
def _touch(base, tuned, touched):  # type: ignore[no-untyped-def]
    """Set the columns in which a row differs, 0 and -0 apart."""
    for i in range(len(base)):
        touched[i] |= np.uint8((base[i] != tuned[i]) & ((_magnitude(base[i]) | _magnitude(tuned[i])) != 0))


@njit(**_FAST)
def _differs(base, tuned):  # type: ignore[no-untyped-def]
    """Whether a row differs anywhere: where many weights changed, the first few tell."""
    i = 0
    while i < len(base) and (base[i] == tuned[i] or (_magnitude(base[i]) | _magnitude(tuned[i])) == 0):
        i += 1
    return i < len(base)


@njit(**_FAST)
def _measure(base, tuned, counts, squares, binades, sampled):  # type: ignore[no-untyped-def]
    _values(base, tuned, counts, squares)
    if sampled:
        _exponents(base, binades)


@njit(**_FAST)
def _count(base_RC, tuned_RC, touched_C, counts, squares, binades, every, table):  # type: ignore[no-untyped-def]
    """All blocks of two slabs; a block is several rows, or a part of one. Returns rows that differ."""
    rows, columns = base_RC.shape
    base, tuned = base_RC.ravel(), tuned_RC.ravel()
    height, width = max(1, BLOCK // max(columns, 1)), max(1, min(columns, BLOCK))
    wide_base, wide_tuned = np.empty(BLOCK, np.uint32), np.empty(BLOCK, np.uint32)
    differ_R = np.zeros(rows, np.bool_)
    blocks, all_touched = 0, False
    for top in range(0, rows, height):
        bottom = min(top + height, rows)
        for left in range(0, columns, width):
            right = min(left + width, columns)
            start, stop = top * columns + left, (bottom - 1) * columns + right
            a, b = base[start:stop], tuned[start:stop]
            every_th = blocks % every == 0
            if len(table) > 0:
                _look_up(a, wide_base, table)
                _look_up(b, wide_tuned, table)
                _measure(wide_base[: len(a)], wide_tuned[: len(a)], counts, squares, binades, every_th)
            else:
                _measure(a, b, counts, squares, binades, every_th)
            blocks += 1
            found = _places16(a, b, counts) if base.itemsize == 2 else _places32(a, b, counts)
            for r in range(top, bottom if found > 0 else top):
                a, b = base[r * columns + left : r * columns + right], tuned[r * columns + left : r * columns + right]
                differ_R[r] = differ_R[r] or _differs(a, b)
                if not all_touched:
                    _touch(a, b, touched_C[left:right])
            all_touched = all_touched or (found > 0 and touched_C.all())
    return np.count_nonzero(differ_R)
