"""The adapter's products on a CPU: two matrix products for all tokens, since there is one adapter.

vLLM 0.32's own serve many adapters, by a copy of A and of B for every token. At the demo's size that was 60 % of the
time, and 4,096 tokens of prompts through a projection of 8,960 inputs at rank 32 would take 4.7 GB.
In a pass with both kinds they also take a token without adapter, slot -1, for one of the last slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MethodType
from typing import Any

from torch import Tensor


def install(wrapper: Any) -> None:
    """Give `wrapper`, a `PunicaWrapperCPU` with one slot, these products."""
    wrapper.add_lora_linear = MethodType(add_lora_linear, wrapper)


def add_lora_linear(
    wrapper: Any,
    y_TO: Tensor,
    x_TI: Tensor,
    downs: Sequence[Tensor],
    ups: Sequence[Tensor],
    scale: float,
    widths: Sequence[int],
) -> None:
    """`y += scale B A x` in place, for the tokens that run under the adapter; in float32, then rounded once.

    `downs` [1, 1, R, I] and `ups` [1, 1, o, R] are those of each of the joined projections, whose outputs `widths` long
    stand in `y` one after another.
    """
    under_T = wrapper.token_lora_indices >= 0
    wide_TI = x_TI.float() if under_T.all() else x_TI.float() * under_T[:, None]
    start = 0
    for down, up, width in zip(downs, ups, widths, strict=True):
        delta_To = (wide_TI @ down[0, 0].float().t()) @ up[0, 0].float().t()
        y_TO[:, start : start + width] += scale * delta_To
        start += width
