"""What every perturbation is: the weights are moved while gradients are taken, and are as they were before the step.

Options (`Perturbation`) build an object with a state (`Perturbing`), which wraps the taking of gradients of each
optimizer step. Nothing else of an update knows of it: any algorithm, loss, number of epochs and of micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ....parts import Part, UserError
from ....records import derive_seed

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer as TorchOptimizer

    from ..masters import Masters
    from ..shifts import Layer
    from ..tally import Tally


@dataclass(frozen=True)
class Site:
    """What there is to perturb."""

    base: nn.Module
    """The model without PEFT's wrapping, its linear modules replaced."""
    masters: Masters
    """All that is trained, a critic included."""
    policy: Sequence[tuple[str, Tensor]]
    """The policy's share of it, by name: only this is moved."""
    optimizer: TorchOptimizer
    seed: int
    packed: bool
    """Whether passes go through our own layers (`packed.py`), where a shift can act."""

    def layers(self) -> list[Layer]:
        """The LoRA layers, for a perturbation that adapts to factors.

        Raises:
            UserError: there are none.
        """
        from .. import shifts

        found = shifts.layers(self.base, dict(self.policy))
        if not found:
            raise UserError("this perturbation moves LoRA layers, and there are none: set learner.adapter=lora")
        return found

    def shiftable(self, instead: str) -> list[Layer]:
        """The LoRA layers, for a perturbation of their effective weights.

        Raises:
            UserError: there are none, or some are computed by PEFT itself (a quantised base, an architecture that is
                not packed), where no shift acts; `instead` is the setting that needs none.
        """
        from ..lora_linear import is_plain

        found = self.layers()
        if not self.packed or not all(is_plain(layer.module) for layer in found):
            raise UserError(
                "this perturbation acts inside our own LoRA layers, which neither a quantised base nor an "
                f"architecture that the learner pads goes through: set {instead}"
            )
        return found

    def moment(self, parameter: Tensor) -> Tensor | None:
        """The optimizer's first moment of a parameter, None before there is any.

        Raises:
            UserError: the optimizer has a state, and no first moment in it.
        """
        state = self.optimizer.state.get(parameter, {})
        if state and "exp_avg" not in state:
            raise UserError("this perturbation follows the optimizer's first moment: set learner.optimizer=adamw")
        return state.get("exp_avg")

    def gradient_norm(self) -> float:
        """The Euclidean norm of the policy's gradients, before any clipping."""
        from torch.nn.utils import get_total_norm

        from ..sharded import full

        gradients = [tensor.grad for _, tensor in self.policy if tensor.grad is not None]
        return float(full(get_total_norm(gradients))) if gradients else 0.0

    def seed_of(self, place: tuple[int, int, int], name: str) -> int:
        """The seed of one tensor's noise in one optimizer step: the same for all micro-batches, passes and ranks."""
        return derive_seed(self.seed, *place, name)


class Perturbing:
    """Takes the gradients of each optimizer step; this one where the weights are."""

    moves: bool = False
    """Whether gradients are taken elsewhere than at the weights: old log-probs are then computed before, at them."""

    def gradients(self, take: Callable[[Tally], float], tally: Tally, place: tuple[int, int, int]) -> float:
        """Leave the step's gradients in the trained tensors' `grad`, the tensors themselves bit for bit as they were.

        `take` adds up the gradients of the whole mini-batch, whatever micro-batches it is cut into, tallies the loss's
        statistics and returns its loss; `place` is (step, epoch, part). Returns the loss.
        """
        return take(tally)

    def stats(self) -> dict[str, float]:
        """Of the last optimizer step: `perturbation/norm`, the Euclidean norm of what the weights were moved by."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs: `tensors` by name (whole, on several ranks too) and `json`."""
        return {"tensors": {}, "json": {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""


class Perturbation(Part):
    """Options of one perturbation. Old log-probs are always those of the unmoved weights.

    The loss's statistics (entropy, clipped ratios) and the loss are of the moved weights; a regulariser's penalty is
    taken where the weights are.
    """

    def build(self, site: Site) -> Perturbing:
        """The object that perturbs `site`.

        Raises:
            UserError: there is no place for it; the message says what to set.
        """
        raise NotImplementedError
