"""How sharply a loss is curved: products with its Hessian by double backward, and the largest eigenvalue from them.

The forward must be one that autograd can differentiate twice. The learner's own is not (its fused layers give first
derivatives only), so `loss` is that of a plain transformers model; see `rl/landscape.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
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
    """The algebraically largest eigenvalue of a symmetric matrix, by Lanczos' iteration from `start_N`.

    Power iteration keeps the last of the vectors H^k v; this keeps them all, and takes the best that they span. It
    needs fewer products, and finds the largest eigenvalue also where a negative one is larger in size, or as large, on
    which power iteration settles, or never does. That is the rule away from a minimum: where B is 0 a loss is linear
    in A B, and its eigenvalues come in pairs of both signs. Vectors are orthogonalised in full, twice.

    Args:
        products: products with the matrix at most, and vectors held.
        tolerance: stop when `residual` is below it.
    """
    basis_KN = start_N.new_empty(products, len(start_N))
    basis_KN[0] = start_N / start_N.norm()
    small_KK = np.zeros((products, products))
    for k in range(products):
        image_N = product(basis_KN[k])
        small_KK[k, k] = float(basis_KN[k] @ image_N)
        for _ in range(2):
            image_N = image_N - basis_KN[: k + 1].t() @ (basis_KN[: k + 1] @ image_N)
        left = float(image_N.norm())
        values, vectors = np.linalg.eigh(small_KK[: k + 1, : k + 1])
        found = Eigenvalue(float(values[-1]), _relative(left * abs(float(vectors[-1, -1])), float(values[-1])), k + 1)
        if found.residual <= tolerance or k + 1 == products:
            break
        basis_KN[k + 1] = image_N / left
        small_KK[k, k + 1] = small_KK[k + 1, k] = left
    return found


def _relative(gap: float, value: float) -> float:
    return gap / abs(value) if value else 0.0 if gap == 0 else float("inf")


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
