"""Keys and values of the rows that are being decoded, one preallocated block for all layers.

`kv` is [layer, row, key head, position, 2, head_dim]: a row's past is contiguous for each head, so that the scores of
all rows and heads are one batched product without a copy, and a row is moved or filled with one assignment.
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
    """A prompt that was computed once: its keys and values [layer, key head, P, 2, head_dim] and last output [H]."""

    kv: Tensor
    out: Tensor

    @property
    def length(self) -> int:
        """Tokens P of the prompt."""
        return self.kv.shape[2]


class Cache:
    """Rows 0 to `rows`, of which the scheduler keeps the first ones in use."""

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        self._sizes = (shape.layers, shape.kv_heads, shape.head_dim)
        self.kv = torch.zeros(shape.layers, 0, shape.kv_heads, 0, 2, shape.head_dim, dtype=dtype, device=device)

    @property
    def rows(self) -> int:
        """Rows there is room for."""
        return self.kv.shape[1]

    @property
    def length(self) -> int:
        """Positions a row has room for."""
        return self.kv.shape[3]

    def row_bytes(self, length: int) -> int:
        """Bytes that one row of `length` positions takes."""
        layers, heads, dim = self._sizes
        return layers * heads * dim * 2 * length * self.kv.element_size()

    def reserve(self, rows: int, length: int) -> None:
        """Make room for `rows` rows of `length` positions; what is there stays. Room grows in doubling steps."""
        if rows <= self.rows and length <= self.length:
            return
        if length > self.length:
            length = -(-max(length, 2 * self.length) // BLOCK) * BLOCK
        layers, heads, dim = self._sizes
        rows, length = max(rows, self.rows), max(length, self.length)
        # Zeros, not empty: a row reads the whole block, and what is masked must still be a number.
        grown = self.kv.new_zeros(layers, rows, heads, length, 2, dim)
        grown[:, : self.rows, :, : self.length] = self.kv
        self.kv = grown

    def seat(self, rows: Sequence[int], prefixes: Sequence[Prefix]) -> None:
        """Give each row its prompt's keys and values."""
        for prefix in {id(p): p for p in prefixes}.values():
            mine = [row for row, p in zip(rows, prefixes, strict=True) if p is prefix]
            self.kv[:, mine, :, : prefix.length] = prefix.kv[:, None]

    def keep(self, order: Sequence[int], length: int) -> None:
        """Row i becomes what row `order[i]` was, as far as `length` positions."""
        moved = [(to, origin) for to, origin in enumerate(order) if to != origin]
        if moved:
            to, origin = map(list, zip(*moved, strict=True))
            self.kv[:, to, :, :length] = self.kv[:, origin, :, :length]
