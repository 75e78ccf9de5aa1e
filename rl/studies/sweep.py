"""A study of an experiment: arms that each change some of its options, on a map of settings; read strictly from YAML.

experiment: bandit                      # rl/studies/experiments/bandit.py
overrides: {lr: 0.1}                    # dotted keys, for every arm
seeds: [0, 1, 2]
arms:                                   # name -> dotted keys on top
  grpo: {algorithm.kl: 0.02}
  epochs: {algorithm.epochs: 2}
map:                                    # axis -> label -> dotted keys on top of every arm's; {} is the main setting
  rate: {"0.01": {lr: 0.01}, "0.1": {}}
analysis: unlikely_toy
short: {seeds: [0, 1], axes: [], overrides: {steps: 32}}      # what --short changes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from ...parts import Options, UserError, find
from ..choices import Choice, describe
from ..config import filled
from .experiments.base import Experiment
from .grid import Form, Overrides, explain_in, hint, laid_over, no_seed_twice, study_file

NAME = Field(pattern=r"^[A-Za-z0-9][\w.+-]*$")
MAIN = ""
"""The axis, and the label, of the setting that all axes go through."""


class ShortSweep(Options):
    """What the short form of a sweep changes."""

    seeds: list[Annotated[int, Field(ge=0)]] | None = Field(default=None, min_length=1)
    """Seeds in place of the study's; None is the same."""
    axes: list[str] | None = None
    """The axes of the map that stay; None is all."""
    overrides: Overrides = Field(default_factory=dict)
    """Dotted keys on top of every arm's, below the map's."""


class Sweep(Options):
    """Which arms of an experiment a study compares, in which settings, and how they are analysed."""

    experiment: str
    """An experiment's name, or path/to/mine.py:Mine."""
    overrides: Overrides = Field(default_factory=dict)
    """Dotted keys of the experiment's options, for every arm."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    """Seeds of every arm in every setting."""
    arms: dict[Annotated[str, NAME], Overrides] = Field(min_length=1)
    """Names of arms and their dotted keys, on top of those for every arm."""
    map: dict[Annotated[str, NAME], dict[Annotated[str, NAME], Overrides]] = Field(default_factory=dict)
    """Axes, their labels, and each label's dotted keys, on top of an arm's; none: the main setting."""
    mapped: list[str] | None = Field(default=None, min_length=1)
    """The arms that are computed on the map; None is all."""
    analysis: Annotated[Any, Choice("analysis")]
    """What is made of the trials."""
    short: ShortSweep = ShortSweep()
    """What --short changes."""

    @field_validator("seeds")
    @classmethod
    def _once(cls, seeds: list[int]) -> list[int]:
        return no_seed_twice(seeds)

    def form(self, short: bool) -> Sweep:
        """The sweep as it is computed: itself, or its short form.

        Raises:
            UserError: the short form names an axis, or `mapped` an arm, that there is not.
        """
        _known("mapped", self.mapped or [], tuple(self.arms))
        _known("short.axes", self.short.axes or [], tuple(self.map))
        if not short:
            return self.model_copy(update={"short": ShortSweep()})
        axes = list(self.map) if self.short.axes is None else self.short.axes
        changed = {
            "seeds": self.short.seeds or self.seeds,
            "arms": {arm: laid_over(own, self.short.overrides) for arm, own in self.arms.items()},
            "map": {axis: at for axis, at in self.map.items() if axis in axes},
        }
        return self.model_copy(update={**changed, "short": ShortSweep()})


@dataclass(frozen=True)
class SweepStudy(Form):
    """A sweep with its name and what it asks, in the full or the short form."""

    grid: Sweep


@dataclass(frozen=True)
class Trial:
    """An arm in a setting: all its seeds."""

    axis: str
    label: str
    arm: str
    seeds: tuple[int, ...]
    experiment: Experiment
    file: Path

    @property
    def name(self) -> str:
        """What it is called."""
        return self.arm if self.axis == MAIN else f"{self.arm} at {self.axis} {self.label}"

    @property
    def options(self) -> dict[str, Any]:
        """What it depends on, as its file holds it."""
        return {"experiment": describe(self.experiment), "seeds": list(self.seeds)}


def read_sweep(name: str, *, short: bool = False) -> SweepStudy:
    """A study of an experiment by its name in `recipes/studies/`, or by a path.

    Raises:
        UserError: there is no such study, or something in it is wrong.
    """
    path, question, tree = study_file(name)
    try:
        return SweepStudy(path.stem, question, short, Sweep.model_validate(tree).form(short))
    except ValidationError as error:
        raise UserError(f"{path}: {explain_in(error, Sweep, tree)}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def trials(study: SweepStudy, root: Path) -> list[Trial]:
    """The trials of a study in `root`, the main setting's first.

    Raises:
        UserError: the experiment cannot take the keys of an arm or of a setting.
    """
    sweep, found = study.grid, []
    for axis, label, keys in [(MAIN, MAIN, {}), *settings(sweep)]:
        for arm, own in sweep.arms.items():
            if axis == MAIN or sweep.mapped is None or arm in sweep.mapped:
                above = laid_over(laid_over(sweep.overrides, own), keys)
                experiment = _filled(sweep.experiment, above, arm, axis, label)
                file = root / "trials" / (f"{axis}-{label}" if axis else "main") / f"{arm}.json"
                found.append(Trial(axis, label, arm, tuple(sweep.seeds), experiment, file))
    return found


def settings(sweep: Sweep) -> list[tuple[str, str, Overrides]]:
    """Axis, label and keys of the settings beside the main one."""
    return [(axis, label, keys) for axis, at in sweep.map.items() for label, keys in at.items() if keys]


def _filled(name: str, keys: Mapping[str, Any], arm: str, axis: str, label: str) -> Experiment:
    part = find("experiment", name)
    if not (isinstance(part, type) and issubclass(part, Experiment)):
        raise UserError(f"experiment {name!r}: this must be a class derived from Experiment")
    try:
        return filled(part, {}, keys)
    except UserError as error:
        raise UserError(f"the arm {arm}{f' at {axis} {label}' if axis else ''}: {error}") from None


def _known(where: str, said: list[str], known: tuple[str, ...]) -> None:
    for name in said:
        if name not in known:
            raise UserError(f"{where} names {name!r}; {hint(name, known)}")
