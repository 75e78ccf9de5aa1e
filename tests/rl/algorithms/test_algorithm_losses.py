"""The losses a token: KL estimators as values and as gradients, clipping, correction, sums over rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from underdog.rl.algorithms.losses import (
    clipped_surrogate,
    clipped_weight,
    kl_estimate,
    likelihood_ratio,
    mismatch_weight,
    row_mean,
    row_sum,
)


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def policies() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a policy and of a reference over six actions: expectations are sums over all of them."""
    generator = torch.Generator().manual_seed(3)
    logits, reference = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), reference


def divergence(p_logits: torch.Tensor, q_logits: torch.Tensor) -> torch.Tensor:
    p, q = p_logits.log_softmax(0), q_logits.log_softmax(0)
    return (p.exp() * (p - q)).sum()


def expected(estimator, logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """The estimator's expectation over samples of the policy, which are held fixed as in a loss."""
    logp = logits.log_softmax(0)
    return (logp.exp().detach() * kl_estimate(logp, reference.log_softmax(0), estimator)).sum()


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_k1_and_k3_are_unbiased_values(estimator, policies) -> None:
    assert expected(estimator, *policies).item() == pytest.approx(divergence(*policies).item(), rel=1e-12)


def test_k2_is_a_biased_value(policies) -> None:
    assert expected("k2", *policies).item() != pytest.approx(divergence(*policies).item(), rel=1e-2)


def test_the_expected_gradients_are_none_the_kl_and_the_other_kl(policies) -> None:
    """As the docstring says: k1 nothing, k2 KL(policy ‖ reference), k3 KL(reference ‖ policy)."""
    logits, reference = policies

    def gradient(value: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(value, logits)[0]

    torch.testing.assert_close(gradient(expected("k1", *policies)), torch.zeros_like(logits), atol=1e-12, rtol=0)
    torch.testing.assert_close(gradient(expected("k2", *policies)), gradient(divergence(logits, reference)))
    torch.testing.assert_close(gradient(expected("k3", *policies)), gradient(divergence(reference, logits)))


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=9))
def test_k3_is_never_negative_in_float32(differences: list[float]) -> None:
    d = torch.tensor(differences, dtype=torch.float32)
    assert (kl_estimate(d, torch.zeros_like(d), "k3") >= 0).all()


def test_k3_keeps_its_digits_near_the_reference() -> None:
    d = torch.tensor([1e-4, 1e-3], dtype=torch.float32)
    k3 = kl_estimate(d, torch.zeros(2), "k3")
    torch.testing.assert_close(k3, d.square() / 2, rtol=1e-3, atol=0)


def test_clipping_follows_the_advantages_sign() -> None:
    ratio = vector(1.5, 1.5, 0.5, 0.5, 1.0).requires_grad_()
    advantage = vector(2.0, -2.0, 2.0, -2.0, 2.0)
    loss, stats = clipped_surrogate(ratio, advantage, 0.2, 0.28)
    torch.testing.assert_close(loss, vector(-2.56, 3.0, -1.0, 1.6, -2.0))
    loss.sum().backward()
    torch.testing.assert_close(ratio.grad, vector(0, 2, -2, 0, -2))
    assert stats["clip_ratio/high_mean"].tolist() == [1, 0, 0, 0, 0]
    assert stats["clip_ratio/low_mean"].tolist() == [0, 0, 0, 1, 0]


def test_a_clipped_weight_leaves_every_token_its_gradient() -> None:
    logp = vector(-1, -2, -3).requires_grad_()
    loss, stats = clipped_weight(vector(9.0, 0.1, 1.0), vector(1, 1, -2), logp, 1.0, 4.0)
    loss.sum().backward()
    torch.testing.assert_close(logp.grad, vector(-5.0, -0.1, 2.0))
    assert stats["clip_ratio/high_mean"].tolist() == [1, 0, 0]
    assert stats["clip_ratio/low_mean"].tolist() == [0, 0, 0]


def test_mismatch_truncates_or_masks_and_says_so() -> None:
    old, engine = vector(-1.0, -1.0, -1.0), vector(-3.0, -1.0, -0.5)
    ratio = (old - engine).exp()
    for mismatch, first in (("truncate", 2.0), ("mask", 0.0)):
        weight, stats = mismatch_weight(old, engine, mismatch, 2.0)  # type: ignore[arg-type]
        torch.testing.assert_close(weight, torch.cat([vector(first), ratio[1:]]))
        torch.testing.assert_close(stats["sampling/importance_sampling_ratio"], ratio.float())
        assert stats["sampling/masked_fraction"].tolist() == [1, 0, 0]


def test_a_huge_ratio_stays_finite() -> None:
    assert likelihood_ratio(torch.tensor([1e4, -1e4])).isfinite().all()


def test_rows_are_summed_whatever_their_order() -> None:
    row = torch.tensor([1, 0, 1, 1])
    values = vector(1, 10, 2, 3)
    torch.testing.assert_close(row_sum(values, row, 2), vector(6, 10, 6, 6))
    torch.testing.assert_close(row_mean(values, row, 2), vector(2, 10, 2, 2))
