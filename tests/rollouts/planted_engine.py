"""The engine local with faults planted: `find("engine", "planted_engine.py:Planted")`.

Each file in `folder` is one fault to come, named after its kind; whichever worker takes it first (by removing it)
has it. So a test says how many faults there are, and no fault happens twice.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from underdog.parts import RunError, UserError
from underdog.records import Policy, Request, Sample, Version
from underdog.rollouts.base import Engine, Receipt, Surroundings
from underdog.rollouts.local import Local

OTHER = Version(99, "of another policy")


class Planted(Local):
    """As local, until a fault is taken."""

    folder: str
    """Where the faults to come stand."""
    deaths: int = 0
    """Versions, from the first, at each of which one worker dies once."""

    def open(self, surroundings: Surroundings) -> Engine:
        """Start the engine."""
        if _take(self.folder, "no_opening"):
            raise UserError("this engine cannot be opened so; choose another")
        print("an engine opens")
        return PlantedEngine(super().open(surroundings), self.folder, self.deaths)


class PlantedEngine:
    """Looks for a fault after the work is done and before it is handed over."""

    faults: Mapping[str, int] = {}

    def __init__(self, engine: Engine, folder: str, deaths: int) -> None:
        self._engine, self._folder, self._deaths, self._strayed = engine, folder, deaths, False

    def publish(self, policy: Policy) -> Version:
        version = self._engine.publish(policy)
        self._version = version
        self._strayed = _take(self._folder, "other_version_held")
        return OTHER if self._strayed else version

    def receipts(self) -> list[Receipt]:
        return self._engine.receipts()

    def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        samples = self._engine.generate(requests)
        if self._strayed:
            return samples  # one fault at a time
        if self._version.number < self._deaths and _first_at(self._folder, self._version.number):
            _die(samples)
        fault = next((fault for name, fault in FAULTS.items() if _take(self._folder, name)), None)
        return samples if fault is None else fault(samples)

    def close(self) -> None:
        self._engine.close()


def plant(folder: Path, *names: str) -> None:
    """Let these faults come."""
    for number, name in enumerate(names):
        (folder / f"{name}-{number}").touch()


def _take(folder: str, name: str) -> bool:
    for file in sorted(Path(folder).glob(f"{name}-*")):
        with suppress(FileNotFoundError):
            file.unlink()
            return True
    return False


def _first_at(folder: str, version: int) -> bool:
    """Whether nobody has asked this for the version before."""
    try:
        Path(folder, f"died_at_{version}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _die(samples: list[list[Sample]]) -> list[list[Sample]]:
    os.kill(os.getpid(), signal.SIGKILL)
    return samples


def _hang(samples: list[list[Sample]]) -> list[list[Sample]]:
    time.sleep(1000)
    return samples


def _raise(error: Exception) -> Callable[[list[list[Sample]]], list[list[Sample]]]:
    def fault(samples: list[list[Sample]]) -> list[list[Sample]]:
        raise error

    return fault


def first(samples: list[list[Sample]], **changed: object) -> list[list[Sample]]:
    """The same samples but for the first, which has other fields."""
    return [[replace(samples[0][0], **changed), *samples[0][1:]], *samples[1:]]  # type: ignore[arg-type]


FAULTS: dict[str, Callable[[list[list[Sample]]], list[list[Sample]]]] = {
    "death": _die,
    "hanging": _hang,
    "no_memory": _raise(MemoryError("10 GiB asked for")),
    "no_user": _raise(UserError("this prompt is too long; leave it out")),
    "no_run": _raise(RunError("the run cannot go on; start again")),
    "bug": _raise(ZeroDivisionError("division by zero")),
    "other_version": lambda samples: first(samples, version=OTHER),
    "not_finite": lambda samples: first(samples, logp_T=np.full(len(samples[0][0].tokens_T), np.nan, np.float32)),
}
