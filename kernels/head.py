"""A language model's head, and what a pass over its logits is asked for and gives; the arithmetic is in `logprob.py`,
and for an NVIDIA GPU in `gpu/logprob.py`. Suffixes: T tokens, H hidden, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Want:
    """What to compute beside the log-probabilities. `slopes`: the gradients in the hidden states, for later."""

    entropy: bool
    entropy_grad: bool
    rivals: bool
    slopes: bool


@dataclass(frozen=True)
class Head:
    """The way from hidden states to logits. `scale` is one over the temperature."""

    weight_VH: Tensor
    bias_V: Tensor | None
    scale: float
    softcap: float | None

    def finish_(self, z: Tensor, bias: Tensor | None) -> Tensor | None:
        """Products become logits, in place. The bend is d logit / d product over `scale`, None for 1 everywhere."""
        if bias is not None:
            z.add_(bias)
        if self.softcap is None:
            if self.scale != 1:
                z.mul_(self.scale)
            return None
        z.div_(self.softcap).tanh_()
        bend = z.square().neg_().add_(1)
        z.mul_(self.softcap * self.scale)
        return bend

    def slope(self, tokens_T: Tensor, bend_T: Tensor | None) -> Tensor:
        """The gradient of one logit a token in its hidden state, over `scale`; in the wide dtype [T, H]."""
        row_TH = self.weight_VH[tokens_T].to(wide(self.weight_VH.dtype))
        return row_TH if bend_T is None else row_TH * bend_T[:, None]

    def chosen(self, hidden_TH: Tensor, tokens_T: Tensor) -> tuple[Tensor, Tensor | None]:
        """The chosen tokens' logits, as exact as float32 has them, and what `finish_` gives for these."""
        z_T = (hidden_TH * self.weight_VH[tokens_T].to(wide(hidden_TH.dtype))).sum(-1)
        return z_T, self.finish_(z_T, None if self.bias_V is None else self.bias_V[tokens_T])


class Reading(NamedTuple):
    """What a pass over the logits gives: numbers a token, and their gradients in the hidden state (the slopes)."""

    logp_T: Tensor
    lse_T: Tensor
    entropy_T: Tensor | None
    rival_logp_T: Tensor | None
    rival_T: Tensor | None
    logp_slope_TH: Tensor | None = None
    entropy_slope_TH: Tensor | None = None
    rival_slope_TH: Tensor | None = None


class HeadTerms(NamedTuple):
    """The gradient in the logits, times the scale: p (constant + linear log p), save at `places`."""

    lse_T: Tensor
    constant_T: Tensor
    linear_T: Tensor | None
    """None for 0 everywhere."""
    places: list[tuple[Tensor, Tensor]]
    """Ids, -1 for nowhere, and the gradients in their logits: of the chosen tokens, and of the rivals if there are."""


def wide(dtype: torch.dtype) -> torch.dtype:
    """That of all between the matrix products."""
    return torch.float64 if dtype == torch.float64 else torch.float32
