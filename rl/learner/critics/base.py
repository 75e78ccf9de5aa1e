"""What every critic is: where the values come from that an algorithm asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ....parts import Part

if TYPE_CHECKING:
    from ..values import Values


class Critic(Part):
    """Built only where the algorithm needs values. It is no part of the policy: neither served nor exported."""

    lr: float | None = Field(default=None, gt=0)
    """Peak learning rate of what is the critic's alone, on the learner's schedule; None is the learner's."""

    def build(self, width: int, trunk: Callable[[], tuple[Any, Any]]) -> Values:
        """A critic of hidden states of `width`; `trunk` makes another model like the policy's, with its decoder."""
        raise NotImplementedError
