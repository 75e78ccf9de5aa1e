"""The critic's module: from packed rows to the value of the state before each completion token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ...kernels.packing import Packing
from .dropout import Dropout

if TYPE_CHECKING:
    from .packed import PackedDecoder
    from .padded import PaddedDecoder


class Values(nn.Module):
    """A linear head in float32 on hidden states: the policy's, or those of a trunk of the critic's own.

    The head begins at zero, so that the first advantages are the returns themselves and no random value misleads them.
    """

    def __init__(
        self, width: int, trunk: nn.Module | None = None, decoder: PackedDecoder | PaddedDecoder | None = None
    ) -> None:
        """`decoder` reads `trunk`, where there is one; hidden states have `width` entries."""
        super().__init__()
        self.weight_1H = nn.Parameter(torch.zeros(1, width))
        self.bias_1 = nn.Parameter(torch.zeros(1))
        self.trunk = trunk
        self._decoder = decoder

    def forward(self, hidden_CH: Tensor, packed: Packing, dropout: Dropout | None) -> Tensor:
        """value_T float32, of the states in which each of the packing's completion tokens was chosen."""
        if self._decoder is not None:
            hidden_CH = self._decoder(packed, None if dropout is None else dropout.at("critic"))
        return linear(hidden_CH.float(), self.weight_1H, self.bias_1)[:, 0]

    def layers(self) -> list[Any]:
        """The layers of its own trunk, where it has one."""
        return [] if self.trunk is None else list(getattr(self.trunk.get_decoder(), "layers", ()))  # type: ignore[operator]

    def enter_layers(self) -> None:
        """See `PackedDecoder.enter_layers`."""
        if self._decoder is not None:
            self._decoder.enter_layers()
