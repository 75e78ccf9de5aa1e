"""A cap on one token's KL, as Rewarding the Unlikely's code has it, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from underdog.parts import find
from underdog.rl.algorithms.base import MicroBatch, Outputs


def test_a_capped_kl_estimate_has_no_gradient_beyond_the_cap() -> None:
    """k3 of d = logp − ref: exp(−d) − 1 + d, cut off at 10; d = −3 gives 16.1, d = −1 gives 0.718."""
    zeros_T = torch.zeros(2, dtype=torch.float64)
    logp_T = torch.tensor([-4.0, -2.0], dtype=torch.float64, requires_grad=True)
    old_T = logp_T.detach()
    row_T, ref_T = torch.zeros(2, dtype=torch.int64), old_T + torch.tensor([3, 1])
    micro = MicroBatch(zeros_T, torch.ones_like(zeros_T), old_T, row_T, 1, ref_logp_T=ref_T)
    loss, stats = find("algorithm", "grpo")(kl=0.5, kl_cap=10.0).loss(Outputs(logp_T), micro)
    loss.backward()
    assert stats["kl"].tolist() == pytest.approx([10.0, math.e - 2])
    assert logp_T.grad is not None
    assert logp_T.grad.tolist() == pytest.approx([0.0, 0.5 * (1 - math.e)])
    assert find("algorithm", "grpo")().kl_cap is None
