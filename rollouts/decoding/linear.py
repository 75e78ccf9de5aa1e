"""Projections, in the processor's own layout where that is quicker.

On a CPU a bfloat16 weight is also kept as oneDNN orders it for a batch of rows (what torch.compile does for frozen
weights). Products of small models then take a tenth to a half less time, and what follows them (a residual, an
activation, a factor) happens in the same pass, before the result leaves the registers. In float32 a plain product with
a weight that lies in memory as [in, out] is as quick or quicker (64 rows on an Intel core: 160 GFLOP/s against 90 to
130), and needs no second copy.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

PACKED_BYTES = 1 << 26
"""Largest weight that is kept twice: beyond it memory counts more than what is won."""
ROWS_HINT = 64
"""Rows of the products that the layout is chosen for; others work as well."""


class Linear:
    """`weight` [out, in] and `bias` [out] or None, to be written in place; call `pack` afterwards."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight, bias
        self.packed: Tensor | None = None

    def pack(self) -> None:
        """Order the weight anew from what is in it now."""
        if can_pack(self.weight):
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.contiguous(), ROWS_HINT)

    def intact(self) -> bool:
        """Whether the packed copy, where there is one, holds the weight's values."""
        return self.packed is None or torch.equal(self.packed.to_dense(), self.weight)

    def __call__(self, x_NI: Tensor) -> Tensor:
        """The product [N, out]."""
        if self.packed is None:
            return F.linear(x_NI, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(x_NI, self.packed, self.bias, "none", [], "")

    def added_to(self, residual_NO: Tensor, x_NI: Tensor) -> Tensor:
        """The residual plus the product [N, out], rounded once."""
        if self.packed is not None:
            return torch.ops.mkldnn._linear_pointwise.binary(x_NI, residual_NO, self.packed, self.bias, "add")
        if self.bias is not None:
            return residual_NO + self(x_NI)
        return torch.addmm(residual_NO, x_NI, self.weight.t())


class Gated:
    """`activation(x gate) * (x up)`, [N, inner]: one product, or two that end in the activation and the factor."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str) -> None:
        self.joined = Linear(weight, bias)
        gate_bias, up_bias = (None, None) if bias is None else bias.chunk(2)
        gate, up = weight.chunk(2)
        self._gate, self._up, self._activation = Linear(gate, gate_bias), Linear(up, up_bias), activation

    def pack(self) -> None:
        """Order the weights anew from what is in them now."""
        self._gate.pack()
        self._up.pack()

    def intact(self) -> bool:
        """Whether the packed copies, where there are any, hold the weights' values."""
        return self._gate.intact() and self._up.intact()

    def __call__(self, x_NH: Tensor) -> Tensor:
        """The gated product [N, inner]."""
        gate, up, silu = self._gate, self._up, self._activation == "silu"
        if gate.packed is not None and up.packed is not None:
            name, variant = ("swish", "") if silu else ("gelu", "tanh")
            active = torch.ops.mkldnn._linear_pointwise(x_NH, gate.packed, gate.bias, name, [], variant)
            return torch.ops.mkldnn._linear_pointwise.binary(x_NH, active, up.packed, up.bias, "mul")
        first, second = self.joined(x_NH).chunk(2, -1)
        active = F.silu(first) if silu else F.gelu(first, approximate="tanh")
        return active.mul_(second)


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN is there for this weight, and its size is worth it."""
    if weight.device.type != "cpu" or weight.nbytes > PACKED_BYTES or not torch.backends.mkldnn.is_available():
        return False
    return weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
