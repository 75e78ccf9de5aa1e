"""No mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .base import Mask

if TYPE_CHECKING:
    from torch import Tensor


class NONE(Mask):
    """All weights that the adapter trains are trained. (`None` is taken.)"""

    def choose(self, base: Mapping[str, Tensor], seed: int) -> None:
        """All."""
