from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from underdog.kernels import attention


@pytest.mark.parametrize("window", [None, 1, 50, 500])
@pytest.mark.parametrize("length", [1, 63, 150, 300])
@pytest.mark.parametrize("share", [1, 3])
def test_values_and_gradients_equal_torch(length, share, window):
    """Lengths of one block and of several, with kept and with recomputed probabilities."""
    assert attention.BLOCK < 150
    assert 150 < attention.KEPT < 300
    torch.manual_seed(length)
    shapes = [(2, length, 2 * share, 8), (2, length, 2, 8), (2, length, 2, 8)]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    at = torch.arange(length)
    back = at[:, None] - at
    seen = (back >= 0) & (back < (window or length))
    q, k, v = (x.transpose(1, 2) for x in inputs)
    plain = scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=0.7, enable_gqa=True).transpose(1, 2)
    ours = attention.causal_attention(*inputs, scale=0.7, window=window)
    torch.testing.assert_close(ours, plain)
    sent = torch.randn_like(plain)
    expected = torch.autograd.grad(plain, inputs, sent)
    for a, b in zip(torch.autograd.grad(ours, inputs, sent), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_bfloat16_is_as_near_float64_as_torch_is():
    torch.manual_seed(0)
    exact = [torch.randn(3, 130, 4, 16, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    narrow = [x.detach().bfloat16().requires_grad_(True) for x in exact]
    sent = torch.randn(3, 130, 4, 16, dtype=torch.float64)

    def plain(q, k, v):
        return scaled_dot_product_attention(
            *(x.transpose(1, 2) for x in (q, k, v)), is_causal=True, scale=0.25
        ).transpose(1, 2)

    def ours(q, k, v):
        return attention.causal_attention(q, k, v, scale=0.25)

    results = []
    for function, inputs in ((plain, exact), (plain, narrow), (ours, narrow)):
        out = function(*inputs)
        results.append([out, *torch.autograd.grad(out, inputs, sent.to(out.dtype))])
    for truth, torchs, own in zip(*results, strict=True):
        assert (own - truth).abs().mean() < 2 * (torchs - truth).abs().mean()
