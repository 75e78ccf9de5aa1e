"""What a run costs: processor and GPU hours, energy where it can be read, tokens, dollars at a stated price.

Everything that was spent counts, what a kill threw away and a resume did again as well: the meter's file is written
after each step and never taken back. Metrics hold none of it, so that equal runs have equal metrics.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from ...parts import Options
from .energy import Rapl, UnreadableError, gpu_joules
from .files import write_json

FILE = "cost.json"
"""In a run's folder: what all its attempts have spent so far."""
HOUR = 3600.0


class Cost(Options):
    """What hours are priced at, in the summary and the report."""

    cpu_hour: float = Field(default=0.05, ge=0)
    """Dollars for an hour of one processor core at work."""
    gpu_hour: float = Field(default=2.0, ge=0)
    """Dollars for an hour of one GPU, at work or not."""
    source: str = "round figures assumed by Underdog, 2026, nobody's offer"
    """Whose prices these are, and of when."""


@dataclass(frozen=True)
class Spent:
    """Of all attempts at a run. Joules are None where a part of them could not be read; `unread` says why."""

    attempts: int = 0
    seconds: float = 0.0
    """Wall-clock seconds."""
    cpu_seconds: float = 0.0
    """Processor seconds of the process and all below it."""
    gpu_seconds: float = 0.0
    """Wall-clock seconds times the GPUs that were held."""
    cpu_joules: float | None = 0.0
    """Of the machine's processors and memory, whoever used them."""
    gpu_joules: float | None = 0.0
    """Of the GPUs that the process sees."""
    sampled: int = 0
    """Tokens of completions that were drawn to train on."""
    evaluated: int = 0
    """Tokens of completions that were drawn to measure."""
    trained: int = 0
    """Tokens of completions in updates, each once, however many epochs."""
    unread: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Spent:
        """What a meter wrote."""
        value = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**value, "unread": tuple(value["unread"])})


class Meter:
    """Adds what this attempt spends to what earlier ones did."""

    def __init__(self, path: Path, *, fresh: bool) -> None:
        """`path` is the meter's file; a run that is not `fresh` and has none was begun without a meter."""
        before = Spent.read(path) if path.is_file() else Spent()
        if not fresh and not path.is_file():
            before = _unread(before, "cpu_joules", "an earlier attempt had no meter, and is left out")
            before = _unread(before, "gpu_joules", "an earlier attempt had no meter, and is left out")
        self.path = path
        self._spent = replace(before, attempts=before.attempts + 1)
        self._at, self._cpu = time.perf_counter(), tree_cpu_seconds()
        self._gpus = 0.0
        self._gpu_joules = 0.0
        self._rapl: Rapl | None = None
        self._joules = 0.0
        try:
            self._rapl = Rapl()
        except UnreadableError as error:
            self._spent = _unread(self._spent, "cpu_joules", f"processors' energy: {error}")

    def hold(self, gpus: float) -> None:
        """From now on the run holds so many GPUs."""
        self._advance()
        self._gpus = gpus
        if gpus:
            self._read_gpus(lambda now: 0.0)

    def count(self, *, sampled: float = 0, evaluated: float = 0, trained: float = 0) -> None:
        """Tokens that were drawn or learned from."""
        s = self._spent
        sums = {"sampled": s.sampled + sampled, "evaluated": s.evaluated + evaluated, "trained": s.trained + trained}
        self._spent = replace(s, **{name: int(number) for name, number in sums.items()})

    def save(self) -> Spent:
        """Read the meters, write down what was spent so far, and return it."""
        self._advance()
        write_json(self.path, asdict(self._spent))
        return self._spent

    def close(self) -> None:
        """Let go of the meters."""
        if self._rapl is not None:
            self._rapl.close()

    def _advance(self) -> None:
        now, cpu, s = time.perf_counter(), tree_cpu_seconds(), self._spent
        self._spent = replace(
            s,
            seconds=s.seconds + now - self._at,
            cpu_seconds=s.cpu_seconds + max(cpu - self._cpu, 0.0),
            gpu_seconds=s.gpu_seconds + self._gpus * (now - self._at),
        )
        self._at, self._cpu = now, max(cpu, self._cpu)
        self._read_processors()
        if self._gpus:
            self._read_gpus(lambda now: now - self._gpu_joules)

    def _read_processors(self) -> None:
        if self._rapl is None or self._spent.cpu_joules is None:
            return
        try:
            now = self._rapl.joules()
        except UnreadableError as error:
            self._spent = _unread(self._spent, "cpu_joules", f"processors' energy: {error}")
            return
        self._spent = replace(self._spent, cpu_joules=self._spent.cpu_joules + now - self._joules)
        self._joules = now

    def _read_gpus(self, since: Callable[[float], float]) -> None:
        """Add to the joules what the GPUs' counter has gone on by, which `since` tells from its reading."""
        if self._spent.gpu_joules is None:
            return
        try:
            now = gpu_joules()
        except UnreadableError as error:
            self._spent = _unread(self._spent, "gpu_joules", f"GPUs' energy: {error}")
            return
        self._spent = replace(self._spent, gpu_joules=self._spent.gpu_joules + since(now))
        self._gpu_joules = now


def _unread(spent: Spent, key: str, why: str) -> Spent:
    unread = spent.unread if why in spent.unread else (*spent.unread, why)
    return replace(spent, **{key: None, "unread": unread})


def tree_cpu_seconds() -> float:
    """User and system seconds of this process, of those below it, and of those of them that ended and were waited for.

    What nobody waited for, or what another process than its parent took over, is not among them.
    """
    import psutil

    own = psutil.Process()
    total = 0.0
    for process in (own, *own.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.Error:  # it has ended: its parent knows its times
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def summarise(spent: Spent, prices: Cost, gain: Mapping[str, Any] | None) -> dict[str, Any]:
    """The block `cost` of summary.json.

    `gain` is the paired change of pass@1; where its interval is above 0, `per_point` is what one point (0.01) of it
    took, else None.
    """
    cpu_hours, gpu_hours = spent.cpu_seconds / HOUR, spent.gpu_seconds / HOUR
    whole = None if spent.cpu_joules is None or spent.gpu_joules is None else spent.cpu_joules + spent.gpu_joules
    figures = {
        "hours": spent.seconds / HOUR,
        "cpu_hours": cpu_hours,
        "gpu_hours": gpu_hours,
        "kwh": None if whole is None else whole / 3.6e6,
        "tokens": float(spent.sampled + spent.evaluated),
        "dollars": cpu_hours * prices.cpu_hour + gpu_hours * prices.gpu_hour,
    }
    points = 100 * gain["mean"] if gain and gain["ci95"][0] > 0 else None
    shares = None if points is None else {key: None if x is None else x / points for key, x in figures.items()}
    whole_spent = {**asdict(spent), "unread": list(spent.unread)}
    return {**figures, "points": points, "per_point": shares, "spent": whole_spent, "prices": prices.model_dump()}
