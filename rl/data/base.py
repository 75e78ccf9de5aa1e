"""What every source of problems is: options that load into a list of problems."""

from __future__ import annotations

from ...parts import Part
from ...records import Problem


class Data(Part):
    """Where problems come from."""

    def load(self, seed: int) -> list[Problem]:
        """All problems of the source in a fixed order; `seed` is for generators."""
        raise NotImplementedError
