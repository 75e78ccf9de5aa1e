"""`noise.py` compiled by numba: hash, popcount and sum of eight or sixteen entries at a time, in one pass.

Fused multiply-adds stay off, so that the bits are those of the plain form. The interpreter's lock is released.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numba.extending import intrinsic


def _intrinsic(function: Any) -> Any:
    """numba's, which type checkers take for the function it is given."""
    return intrinsic(function)


@_intrinsic
def _ones(context, bits):  # type: ignore[no-untyped-def]
    """How many bits are set."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.ctpop(args[0])

    return bits(bits), generate


@njit(nogil=True, cache=True)
def add(part_RC, total_RC, scale_R, first, second, top, left, columns):  # type: ignore[no-untyped-def]
    """A part of the matrix plus its noise, in `total_RC` (`part_RC` itself, or apart); float32, rows contiguous."""
    u, i = np.uint32, np.int32  # each step is narrowed again, since numba widens
    for r in range(len(part_RC)):
        row, total, scale = part_RC[r], total_RC[r], scale_R[r]
        start = u(u((top + r) * columns + left) + first)
        for c in range(len(row)):
            h = u(start + u(c))
            h = u(h ^ (h >> u(16)))
            h = u(u(h * u(0x7FEB352D)) ^ second)
            h = u(h ^ (h >> u(15)))
            h = u(h * u(0x846CA68B))
            h = u(h ^ (h >> u(16)))
            k = i(i(_ones(u(h >> u(12)))) << i(6))
            k = i(k + i(u(h >> u(6)) & u(63)))
            k = i(k + i(h & u(63)))
            total[c] = row[c] + np.float32(i(k - i(703))) * scale
