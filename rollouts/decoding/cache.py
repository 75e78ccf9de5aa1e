"""Keys and values of the rows that are being decoded.

Each layer holds [row, key head, position, head_dim] and is always cut to the length in use: attention then reads it as
one batch of products without gaps, which is more than twice as fast as reading a part of a longer block (the gaps
break the processor's reading ahead), and pays for the copies when the rows have grown by a block of positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .family import Shape

BLOCK = 32
"""Positions are added in blocks of this many."""


@dataclass(frozen=True)
class Prefix:
    """A prompt that was computed once: keys and values [layer, key head, P, head_dim], and the last output [H]."""

    keys: Tensor
    values: Tensor
    out: Tensor


class Cache:
    """Room for `rows` rows of `length` positions, of which the scheduler keeps the first rows in use."""

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        self._shape, self._dtype, self._device = shape, dtype, device
        self.rows = self.length = 0
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.release()

    def release(self) -> None:
        """Give the memory back."""
        self.rows = self.length = 0
        empty = torch.zeros(0, self._shape.kv_heads, 0, self._shape.head_dim, dtype=self._dtype, device=self._device)
        self.keys = [empty] * self._shape.layers
        self.values = [empty] * self._shape.layers

    def row_bytes(self, length: int) -> int:
        """Bytes that one row of `length` positions takes."""
        s = self._shape
        return 2 * s.layers * s.kv_heads * s.head_dim * length * self._dtype.itemsize

    def fit(self, rows: int, length: int) -> None:
        """Cut to `length` positions, all that any row uses, with room for at least `rows` rows."""
        blocks = -(-length // BLOCK)
        spare = self.length // BLOCK - blocks
        if rows <= self.rows and spare in (0, 1):
            return
        self.rows, self.length = max(rows, self.rows), blocks * BLOCK
        for blocks_of_layers in (self.keys, self.values):
            for i, old in enumerate(blocks_of_layers):
                blocks_of_layers[i] = self._recut(old)

    def seat(self, rows: Sequence[int], prefixes: Sequence[Prefix]) -> None:
        """Give each row its prompt's keys and values."""
        for prefix in {id(p): p for p in prefixes}.values():
            mine = [row for row, p in zip(rows, prefixes, strict=True) if p is prefix]
            length = prefix.keys.shape[2]
            for i in range(self._shape.layers):
                self.keys[i][mine, :, :length] = prefix.keys[i]
                self.values[i][mine, :, :length] = prefix.values[i]

    def keep(self, order: Sequence[int]) -> None:
        """Row i becomes what row `order[i]` was."""
        moved = [(to, origin) for to, origin in enumerate(order) if to != origin]
        if not moved:
            return
        to, origin = map(list, zip(*moved, strict=True))
        for block in (*self.keys, *self.values):
            block[to] = block[origin]

    def _recut(self, old: Tensor) -> Tensor:
        new = torch.empty(self.rows, old.shape[1], self.length, old.shape[3], dtype=old.dtype, device=old.device)
        rows, length = old.shape[0], min(old.shape[2], self.length)
        new[:rows, :, :length] = old[:, :, :length]
        # A row reads the whole block, and what is masked must still be a number.
        new[:rows, :, length:] = 0
        new[rows:] = 0
        return new
