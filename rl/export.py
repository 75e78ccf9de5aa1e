"""A trained policy as others load it: a PEFT folder, or the adapter merged into a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..parts import UserError
from .assembly import build_learner
from .learner.learner import Learner
from .made import resolve_model
from .runs import checkpoint
from .runs.folder import read_config


def trained_learner(run: Path, which: str = "last", overrides: dict[str, Any] | None = None) -> Learner:
    """A run's learner as one of its checkpoints holds it: `last`, `best` or a step's number.

    Raises:
        UserError: the folder is no run, or has no such checkpoint.
        RunError: the checkpoint is damaged.
    """
    from .loop import train

    config = read_config(run, overrides)
    saved = checkpoint.load(_choose(run / "checkpoints", which))
    learner = build_learner(config, resolve_model(config.model, train), log=lambda text: None)
    learner.load_state_dict({"tensors": saved.tensors, "json": saved.state["learner"]})
    return learner


def export_merged(run: Path, folder: Path, which: str = "last") -> None:
    """Write a whole model folder: the adapter merged in float32, then cast to the base's dtype."""
    trained_learner(run, which).save_merged(folder)


def export_adapter(run: Path, folder: Path, which: str = "last") -> None:
    """Write a PEFT adapter folder, as `PeftModel` and vLLM load it.

    Raises:
        UserError: the policy has no such form.
    """
    learner = trained_learner(run, which)
    if learner.policy.adapter() is None:
        raise UserError(f"the policy in {run} has no adapter (it was trained in full); export it with --form merged")
    learner.save_adapter(folder)


def push_folder(folder: Path, hub_id: str) -> str:
    """Push a folder to a hub repository, private if it is new, and return its address.

    Raises:
        UserError: the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(hub_id, private=True, exist_ok=True)
        return str(api.upload_folder(repo_id=hub_id, folder_path=folder))
    except (HfHubHTTPError, OSError) as error:
        raise UserError(
            f"the hub did not take {hub_id} ({error}); log in with `hf auth login` and try again"
        ) from error


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
