"""What a decoder holds of a policy, as the proof of freshness compares it with the policy's own tensors.

The documented transformation: every tensor in the dtype of the first; Gemma's norms, which count from zero, as 1 + w in
float32 (`family.Shape.gemma`). Joined projections are taken apart again when they are read back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from ...kernels.digest import Digest
from .family import UnknownModelError, describe


class Expected:
    """The digest of what a decoder of the model `config` must hold, taken of the weights as they stream past."""

    def __init__(self, config: Any) -> None:
        """Nothing has passed yet."""
        try:
            self._gemma = describe(config).gemma
        except UnknownModelError:
            self._gemma = False
        self._digest = Digest()

    def watch(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """The same stream; each tensor counts as it passes."""
        dtype = None
        for name, tensor in weights:
            dtype = dtype or tensor.dtype
            self._digest.add(name, one_plus(tensor) if self._gemma and "norm" in name else tensor.to(dtype))
            yield name, tensor

    def hexdigest(self) -> str:
        """Of all that has passed."""
        return self._digest.hexdigest()


def one_plus(weight: Tensor) -> Tensor:
    """1 + w in float32, as transformers adds it."""
    return weight.float() + 1.0
