"""A value head on the policy's own hidden states."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .base import Critic

if TYPE_CHECKING:
    from ..values import Values


class Shared(Critic):
    """One linear layer on the policy's last hidden states, as TRL's value head: the trunk learns from both losses."""

    def build(self, width: int, trunk: Callable[[], tuple[Any, Any]]) -> Values:
        """The head alone."""
        from ..values import Values

        return Values(width)
