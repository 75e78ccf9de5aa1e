"""How sharply a loss is curved: products with its Hessian by double backward, and the largest eigenvalue from them.

The forward must be one that autograd can differentiate twice. The learner's own is not (its fused layers give first
derivatives only), so `loss` is that of a plain transformers model; see `rl/landscape.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""v [N] -> H v [N]."""


@dataclass(frozen=True)
class Eigenvalue:
    """The largest eigenvalue found, and how well: `residual` is |H v - value v| over |value|, of the unit vector v."""

    value: float
    residual: float
    products: int


def gradient(loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> Tensor:
    """[N], in the order of the parameters, flattened."""
    return _flat(torch.autograd.grad(loss(), parameters))


def hessian_product(loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> Product:
    """Products with the Hessian of `loss` where the parameters are now; the graph of the gradient is kept for all."""
    first_N = _flat(torch.autograd.grad(loss(), parameters, create_graph=True))

    def product(v_N: Tensor) -> Tensor:
        return _flat(torch.autograd.grad(first_N, parameters, grad_outputs=v_N, retain_graph=True)).detach()

    return product


def largest_eigenvalue(product: Product, start_N: Tensor, *, products: int, tolerance: float) -> Eigenvalue:
    """The algebraically largest eigenvalue of a symmetric matrix by power iteration from `start_N`.

    Power iteration finds the eigenvalue of the largest magnitude. Away from a minimum that may be negative, or two of
    one magnitude and both signs hold each other up (as where B is 0: the loss is then linear in A B). So where a first
    iteration ends below zero or has not settled, a second goes on from there on H + c I, c the magnitude that the
    first found; it has the same number of products to spend.

    Args:
        products: products with the matrix at most, in each of the two.
        tolerance: stop when `residual` is below it.
    """
    found, v_N, length = _iterate(product, start_N, 0.0, products, tolerance)
    if length == 0 or (found.value > 0 and found.residual <= tolerance):
        return found
    mixed_N = v_N + start_N / start_N.norm()  # v alone may be the eigenvector that is to be left
    again, _, _ = _iterate(product, mixed_N, length, products, tolerance)
    return Eigenvalue(again.value, again.residual, found.products + again.products)


def _iterate(
    product: Product, start_N: Tensor, shift: float, products: int, tolerance: float
) -> tuple[Eigenvalue, Tensor, float]:
    """Power iteration on H + shift I: the Rayleigh quotient and residual of H at the last vector, it, and |H v|."""
    v_N, done = start_N / start_N.norm(), 0
    while True:
        image_N = product(v_N)
        done += 1
        value, length = float(v_N @ image_N), float(image_N.norm())
        gap = float((image_N - value * v_N).norm())
        residual = gap / abs(value) if value else 0.0 if gap == 0 else float("inf")
        turned_N = image_N + shift * v_N
        size = float(turned_N.norm())
        if residual <= tolerance or done == products or size == 0:
            return Eigenvalue(value, residual, done), v_N, length
        v_N = turned_N / size


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
