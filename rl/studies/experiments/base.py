"""What an experiment is: something small enough that all its seeds are computed at once, without a training run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from ....parts import Part


class Experiment(Part):
    """An environment and how something is trained in it; its options are what arms and settings of a study change."""

    @abstractmethod
    def measure(self, seeds: Sequence[int]) -> dict[str, Any]:
        """What was measured, as JSON: lists with an entry a seed. Depends on the options and the seeds alone."""
        raise NotImplementedError
