"""What every algorithm is: how judged, scored groups become a batch, and how a batch becomes a loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ...parts import Part
from ...records import Batch, Group

if TYPE_CHECKING:
    from torch import Tensor


class Outputs(NamedTuple):
    """What the learner's forward gives for the completions' tokens of a micro-batch, packed end to end; float32 [T].

    `entropy_T` carries a gradient only where the algorithm needs `entropy`; `value_T`, of the states before the tokens,
    is there where it needs `values`, and `rival_logp_T`, of the likeliest token other than the sampled one, where it
    needs `rivals`. (A tuple, since FSDP looks into those for what a backward pass begins at.)
    """

    logp_T: Tensor
    entropy_T: Tensor | None = None
    value_T: Tensor | None = None
    rival_logp_T: Tensor | None = None


@dataclass(frozen=True)
class MicroBatch:
    """Whole rows, their completions' tokens packed end to end; all float32 [T] but `row_T` (int64, the token's row).

    `old_logp_T` is never absent: with one update a batch it is the detached new one, unless the learner perturbs its
    weights; then, as with several updates, it was computed before. The others are None where a sample or the recipe has
    none: `old_value_T` are the values at which the targets `return_T` were made. `rows` is the number of rows.
    """

    advantage_T: Tensor
    weight_T: Tensor
    old_logp_T: Tensor
    row_T: Tensor
    rows: int
    engine_logp_T: Tensor | None = None
    ref_logp_T: Tensor | None = None
    old_value_T: Tensor | None = None
    return_T: Tensor | None = None


class Algorithm(Part):
    """Rewards to advantages to a loss. Names no engine, no verifier, no adapter."""

    @property
    def needs(self) -> frozenset[str]:
        """What is to be computed: before the update, as annotations, `logp` (several updates a batch), `ref_logp` (a KL
        term) and `values` (the critic's, of the state before each token); in the update, as `Outputs`, `values`,
        `entropy` (with gradients) and `rivals`."""
        return frozenset()

    def enough(self, groups: Sequence[Group], wanted: int) -> bool:
        """Whether `groups`, drawn so far for this step, are enough; `wanted` is `rollouts.problems`."""
        return True

    def advantages(self, groups: Sequence[Group]) -> Batch:
        """Rows with one advantage a token, from scored groups; groups without a signal dropped and counted."""
        raise NotImplementedError

    def loss(self, outputs: Outputs, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar loss (sum over tokens of weight times the token's loss), and per-token statistics [T] to log."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs (controllers, running moments); JSON-serialisable."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
