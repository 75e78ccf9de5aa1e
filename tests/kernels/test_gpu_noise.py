"""GGPO's noise by its Triton kernel, under Triton's interpreter: the plain form's bits, alone and in LoRA layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

SEEDS = (0, 2**32 - 1, 2**63 - 1, 0x1234567890ABCDEF)


def plain(noise: Any, rows: int) -> torch.Tensor:
    """The documented formula, entry by entry."""
    from underdog.kernels.noise import DEVIATION, integers

    place = torch.arange(rows * noise.columns).view(rows, noise.columns)
    return integers(noise.seed, place).float() * (noise.std_R / DEVIATION)[:, None]


def check_coins() -> None:
    """At a deviation of one unit an entry is k itself; places up to the last one that the hash tells apart."""
    from underdog.kernels.noise import DEVIATION, Noise, integers

    columns, top, left = 2**16, 2**16 - 3, 2**16 - 70
    place = torch.arange(top, top + 3)[:, None] * columns + torch.arange(left, columns)
    assert place.max() == 2**32 - 1
    std_R = torch.full((2**16,), DEVIATION)
    assert (std_R / DEVIATION == 1).all()
    for seed in SEEDS:
        found = Noise(seed, std_R, columns).added(torch.zeros(3, 70), top, left)
        assert torch.equal(found, integers(seed, place).float())


def test_coins_are_the_same_integers(interpreted: Any) -> None:
    interpreted(check_coins)


def check_parts(dtype_name: str) -> None:
    """Odd sizes, parts, transposed matrices and sums in place; every bit, but in bfloat16 (see below)."""
    from underdog.kernels.noise import Noise

    torch.manual_seed(0)
    dtype = getattr(torch, dtype_name)
    weight, noise = torch.randn(7, 300).to(dtype), Noise(SEEDS[-1], torch.rand(7) + 0.1, 300)
    total = weight.to(torch.promote_types(dtype, torch.float32))
    total = total + plain(noise, 7)
    assert noise.added(weight).dtype == total.dtype
    assert torch.equal(noise.added(weight), total)
    assert torch.equal(noise.added(weight[2:, 31:], 2, 31), total[2:, 31:])
    assert torch.equal(noise.added(weight.t().contiguous().t()), total)
    if dtype.itemsize >= 4:
        there = weight.clone()
        assert noise.add_(there[3:], 3) is not None
        assert torch.equal(there, torch.cat([weight[:3], total[3:]]))
    assert torch.equal(noise.added(weight, dtype=torch.float16), total.to(torch.float16))
    if dtype != torch.float64:  # the interpreter has no way from there to bfloat16, and rounds to it towards zero
        rounded, exact = noise.added(weight, dtype=torch.bfloat16), total.to(torch.bfloat16)
        assert ((rounded.float() - exact.float()).abs() <= exact.float().abs() * 2**-7).all()
        assert (rounded == exact).float().mean() > 0.4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_sums_are_those_of_the_plain_form(interpreted: Any, dtype: str) -> None:
    interpreted(check_parts, dtype)


def check_layer(dtype_name: str, most: float) -> None:
    """y = x (W + noise)^T + b + s B A x, several tiles; gradients of x, A and B against float64 autograd."""
    from underdog.kernels.noise import Noise
    from underdog.rl.learner import lora_linear

    torch.manual_seed(1)
    dtype = getattr(torch, dtype_name)
    x, weight, bias = (torch.randn(shape).to(dtype) for shape in ((9, 21), (33, 21), (33,)))
    down, up, sent = torch.randn(4, 21), torch.randn(33, 4), torch.randn(9, 33).to(dtype)
    noise = Noise(7, torch.rand(33) + 0.1, 21)
    exact = [tensor.double().requires_grad_() for tensor in (x, down, up)]
    moved = weight.double() + plain(noise, 33).double()
    true = exact[0] @ moved.T + bias.double() + 0.5 * exact[0] @ exact[1].T @ exact[2].T
    true.backward(sent.double())
    leaves = [tensor.clone().requires_grad_() for tensor in (x, down, up)]
    frozen = lora_linear._Frozen([weight], [bias], [0.5], [noise])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lora_linear, "TILE", 200)
        (y,) = lora_linear._LoraLinears.apply(leaves[0], None, frozen, *leaves[1:])
        y.backward(sent)
    pairs = [(y, true), *((leaf.grad, one.grad) for leaf, one in zip(leaves, exact, strict=True))]
    for got, expected in pairs:
        assert (got.double() - expected).abs().max() / expected.abs().max() < most


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-6), ("bfloat16", 2e-2)])
def test_a_layer_computes_with_noise_forward_and_backward(interpreted: Any, dtype: str, most: float) -> None:
    interpreted(check_layer, dtype, most)
