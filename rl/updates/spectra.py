"""Ranks and singular values of an update."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SHOWN = 128
"""Singular values that a spectrum keeps, spread evenly over all."""
_ROWS = 8192


@dataclass(frozen=True)
class Spectrum:
    """The singular values of one matrix."""

    full: int
    """The largest rank that its shape allows."""
    numerical_rank: int
    """Singular values above the largest times the longer side times float32's epsilon (numpy's and torch's rule)."""
    effective_rank: float
    """exp of the entropy of the singular values as shares of their sum (Roy and Vetterli 2007); 0 of no update."""
    values: tuple[float, ...]
    """At most `SHOWN` of them, descending, the first and the last among them."""


def spectrum(delta: Tensor) -> Spectrum:
    """The spectrum of a matrix [rows, columns], by the eigenvalues of its Gram matrix in float64.

    Singular values below 1e-8 of the largest are noise then; the rank's bound is at least ten times that.
    """
    tall = delta if delta.shape[0] >= delta.shape[1] else delta.T
    gram = torch.zeros(tall.shape[1], tall.shape[1], dtype=torch.float64, device=delta.device)
    for start in range(0, tall.shape[0], _ROWS):
        part = tall[start : start + _ROWS].double()
        gram.addmm_(part.T, part)
    values = torch.linalg.eigvalsh(gram).clamp_(min=0).sqrt_().flip(0)
    total, top = float(values.sum()), float(values[0]) if len(values) else 0.0
    if total == 0:
        return Spectrum(len(values), 0, 0.0, ())
    bound = top * max(delta.shape) * torch.finfo(torch.float32).eps
    shares = values[values > 0] / total
    places = torch.linspace(0, len(values) - 1, min(SHOWN, len(values))).round().long()
    return Spectrum(
        full=len(values),
        numerical_rank=int((values > bound).sum()),
        effective_rank=float(torch.exp(-(shares * shares.log()).sum())),
        values=tuple(float(value) for value in values[places]),
    )
