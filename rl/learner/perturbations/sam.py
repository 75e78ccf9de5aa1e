"""Sharpness-aware minimisation (Foret et al. 2020, arXiv 2010.01412), the reference point of the cheaper ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import Field

from .base import Perturbation, Perturbing, Site

if TYPE_CHECKING:
    from ..tally import Tally


class SAM(Perturbation):
    """Gradients at θ + ρ g/‖g‖, where g is the gradient at θ and θ all that is trained: two passes a step.

    The loss and the statistics are those of the first pass. Where g is zero or not finite there is no second one.
    """

    rho: float = Field(default=0.05, ge=0)
    """ρ, the Euclidean length of the move; 0 is no perturbation."""

    def build(self, site: Site) -> Perturbing:
        """Works wherever there is a gradient."""
        return _SAM(self.rho, site) if self.rho else Perturbing()


class _SAM(Perturbing):
    moves = True

    def __init__(self, rho: float, site: Site) -> None:
        self._rho, self._site = rho, site
        self._norm = 0.0

    def gradients(self, take: Callable[[Tally], float], tally: Tally, place: tuple[int, int, int]) -> float:
        """At θ, then at the move along what was found there."""
        from ..shifts import moved
        from ..tally import Tally

        loss = take(tally)
        norm = self._site.gradient_norm()
        self._norm = 0.0
        if norm > 0 and math.isfinite(norm):
            self._norm = self._rho
            factor = self._rho / norm
            moves = {name: tensor.grad * factor for name, tensor in self._site.policy if tensor.grad is not None}
            self._site.optimizer.zero_grad(set_to_none=True)
            with moved(self._site.masters, moves):
                take(Tally())
        return loss

    def stats(self) -> dict[str, float]:
        """ρ, or 0 where there was no second pass."""
        return {"perturbation/norm": self._norm}
