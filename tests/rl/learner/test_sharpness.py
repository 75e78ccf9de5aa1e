"""Hessian products and the largest eigenvalue against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from underdog.rl.learner.sharpness import gradient, hessian_product, largest_eigenvalue


def symmetric(values: list[float], seed: int) -> torch.Tensor:
    """A matrix of these eigenvalues."""
    generator = torch.Generator().manual_seed(seed)
    size = len(values)
    turn, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return turn @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ turn.T


@given(
    largest=st.floats(0.1, 100.0),
    rest=st.lists(st.floats(-0.9, 0.9), min_size=1, max_size=8),
    lowest=st.sampled_from([0.0, -0.5, -1.0, -3.0]),
    seed=st.integers(0, 99),
)
def test_the_largest_eigenvalue_even_where_a_negative_one_is_larger_in_size(
    largest: float, rest: list[float], lowest: float, seed: int
) -> None:
    matrix = symmetric([largest, lowest * largest, *(0.8 * share * largest for share in rest)], seed)
    start = torch.ones(len(matrix), dtype=torch.float64) + torch.arange(len(matrix)) / 10
    found = largest_eigenvalue(lambda v: matrix @ v, start, products=400, tolerance=1e-6)
    assert found.value == pytest.approx(largest, rel=1e-5)
    assert found.residual <= 1e-6


def test_where_all_are_negative_the_largest_is_the_one_nearest_to_zero() -> None:
    matrix = symmetric([-1.0, -2.0, -5.0], 0)
    found = largest_eigenvalue(lambda v: matrix @ v, torch.ones(3, dtype=torch.float64), products=300, tolerance=1e-6)
    assert found.value == pytest.approx(-1.0, rel=1e-5)


def test_few_products_say_how_far_they_came() -> None:
    matrix = symmetric([1.0, 0.99, -0.2], 3)
    found = largest_eigenvalue(lambda v: matrix @ v, torch.ones(3, dtype=torch.float64), products=2, tolerance=1e-6)
    assert found.products == 2
    assert found.residual > 1e-6
    # a Rayleigh quotient lies within the residual of some eigenvalue
    gaps = np.abs(np.linalg.eigvalsh(matrix.numpy()) - found.value)
    assert gaps.min() <= found.residual * abs(found.value)


def test_a_zero_matrix_has_no_curvature() -> None:
    found = largest_eigenvalue(torch.zeros_like, torch.ones(4), products=5, tolerance=0.01)
    assert (found.value, found.residual) == (0.0, 0.0)


def test_products_and_gradients_against_a_dense_hessian() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    own = list(model.parameters())
    sizes = [p.numel() for p in own]

    def at(flat: torch.Tensor) -> torch.Tensor:
        pieces = [piece.view_as(p) for piece, p in zip(flat.split(sizes), own, strict=True)]
        return (torch.tanh(x @ pieces[0].T + pieces[1]) @ pieces[2].T + pieces[3]).square().mean()

    flat = torch.cat([p.detach().reshape(-1) for p in own])
    dense = torch.autograd.functional.hessian(at, flat)
    product = hessian_product(lambda: model(x).square().mean(), own)
    columns = torch.stack([product(row) for row in torch.eye(len(flat), dtype=torch.float64)])
    assert torch.allclose(columns, dense, atol=1e-12)  # type: ignore[arg-type]
    (slope,) = torch.autograd.grad(at(flat.requires_grad_()), flat)
    assert torch.allclose(gradient(lambda: model(x).square().mean(), own), slope, atol=1e-12)
