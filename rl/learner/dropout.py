"""Dropout masks that depend on a seed and a place only, so that a resume, and a recomputed layer, meet the same."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...records import derive_seed

LEVELS = 1 << 16
"""Masks compare 16 random bits: four entries from one 64-bit draw; a share is met to within 1/131,072."""


@dataclass(frozen=True)
class Dropout:
    """The masks of one micro-batch."""

    seed: int

    def at(self, *place: int | str) -> Dropout:
        """The masks of one place in the model."""
        return Dropout(derive_seed(self.seed, *place))

    def kept(self, like: Tensor, share: float) -> tuple[Tensor, float]:
        """A uint8 mask of `like`'s shape, 1 where an entry is kept, and the exact probability of that."""
        threshold = round(share * LEVELS)
        generator = torch.Generator(device=like.device).manual_seed(self.seed)
        words = torch.empty(-(-like.numel() // 4), dtype=torch.int64, device=like.device)
        words.random_(-(2**63), None, generator=generator)
        bits = words.view(torch.int16)[: like.numel()].view(like.shape)
        mask = torch.empty(like.shape, dtype=torch.uint8, device=like.device)
        return torch.ge(bits, threshold - LEVELS // 2, out=mask), 1 - threshold / LEVELS
