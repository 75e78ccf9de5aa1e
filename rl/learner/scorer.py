"""One way through the model, from packed rows to log-probs: the module that a single process and FSDP both run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ...kernels.logprob import token_logprobs
from ...kernels.packing import Packing
from ..algorithms.base import Outputs
from .dropout import Dropout
from .policy import head
from .values import Values

if TYPE_CHECKING:
    from .packed import PackedDecoder
    from .padded import PaddedDecoder


class Scorer(nn.Module):
    """Log-probs of the completion tokens of packed rows. All that reads a parameter happens inside `forward`."""

    def __init__(self, base: nn.Module, decoder: PackedDecoder | PaddedDecoder, critic: Values | None = None) -> None:
        """`decoder` reads the causal language model `base`; `critic` gives the values, where any are wanted."""
        super().__init__()
        self.base = base
        self.critic = critic
        self._decoder = decoder

    def forward(
        self,
        packed: Packing,
        dropout: Dropout | None,
        *,
        entropy: bool = False,
        entropy_grad: bool = False,
        values: bool = False,
        rivals: bool = False,
    ) -> Outputs:
        """What is asked for (with the entropies' gradients where those are), in the packing's order."""
        hidden_CH = self._decoder(packed, dropout)
        weight_VH, bias_V, temperature, softcap = head(self.base)
        read = token_logprobs(
            hidden_CH,
            weight_VH,
            torch.from_numpy(packed.targets_C).to(hidden_CH.device),
            bias_V=bias_V,
            temperature=temperature,
            softcap=softcap,
            entropy=entropy,
            entropy_grad=entropy_grad,
            rivals=rivals,
        )
        value_T = self.critic(hidden_CH, packed, dropout) if values and self.critic is not None else None
        return Outputs(read.logp_T, read.entropy_T, value_T, read.rival_logp_T)

    def layers(self) -> list[Any]:
        """The decoder's layers, where the model has such, and the critic's own."""
        own = [] if self.critic is None else self.critic.layers()
        return [*getattr(self.base.get_decoder(), "layers", ()), *own]  # type: ignore[operator]

    def enter_layers(self) -> None:
        """From now on go through each layer as a module, so that hooks on it run."""
        self._decoder.enter_layers()
        if self.critic is not None:
            self.critic.enter_layers()
