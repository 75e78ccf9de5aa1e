"""Metrics: always a line of `metrics.jsonl` a step; TensorBoard, wandb and trackio where a recipe asks for them."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from ...parts import UserError
from .files import append_line, keep_lines

TrackerName = Literal["tensorboard", "wandb", "trackio"]
TIMING = ("time/", "memory/", "faults/")
"""Metrics that two equal runs need not share."""


class Tracker(Protocol):
    """Where metrics go besides the file."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take one step's metrics."""
        ...

    def close(self) -> None:
        """Flush."""
        ...


class Metrics:
    """Writes one JSON object a step. Values that are not finite are left out and counted as `faults/not_finite`."""

    def __init__(self, folder: Path, trackers: list[Tracker]) -> None:
        self.path = folder / "metrics.jsonl"
        self.trackers = trackers

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append the metrics of one step."""
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        if len(finite) < len(metrics):
            finite["faults/not_finite"] = len(metrics) - len(finite)
        append_line(self.path, {"step": step, **finite})
        for tracker in self.trackers:
            tracker.log(step, finite)

    def rewind(self, step: int) -> None:
        """Forget what was written after `step`: a resume writes it again."""
        keep_lines(self.path, lambda row: row["step"] <= step)

    def close(self) -> None:
        """Flush the trackers."""
        for tracker in self.trackers:
            tracker.close()


def open_trackers(names: list[TrackerName], folder: Path, config: dict[str, Any]) -> list[Tracker]:
    """The trackers that a recipe switches on.

    Raises:
        UserError: a tracker's package is not installed.
    """
    for name in names:
        package = "torch.utils.tensorboard" if name == "tensorboard" else name
        if importlib.util.find_spec(name) is None:
            raise UserError(f"trackers=[{name}] needs the package {name}: pip install {name} ({package})")
    return [_TensorBoard(folder) if name == "tensorboard" else _Service(name, folder, config) for name in names]


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "logs" / "tensorboard"))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class _Service:
    """wandb and trackio, which share one interface."""

    def __init__(self, name: str, folder: Path, config: dict[str, Any]) -> None:
        self.module = importlib.import_module(name)
        self.module.init(project="underdog", name=folder.name, config=config)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.module.log(dict(metrics), step=step)

    def close(self) -> None:
        self.module.finish()
