"""A run's learner as one of its checkpoints holds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..parts import UserError
from .assembly import build_learner
from .learner.learner import Learner
from .runs import checkpoint
from .runs.folder import read_config


def trained_learner(run: Path, model: str, which: str = "last", overrides: dict[str, Any] | None = None) -> Learner:
    """A run's learner, on `model` (its own model, found), with the tensors of `last`, `best` or a step's checkpoint.

    Raises:
        UserError: the folder is no run, or has no such checkpoint.
        RunError: the checkpoint is damaged.
    """
    config = read_config(run, overrides)
    saved = saved_state(run, which)
    learner = build_learner(config, model, log=lambda text: None, folder=run)
    learner.load_state_dict(saved)
    return learner


def saved_state(run: Path, which: str = "last") -> dict[str, Any]:
    """What the learner's `load_state_dict` takes, from the checkpoint `last`, `best` or that of a step.

    Raises:
        UserError: the run has no such checkpoint.
        RunError: the checkpoint is damaged.
    """
    saved = checkpoint.load(_choose(run / "checkpoints", which))
    return {"tensors": saved.tensors, "json": saved.state["learner"]}


def _choose(folder: Path, which: str) -> Path:
    known = checkpoint.steps(folder)
    if which == "last" and known:
        return folder / f"step_{known[-1]}"
    best = checkpoint.best(folder)
    if which == "best" and best:
        return folder / f"step_{best['step']}"
    if which.isdigit() and int(which) in known:
        return folder / f"step_{which}"
    have = ", ".join(map(str, known)) or "none"
    raise UserError(f"{folder.parent} has no checkpoint {which!r}; it holds steps {have}")
