"""The weights that an earlier run changed (Mukherjee et al. 2025, arXiv 2505.11711, section 4.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from .base import Mask, changed_by

if TYPE_CHECKING:
    from torch import Tensor


class Updates(Mask):
    """The subnetwork that another run of the same model ended up changing."""

    run: str
    """That run: RUN (its newest checkpoint), RUN@STEP or RUN@best."""
    tolerance: float = Field(default=0.0, ge=0)
    """Only weights that moved further than this."""
    dtype: Literal["stored", "float32"] = "stored"
    """By the stored weights, or by the float32 ones before rounding."""

    def choose(self, base: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
        """What changed."""
        return dict(changed_by(self.run, base, self.tolerance, self.dtype))
