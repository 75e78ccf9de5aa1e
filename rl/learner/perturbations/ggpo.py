"""LoRA-GGPO: row-wise Gaussian noise whose variance follows norms of weights and gradients (arXiv 2502.14538v1).

Only the abstract of the paper's first version is at hand, and two programs that cite it, which differ; each is a
`reading` here, and a third, the default, is what both are after. With W' = W + sBA the effective weight [O, n] of a
LoRA layer, G = s(B ∇A + ∇B A) the gradient of the previous optimizer step as the factors show it, and subscript i a
row:

- `effective`: ε_ij ~ N(0, σ²/n (‖W'_i‖² + β‖G_i‖²)) is added to W'.
- `factors`: the same formula for A and for B, each with its own rows, width and gradient (a trainer that cites
  equations 6 and 8); what is trained moves itself, so it works where `effective` cannot.
- `summed`: the standard deviation is (σ √(w̄² + ‖s(BA)_i‖²) + β‖G_i‖)/√n, w̄ the mean row norm of W (kohya-ss's
  sd-scripts). There three things are slips, and not so here: the scale s of BA has no effect, the divisor is √O, and
  no gradient passes through the noise to the layer's input. w̄ is the mean of all rows instead of a thousand.

Before there is a gradient, its part is zero. One that is not finite is not taken. The noise of an optimizer step is one
for all its micro-batches and recomputed layers; it is made anew from its seed wherever it is needed, forward and
backward, and never stored or written to a base weight.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from .base import Perturbation, Perturbing, Site

if TYPE_CHECKING:
    from torch import Tensor

    from ..shifts import Layer
    from ..tally import Tally


class GGPO(Perturbation):
    """Gradient-guided perturbation: one pass a step, at random noise around the weights."""

    sigma: float = Field(default=0.03, ge=0)
    """σ, the noise's share of a row's norm; 0 is no perturbation."""
    beta: float = Field(default=0.01, ge=0)
    """β, the weight of the gradient's norm."""
    reading: Literal["effective", "factors", "summed"] = "effective"
    """What gets the noise, and its size: see the formulas above."""

    def build(self, site: Site) -> Perturbing:
        """`effective` and `summed` need our own LoRA layers, `factors` any LoRA.

        Raises:
            UserError: there are none.
        """
        if not self.sigma:
            return Perturbing()
        if self.reading == "factors":
            return _Factors(self, site)
        return _Effective(self, site) if self.reading == "effective" else _Summed(self, site)


class _GGPO(Perturbing):
    """Holds squared norms of gradient rows, by name."""

    moves = True

    def __init__(self, options: GGPO, site: Site) -> None:
        self._options, self._site = options, site
        self._gradient_squares: dict[str, Tensor] = {}
        self._norm = 0.0

    def stats(self) -> dict[str, float]:
        """The root of the expected ‖ε‖²."""
        return {"perturbation/norm": self._norm}

    def state_dict(self) -> dict[str, Any]:
        """Squared norms of the last gradient's rows."""
        return {"tensors": dict(self._gradient_squares), "json": {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Squared norms of the last gradient's rows."""
        device = self._site.policy[0][1].device
        self._gradient_squares = {name: squares.to(device) for name, squares in state["tensors"].items()}

    def _remember(self, name: str, squares_O: Tensor) -> None:
        if bool(squares_O.isfinite().all()):
            self._gradient_squares[name] = squares_O

    def _variance(self, name: str, squares_O: Tensor, columns: int) -> Tensor:
        """σ²/n (‖W_i‖² + β‖G_i‖²)."""
        known = self._gradient_squares.get(name)
        total_O = squares_O if known is None else squares_O + self._options.beta * known
        return total_O * (self._options.sigma**2 / columns)


class _Effective(_GGPO):
    def __init__(self, options: GGPO, site: Site) -> None:
        from ..shifts import row_squares

        super().__init__(options, site)
        self._layers = site.shiftable("learner.perturbation.reading=factors")
        self._base_squares = {layer.name: row_squares(layer.weight.detach()) for layer in self._layers}

    def gradients(self, take: Callable[[Tally], float], tally: Tally, place: tuple[int, int, int]) -> float:
        """In one pass, at W' + ε in each layer."""
        import torch

        from ....kernels.noise import Noise
        from ..sharded import full
        from ..shifts import shifted, turn_row_squares

        noises, squares = {}, []
        for layer in self._layers:
            columns = layer.weight.shape[1]
            variance_O = self._variance_of(layer, columns)
            noises[layer.module] = Noise(self._site.seed_of(place, layer.name), variance_O.sqrt(), columns)
            squares.append(columns * variance_O.sum())
        self._norm = float(torch.stack(squares).sum().sqrt())
        with shifted(noises):
            loss = take(tally)
        for layer in self._layers:
            if layer.down.grad is not None and layer.up.grad is not None:
                pairs = (layer.down, layer.up, layer.down.grad, layer.up.grad)
                squares_O = turn_row_squares(*(full(tensor.detach()) for tensor in pairs))
                self._remember(layer.name, layer.scale**2 * squares_O)
        return loss

    def _variance_of(self, layer: Layer, columns: int) -> Tensor:
        from ..sharded import full
        from ..shifts import squares_beside

        down, up = full(layer.down.detach()), layer.scale * full(layer.up.detach())
        squares_O = squares_beside(layer.weight.detach(), self._base_squares[layer.name], down, up)
        return self._variance(layer.name, squares_O, columns)


class _Summed(_Effective):
    def _variance_of(self, layer: Layer, columns: int) -> Tensor:
        """The square of the summed standard deviations."""
        from ..sharded import full

        down, up = full(layer.down.detach()), layer.scale * full(layer.up.detach())
        squares_O = (up @ (down @ down.t()) * up).sum(1).clamp_(min=0)
        mean = self._base_squares[layer.name].sqrt().mean()
        std_O = self._options.sigma * (mean.square() + squares_O).sqrt()
        known = self._gradient_squares.get(layer.name)
        if known is not None:
            std_O = std_O + self._options.beta * known.sqrt()
        return std_O.square() / columns


class _Factors(_GGPO):
    def __init__(self, options: GGPO, site: Site) -> None:
        super().__init__(options, site)
        own = {id(tensor) for layer in site.layers() for tensor in (layer.down, layer.up)}
        self._factors = [(name, tensor) for name, tensor in site.policy if id(tensor) in own]

    def gradients(self, take: Callable[[Tally], float], tally: Tally, place: tuple[int, int, int]) -> float:
        """In one pass, at A + ε and B + ε'."""
        from ..shifts import moved, row_squares

        with moved(self._site.masters, self._moves(place)):
            loss = take(tally)
        for name, tensor in self._factors:
            if tensor.grad is not None:
                self._remember(name, row_squares(tensor.grad))
        return loss

    def _moves(self, place: tuple[int, int, int]) -> dict[str, Tensor]:
        import torch

        from ....kernels.noise import Noise
        from ..sharded import like
        from ..shifts import row_squares

        moves, squares = {}, []
        for name, tensor in self._factors:
            columns = tensor.shape[1]
            variance_O = self._variance(name, row_squares(tensor.detach()), columns)
            noise = Noise(self._site.seed_of(place, name), variance_O.sqrt(), columns)
            moves[name] = like(noise.add_(torch.zeros(tensor.shape, device=variance_O.device)), tensor)
            squares.append(columns * variance_O.sum())
        self._norm = float(torch.stack(squares).sum().sqrt())
        return moves
