"""LoRA-MGPO: gradients ahead of or behind the optimizer's momentum (arXiv 2502.14538, versions 2 and 3).

The paper and the code that its authors published are two methods; each is a `form` here. With m the first moment of
AdamW (decay `learner.optimizer.beta1`, the paper's μ), and nothing moved before there is one:

- `paper`: θ = (A, B) of all layers moves by ρ m/‖m‖ · 1/ḡ, one norm over all; ḡ ← β ḡ + (1 − β)‖∇θ‖, from the first
  step's norm on.
- `code`: the effective weight of each LoRA layer moves by −ρ v/‖v‖ · min(1/(ḡ + 1e-12), 10) along
  v = s(m_B A + B m_A); ḡ is that layer's own average of ‖s(∇B A + B ∇A)‖, and where there is none yet the last factor
  is 1.

Two things the published code does otherwise: it adds the move to the frozen weight and subtracts it again, which
drifts in bfloat16; and its averages see the gradients of unfinished accumulations. Here the move acts inside the
layer's product, norms come from products of the factors, and averages take whole, unclipped gradients, once a step.
A gradient that is not finite leaves them as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from .base import Perturbation, Perturbing, Site

if TYPE_CHECKING:
    from torch import nn

    from ..shifts import Turn
    from ..tally import Tally


class MGPO(Perturbation):
    """Momentum-guided perturbation: one pass a step, the move is where the optimizer is heading."""

    rho: float = Field(default=0.01, ge=0)
    """ρ, the length of the move before it is divided by ḡ; 0 is no perturbation (the authors: 0.05 for NLU)."""
    beta: float = Field(default=0.9, ge=0, lt=1)
    """Memory of ḡ, the average of gradient norms."""
    form: Literal["paper", "code"] = "paper"
    """Whether A and B move along m (paper), or effective weights against it, layer by layer, with a cap (code)."""

    def build(self, site: Site) -> Perturbing:
        """The paper's form takes any trained tensors; the code's needs our own LoRA layers.

        Raises:
            UserError: form `code` without them.
        """
        if not self.rho:
            return Perturbing()
        return _Paper(self, site) if self.form == "paper" else _Code(self, site)


class _Average:
    """ḡ."""

    def __init__(self, beta: float) -> None:
        self._beta = beta
        self.value: float | None = None

    def add(self, norm: float) -> None:
        if math.isfinite(norm):
            self.value = norm if self.value is None else self._beta * self.value + (1 - self._beta) * norm


class _Paper(Perturbing):
    moves = True

    def __init__(self, options: MGPO, site: Site) -> None:
        self._rho, self._site = options.rho, site
        self._average = _Average(options.beta)
        self._norm = 0.0

    def gradients(self, take: Callable[[Tally], float], tally: Tally, place: tuple[int, int, int]) -> float:
        """In one pass, at θ + ε."""
        from ..shifts import moved

        with moved(self._site.masters, self._moves()):
            loss = take(tally)
        self._average.add(self._site.gradient_norm())
        return loss

    def stats(self) -> dict[str, float]:
        """‖ε‖ = ρ/ḡ."""
        return {"perturbation/norm": self._norm}

    def state_dict(self) -> dict[str, Any]:
        """ḡ."""
        return {"tensors": {}, "json": {"average": self._average.value}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """ḡ."""
        self._average.value = state["json"]["average"]

    def _moves(self) -> dict[str, Any]:
        from torch.nn.utils import get_total_norm

        from ..sharded import full

        found = {name: self._site.moment(tensor) for name, tensor in self._site.policy}
        moments = {name: moment for name, moment in found.items() if moment is not None}
        norm = float(full(get_total_norm(list(moments.values())))) if moments else 0.0
        self._norm = self._rho / self._average.value if norm and self._average.value else 0.0
        return {name: moment * (self._norm / norm) for name, moment in moments.items()} if self._norm else {}


class _Code(Perturbing):
    moves = True

    def __init__(self, options: MGPO, site: Site) -> None:
        self._rho, self._site = options.rho, site
        self._layers = site.shiftable("learner.perturbation.form=paper")
        self._averages = {layer.name: _Average(options.beta) for layer in self._layers}
        self._norm = 0.0

    def gradients(self, take: Callable[[Tally], float], tally: Tally, place: tuple[int, int, int]) -> float:
        """In one pass, at W + ε in each layer; before there is a momentum nothing is done, the averages included."""
        from ..sharded import full
        from ..shifts import shifted, turn_norm

        turns = self._turns()
        with shifted(turns):
            loss = take(tally)
        for layer in self._layers if turns else ():
            if layer.down.grad is not None and layer.up.grad is not None:
                pairs = (layer.down, layer.up, layer.down.grad, layer.up.grad)
                norm = turn_norm(*(full(tensor.detach()) for tensor in pairs))
                self._averages[layer.name].add(layer.scale * norm)
        return loss

    def stats(self) -> dict[str, float]:
        """The root of the sum over layers of ‖ε‖²."""
        return {"perturbation/norm": self._norm}

    def state_dict(self) -> dict[str, Any]:
        """ḡ of each layer."""
        return {"tensors": {}, "json": {name: average.value for name, average in self._averages.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """ḡ of each layer."""
        for name, value in state["json"].items():
            self._averages[name].value = value

    def _turns(self) -> dict[nn.Module, Turn]:
        """The move of each layer that has a momentum; one whose direction is zero stays where it is."""
        from ..sharded import full
        from ..shifts import Turn, turn_norm

        turns, square = {}, 0.0
        for layer in self._layers:
            m_down, m_up = self._site.moment(layer.down), self._site.moment(layer.up)
            if m_down is None or m_up is None:
                continue
            down, up = full(m_down), full(m_up)
            norm = turn_norm(full(layer.down.detach()), full(layer.up.detach()), down, up)
            average = self._averages[layer.name].value
            length = self._rho * (1.0 if average is None else min(1 / (average + 1e-12), 10.0))
            turns[layer.module] = Turn(down, up, -length / norm if norm else 0.0)
            square += length**2 if norm else 0.0
        self._norm = math.sqrt(square)
        return turns
