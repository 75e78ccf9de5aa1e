"""How two tensors of one shape differ, counted in one pass over their stored bits.

A block is read once: while it is in the first-level cache its values are widened to float32, compared, and counted.
Counts are of plain integers, so those of blocks, tensors and models add up. Compiled by numba, without the
interpreter's lock: threads share the work.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import numpy as np
from numba import njit

TOLERANCES = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
"""Absolute differences beyond which weights are counted."""
ULPS = (1, 4, 16)
"""Differences in units of the stored dtype's last place beyond which weights are counted."""
BINADES = 256
"""Exponents of a float32, and of a bfloat16."""
_BLOCK = 2048
_TOLERANCES = np.array(TOLERANCES, dtype=np.float32)


class Counted(NamedTuple):
    """Sums over the elements of one or more slabs of rows."""

    counts: np.ndarray
    """int64: values that differ, then those beyond each of `TOLERANCES`, then beyond each of `ULPS`."""
    squares: np.ndarray
    """float64 [2]: the sum of the squared differences, and of the squares of the base."""
    binades: np.ndarray
    """int64 [256]: elements of the base by their exponent as a float32; of a large slab from every eighth block."""
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
    every = 1 if base_RC.size < _LARGE else _SAMPLED
    counted = (touched_C, into.counts, into.squares, fours, every)
    if dtype == np.uint32:
        rows = _count32(base_RC, tuned_RC, *counted)
    else:
        table = _float16_bits() if dtype == np.float16 else np.zeros(0, np.uint32)
        rows = _count16(base_RC.view(np.uint16), tuned_RC.view(np.uint16), *counted, table)
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
_SAMPLED, _LARGE = 8, 2**20
# What LLVM turns into vector code: short loops that write one array or only sum, and sums that are narrowed again at
# once (numba widens those of small integers).


@njit(**_FAST)
def _values(base, tuned, differ, counts, squares):  # type: ignore[no-untyped-def]
    """Counts by tolerance, and sums of squares, of float32 values of which `differ` are different.

    Nearly always no difference is below the third tolerance, which is then known without counting those below.
    """
    t2, t3, t4, t5 = _TOLERANCES[2], _TOLERANCES[3], _TOLERANCES[4], _TOLERANCES[5]
    count = np.int32
    c2 = c3 = c4 = c5 = count(0)
    moved = size = np.float32(0)
    for i in range(len(base)):
        delta = tuned[i] - base[i]
        moved += delta * delta
        size += base[i] * base[i]
        delta = abs(delta)
        c2 = count(c2 + (delta > t2))
        c3 = count(c3 + (delta > t3))
        c4 = count(c4 + (delta > t4))
        c5 = count(c5 + (delta > t5))
    squares[0] += moved
    squares[1] += size
    c0 = c1 = c2
    if c2 < differ:
        c0, c1 = _beyond(base, tuned, _TOLERANCES[0]), _beyond(base, tuned, _TOLERANCES[1])
    for k, c in enumerate((c0, c1, c2, c3, c4, c5)):
        counts[1 + k] += c


@njit(**_FAST)
def _beyond(base, tuned, tolerance):  # type: ignore[no-untyped-def]
    count = np.int32
    beyond = count(0)
    for i in range(len(base)):
        beyond = count(beyond + (abs(tuned[i] - base[i]) > tolerance))
    return beyond


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
def _widen(bits, wide):  # type: ignore[no-untyped-def]
    """bfloat16 is the upper half of a float32."""
    for i in range(len(bits)):
        wide[i] = np.uint32(bits[i]) << 16


@njit(**_FAST)
def _look_up(bits, wide, table):  # type: ignore[no-untyped-def]
    for i in range(len(bits)):
        wide[i] = table[bits[i]]


@njit(**_FAST)
def _touch(base, tuned, touched, sign):  # type: ignore[no-untyped-def]
    """Set what differs, 0 and -0 apart."""
    for i in range(len(base)):
        touched[i] |= np.uint8((base[i] != tuned[i]) & (((base[i] | tuned[i]) & sign) != 0))


@njit(**_FAST)
def _exponents(wide, binades):  # type: ignore[no-untyped-def]
    for i in range(len(wide)):  # four histograms, so that an increment need not wait for the one before
        binades[i & 3, (wide[i] >> 23) & 255] += 1


@njit(**_FAST)
def _count16(base_RC, tuned_RC, touched_C, counts, squares, binades, every, table):  # type: ignore[no-untyped-def]
    """16-bit floats: float16 by the `table` of their float32 bits, bfloat16 without one."""
    rows, columns = base_RC.shape
    wide_base, wide_tuned = np.empty(_BLOCK, np.uint32), np.empty(_BLOCK, np.uint32)
    base, tuned = wide_base.view(np.float32), wide_tuned.view(np.float32)
    touched_rows = blocks = 0
    for r in range(rows):
        differ = 0
        for start in range(0, columns, _BLOCK):
            n = min(_BLOCK, columns - start)
            a, b = base_RC[r, start : start + n], tuned_RC[r, start : start + n]
            if len(table) > 0:
                _look_up(a, wide_base, table)
                _look_up(b, wide_tuned, table)
            else:
                _widen(a, wide_base)
                _widen(b, wide_tuned)
            found = _places16(a, b, counts)
            _values(base[:n], tuned[:n], found, counts, squares)
            _touch(a, b, touched_C[start : start + n], np.uint16(0x7FFF))
            differ += found
            if blocks % every == 0:
                _exponents(wide_base[:n], binades)
            blocks += 1
        touched_rows += differ > 0
    return touched_rows


@njit(**_FAST)
def _count32(base_RC, tuned_RC, touched_C, counts, squares, binades, every):  # type: ignore[no-untyped-def]
    """float32."""
    rows, columns = base_RC.shape
    touched_rows = blocks = 0
    for r in range(rows):
        differ = 0
        for start in range(0, columns, _BLOCK):
            stop = min(start + _BLOCK, columns)
            a, b = base_RC[r, start:stop], tuned_RC[r, start:stop]
            found = _places32(a, b, counts)
            _values(a.view(np.float32), b.view(np.float32), found, counts, squares)
            _touch(a, b, touched_C[start:stop], np.uint32(0x7FFFFFFF))
            differ += found
            if blocks % every == 0:
                _exponents(a, binades)
            blocks += 1
        touched_rows += differ > 0
    return touched_rows
