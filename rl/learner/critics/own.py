"""A critic with a trunk of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .base import Critic

if TYPE_CHECKING:
    from ..values import Values


class Own(Critic):
    """A second model like the policy's with a head: the frozen base is shared in memory, what is trained is apart.

    Costs a forward and a backward more, and nothing of the value loss reaches the policy.
    """

    def build(self, width: int, trunk: Callable[[], tuple[Any, Any]]) -> Values:
        """The head and a trunk."""
        from ..values import Values

        return Values(width, *trunk())
