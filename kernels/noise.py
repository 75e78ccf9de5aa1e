"""Seeded noise for a matrix: independent entries, nearly Gaussian, each a function of the seed and its place alone.

Nothing is stored: whoever knows the seed makes the same noise again, in a backward pass, in a recomputed layer, on
another device, or for a part of the matrix only. A 32-bit hash h of the place (Wellons's `lowbias32`, with a word of
the seed before each of its two rounds) gives the integer

    k = 64 popcount(h >> 12) + (h >> 6 & 63) + (h & 63) - 703,

the sum of twenty coins and two uniforms that fill the gaps between their sums. Its mean is 0 and its variance 21162.5,
both exactly; it is symmetric, its excess kurtosis is -0.094 and its largest value 4.8 standard deviations; its
distribution function is within 0.004 of the Gaussian's. An entry is float32(k) times its row's scale, in float32: the
compiled forms for CPUs and GPUs and the plain one for every device give the same bits.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .gpu.device import takes

DEVIATION = math.sqrt(64**2 * 20 / 4 + 2 * (64**2 - 1) / 12)
"""The standard deviation of k."""
_WORD = 0xFFFFFFFF


class Noise(NamedTuple):
    """The noise of one matrix: entry (i, j) has mean 0 and standard deviation `std_R[i]`."""

    seed: int
    """Below 2**63."""
    std_R: Tensor
    """float32, on the matrix's device."""
    columns: int
    """Of the whole matrix, whose entries number below 2**32."""

    def added(self, part: Tensor, top: int = 0, left: int = 0, dtype: torch.dtype | None = None) -> Tensor:
        """A part of the matrix, from row `top` and column `left` on, plus its noise.

        The sum is float32, or wider as `part` is; it leaves so, or rounded once to `dtype`.
        """
        if takes(part):
            wide = torch.promote_types(part.dtype, torch.float32)
            return self._sum(part, part.new_empty(part.shape, dtype=dtype or wide), top, left)
        total = self._added(part, top, left)
        return total if dtype is None else total.to(dtype)

    def _added(self, part: Tensor, top: int, left: int) -> Tensor:
        if part.device.type == "cpu" and part.dtype == torch.float32 and part.is_contiguous():
            return self._compiled_sum(part, torch.empty_like(part), top, left)
        wide = torch.promote_types(part.dtype, torch.float32)
        return self.add_(part.to(wide, copy=True, memory_format=torch.contiguous_format), top, left)

    def add_(self, part: Tensor, top: int = 0, left: int = 0) -> Tensor:
        """The same in place; `part` is float32 or wider, its rows contiguous."""
        if takes(part):
            return self._sum(part, part, top, left)
        if part.device.type == "cpu" and part.dtype == torch.float32:
            return self._compiled_sum(part, part, top, left)
        scale_R = self.std_R[top : top + len(part)] / DEVIATION
        rows = torch.arange(top, top + len(part), device=part.device)
        columns = torch.arange(left, left + part.shape[1], device=part.device)
        noise = integers(self.seed, rows[:, None] * self.columns + columns).float() * scale_R[:, None]
        return part.add_(noise)

    def _sum(self, part: Tensor, total: Tensor, top: int, left: int) -> Tensor:
        """`part` plus its noise, in one pass on the GPU, in `total`, which may be `part` itself."""
        from .gpu.noise import add

        scale_R = self.std_R[top : top + len(part)] / DEVIATION
        return add(part.detach(), total, scale_R, keys(self.seed), top, left, self.columns)

    def _compiled_sum(self, part: Tensor, total: Tensor, top: int, left: int) -> Tensor:
        """`part` plus its noise, in one pass, in `total`, which may be `part` itself."""
        scale_R = self.std_R[top : top + len(part)] / DEVIATION
        first, second = map(np.uint32, keys(self.seed))
        whole = np.from_dlpack(part.detach())  # .numpy() would keep FSDP from freeing what it had gathered
        _compiled()(whole, total.numpy(), scale_R.numpy(), first, second, top, left, self.columns)
        return total


def keys(seed: int) -> tuple[int, int]:
    """The two words of the hash, both of which change with any bit of the seed (Steele et al. 2014, SplitMix64)."""
    word = (seed + 0x9E3779B97F4A7C15) % 2**64
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
    word ^= word >> 31
    return word & _WORD, word >> 32


def integers(seed: int, place: Tensor) -> Tensor:
    """k of each place in the matrix (int64, its number row by row): the plain form, on any device."""
    first, second = keys(seed)
    h = (place + first) & _WORD
    h = ((h ^ (h >> 16)) * 0x7FEB352D & _WORD) ^ second
    h = (h ^ (h >> 15)) * 0x846CA68B & _WORD
    h = h ^ (h >> 16)
    ones = h >> 12
    ones = ones - (ones >> 1 & 0x55555)
    ones = (ones & 0x33333) + (ones >> 2 & 0x33333)
    ones = ones + (ones >> 4) & 0x0F0F0F
    ones = ones + (ones >> 8) + (ones >> 16) & 0x1F
    return (ones << 6) + (h >> 6 & 63) + (h & 63) - 703


@cache
def _compiled() -> Any:
    """The form for CPUs; numba is imported when it is first wanted."""
    from .noise_cpu import add

    return add
