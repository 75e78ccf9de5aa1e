"""The trials of a sweep: computed one after another, each kept in a file as soon as it is there, and read again."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...parts import UserError
from ..runs.files import write_json
from ..runs.report.sections import duration
from .runner import Say
from .sweep import MAIN, SweepStudy, Trial


@dataclass(frozen=True)
class Tried:
    """A sweep whose trials are all there, for its analysis to read."""

    study: SweepStudy
    found: Mapping[tuple[str, str, str], Mapping[str, Any]]
    """What the experiment measured, by axis, label and arm; `MAIN` and `MAIN` for the main setting."""

    @classmethod
    def read(cls, study: SweepStudy, made: Sequence[Trial]) -> Tried:
        """Read all trials of the study."""
        return cls(study, {(t.axis, t.label, t.arm): json.loads(t.file.read_bytes())["found"] for t in made})

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms as they stand in the sweep."""
        return tuple(self.study.grid.arms)

    @property
    def mapped(self) -> tuple[str, ...]:
        """The arms that are there on the map."""
        return tuple(self.study.grid.mapped or self.arms)

    def at(self, arm: str, axis: str = MAIN, label: str = MAIN) -> Mapping[str, Any]:
        """What was measured of an arm in a setting; a label without keys is the main setting."""
        keys = self.study.grid.map[axis][label] if axis != MAIN else {}
        return self.found[axis, label, arm] if keys else self.found[MAIN, MAIN, arm]


def check_trials(study: SweepStudy, made: Sequence[Trial]) -> None:
    """Refuse to mix what an earlier sweep computed with what this one would.

    Raises:
        UserError: trials that are there were made by other options or seeds; the sentence names them.
    """
    other = [t.name for t in made if t.file.is_file() and not _is_of(t)]
    if other:
        raise UserError(
            f"the study {study.name} has changed since these trials in {made[0].file.parents[1]} were made: "
            f"{', '.join(other)}; remove that folder to make them again, choose another --out, or put the study back"
        )


def compute(made: Sequence[Trial], say: Say) -> None:
    """Compute the trials that are not there; what is cut off leaves the finished ones."""
    left = [trial for trial in made if not trial.file.is_file()]
    for i, trial in enumerate(left, 1):
        since = time.monotonic()
        write_json(trial.file, {**trial.options, "found": trial.experiment.measure(trial.seeds)})
        say(f"{trial.name}: done after {duration(time.monotonic() - since)}; {len(left) - i or 'none'} left")


def _is_of(trial: Trial) -> bool:
    held = json.loads(trial.file.read_bytes())
    return {key: held.get(key) for key in trial.options} == trial.options
