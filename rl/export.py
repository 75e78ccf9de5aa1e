"""A trained policy as others load it: a PEFT folder, or the adapter merged into a model folder."""

from __future__ import annotations

from pathlib import Path

from ..parts import UserError
from .learner.learner import Learner
from .made import find_model
from .runs.folder import read_config
from .trained import trained_learner


def export_merged(run: Path, folder: Path, which: str = "last") -> None:
    """Write a whole model folder: the adapter merged in float32, then cast to the base's dtype."""
    _learner(run, which).save_merged(folder)


def export_adapter(run: Path, folder: Path, which: str = "last") -> None:
    """Write a PEFT adapter folder, as `PeftModel` and vLLM load it.

    Raises:
        UserError: the policy has no such form.
    """
    learner = _learner(run, which)
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


def _learner(run: Path, which: str) -> Learner:
    return trained_learner(run, find_model(read_config(run).model), which)
