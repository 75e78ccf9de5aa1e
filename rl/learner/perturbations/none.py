"""No perturbation."""

from __future__ import annotations

from .base import Perturbation, Perturbing, Site


class NONE(Perturbation):
    """Gradients are taken where the weights are. (`None` is taken.)"""

    def build(self, site: Site) -> Perturbing:
        """What takes gradients and does nothing else."""
        return Perturbing()
