"""Checkpoints: checkpoint k is the state after k updates, as safetensors and JSON, whole or not there.

A checkpoint is three states, the learner's, the algorithm's and the collection's, and the run's own totals.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...parts import RunError
from .files import digest, discard, replacing, sweep, write_json

TENSORS = "learner.safetensors"
STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a resume needs; `state` has the keys learner, algorithm, collection and run."""

    step: int
    tensors: Mapping[str, Any]
    state: Mapping[str, Any]


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write `folder`/step_N atomically and return it."""
    from safetensors.torch import save_file

    target = folder / f"step_{checkpoint.step}"
    with replacing(target) as temporary:
        temporary.mkdir()
        tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in checkpoint.tensors.items()}
        save_file(tensors, temporary / TENSORS)
        body = {"step": checkpoint.step, "sha256": digest(temporary / TENSORS), **checkpoint.state}
        (temporary / STATE).write_text(json.dumps(body, indent=1, allow_nan=False))
    return target


def load(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        RunError: the checkpoint is damaged; the message says how to go on from an earlier one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = json.loads((path / STATE).read_text())
        step, expected = state.pop("step"), state.pop("sha256")
        if digest(path / TENSORS) != expected:
            raise ValueError(f"{TENSORS} does not match the digest in {STATE}")
        return Checkpoint(step, load_file(path / TENSORS), state)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        earlier = [s for s in steps(path.parent) if s != _step(path)]
        rest = f"resume goes on from step {max(earlier)}" if earlier else "start a new run under another `out`"
        raise RunError(f"checkpoint {path} is damaged ({error}); remove that folder and {rest}") from error


def steps(folder: Path) -> list[int]:
    """The steps of which `folder` holds a checkpoint, ascending."""
    return sorted(_step(path) for path in folder.glob("step_*") if path.is_dir())


def latest(folder: Path) -> Path | None:
    """The newest checkpoint, after sweeping away what a kill left half-written."""
    if folder.is_dir():
        sweep(folder)
    found = steps(folder)
    return folder / f"step_{found[-1]}" if found else None


def prune(folder: Path, keep: set[int]) -> None:
    """Remove all checkpoints but those of the steps in `keep`."""
    for step in steps(folder):
        if step not in keep:
            discard(folder / f"step_{step}")


def kept(folder: Path, newest: int, anchors: Iterable[int] = ()) -> set[int]:
    """The steps of the `newest` checkpoints, of the best, and for each anchor the last one at or before it."""
    known, noted = steps(folder), best(folder)
    before = [[step for step in known if step <= anchor][-1:] for anchor in anchors]
    return {*known[-newest:], *(step for last in before for step in last), *([noted["step"]] if noted else [])}


def mark_best(folder: Path, step: int, metric: str, value: float) -> None:
    """Note which checkpoint is the best by the evaluation while training."""
    write_json(folder / "best.json", {"step": step, "metric": metric, "value": value})


def best(folder: Path) -> dict[str, Any] | None:
    """What `mark_best` noted last."""
    path = folder / "best.json"
    return json.loads(path.read_text()) if path.is_file() else None


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step_"))
