"""A study whose runs have all finished, for its analysis to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runs.reading import Run, read_run
from .grid import Study
from .plan import run_folder


@dataclass(frozen=True)
class Finished:
    """The runs of a study, each as its folder says. A run's `config`, `metrics` and `summary` are as train wrote them;
    `series`, `passes` and `change` pick from them."""

    study: Study
    root: Path
    runs: Mapping[tuple[str, int], Run]
    """By arm and seed."""

    @classmethod
    def read(cls, study: Study, root: Path) -> Finished:
        """Read all runs of the study in `root`."""
        pairs = [(arm, seed) for arm in study.grid.arms for seed in study.grid.seeds]
        return cls(study, root, {pair: read_run(run_folder(root, *pair)) for pair in pairs})

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms as they stand in the grid; the first is what the others are compared with."""
        return tuple(self.study.grid.arms)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that every arm was run with."""
        return tuple(self.study.grid.seeds)

    def folder(self, arm: str, seed: int) -> Path:
        """The folder of a run."""
        return self.run(arm, seed).folder

    def run(self, arm: str, seed: int) -> Run:
        """A run."""
        return self.runs[arm, seed]

    def config(self, arm: str, seed: int) -> Mapping[str, Any]:
        """The resolved configuration of a run."""
        return self.run(arm, seed).config

    def metrics(self, arm: str, seed: int) -> tuple[Mapping[str, float], ...]:
        """The metrics of a run, one mapping a step."""
        return self.run(arm, seed).metrics

    def summary(self, arm: str, seed: int) -> Mapping[str, Any]:
        """The summary of a run."""
        return self.run(arm, seed).summary or {}
