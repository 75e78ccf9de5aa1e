"""Keys and values of the rows that are being decoded, preallocated for all layers.

A row's past is one block for each head: its keys as [position, head_dim], its values as [head_dim, position]. So both
products of attention read memory in order, for all rows and heads at once, without a copy. Everything outside sees
[layer, row, key head, position, head_dim].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .family import Shape

BLOCK = 32
"""Positions are handed out in blocks: products of the same size again and again are set up once."""


@dataclass(frozen=True)
class Prefix:
    """A prompt that was computed once: keys and values [layer, key head, P, head_dim], and the last output [H]."""

    keys: Tensor
    values: Tensor
    out: Tensor

    @property
    def length(self) -> int:
        """Tokens P of the prompt."""
        return self.keys.shape[2]


class Cache:
    """Room for `rows` rows, of which the scheduler keeps the first ones in use."""

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        self._sizes = (shape.layers, shape.kv_heads, shape.head_dim)
        self.keys, self.values = self._room(torch.zeros(0, dtype=dtype, device=device), 0, 0)

    @property
    def rows(self) -> int:
        """Rows there is room for."""
        return self.keys.shape[1]

    @property
    def length(self) -> int:
        """Positions a row has room for."""
        return self.keys.shape[3]

    def row_bytes(self, length: int) -> int:
        """Bytes that one row of `length` positions takes."""
        layers, heads, dim = self._sizes
        return layers * heads * dim * 2 * length * self.keys.element_size()

    def reserve(self, rows: int, length: int) -> None:
        """Make room for `rows` rows of `length` positions; what is there stays. Positions grow in doubling steps."""
        if rows <= self.rows and length <= self.length:
            return
        if length > self.length:
            length = -(-max(length, 2 * self.length) // BLOCK) * BLOCK
        grown = self._room(self.keys, max(rows, self.rows), max(length, self.length))
        for new, old in zip(grown, (self.keys, self.values), strict=True):
            new[:, : self.rows, :, : self.length] = old
        self.keys, self.values = grown

    def seat(self, rows: Sequence[int], prefixes: Sequence[Prefix]) -> None:
        """Give each row its prompt's keys and values."""
        for prefix in {id(p): p for p in prefixes}.values():
            mine = [row for row, p in zip(rows, prefixes, strict=True) if p is prefix]
            self.keys[:, mine, :, : prefix.length] = prefix.keys[:, None]
            self.values[:, mine, :, : prefix.length] = prefix.values[:, None]

    def keep(self, order: Sequence[int], length: int) -> None:
        """Row i becomes what row `order[i]` was, as far as `length` positions."""
        moved = [(to, origin) for to, origin in enumerate(order) if to != origin]
        if moved:
            to, origin = map(list, zip(*moved, strict=True))
            for block in (self.keys, self.values):
                block[:, to, :, :length] = block[:, origin, :, :length]

    def _room(self, like: Tensor, rows: int, length: int) -> tuple[Tensor, Tensor]:
        """Zeros, not empty: a row reads the whole block, and what is masked must still be a number."""
        layers, heads, dim = self._sizes
        keys = like.new_zeros(layers, rows, heads, length, dim)
        values = like.new_zeros(layers, rows, heads, dim, length)
        return keys, values.transpose(3, 4)
