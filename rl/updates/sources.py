"""What a user names, opened: a model folder or hub id, a PEFT adapter, a run folder's version."""

from __future__ import annotations

import json
from pathlib import Path

from ...parts import UserError
from .weights import Adapted, Folder, Pairs, Weights, held, of_learner, pairs_of


def open_pair(base: str, tuned: str | None) -> tuple[Weights, Weights]:
    """Both sides of an update; without `tuned`, `base` is a run, which is compared with the model that it began with.

    Raises:
        UserError: one of them cannot be had; the message says what to give.
    """
    if tuned is not None:
        opened = open_weights(base)
        return opened, open_weights(tuned, opened)
    run, _, step = base.partition("@")
    if not _is_run(Path(run)):
        raise UserError(f"{base} is no run folder, so what it began with is not known: name its base too")
    return open_weights(f"{run}@0"), open_weights(f"{run}@{step or 'last'}")


def open_weights(name: str, base: Weights | None = None) -> Weights:
    """`FOLDER`, `owner/model` of the hub, an adapter's folder (on `base`), `RUN`, `RUN@STEP`, `RUN@best` or `RUN@0`.

    Raises:
        UserError: there is no such thing.
    """
    path, (run, _, step) = Path(name), name.partition("@")
    if _is_run(Path(run)):
        return _of_run(Path(run), step or "last")
    if (path / "adapter_config.json").is_file():
        if base is None:
            raise UserError(f"{name} is an adapter; its base must be given first")
        return Adapted(base, _saved_pairs(path), name)
    if path.is_dir():
        return Folder(path)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError(f"there is no folder {name}; give a model folder, a run folder or a Hugging Face id")
    return Folder(_fetched(name), name)


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file() and (folder / "recipe.json").is_file()


def _of_run(run: Path, which: str) -> Weights:
    """The effective weights of a run's checkpoint; of step 0, the recipe's model without any adapter."""
    from ..assembly import build_learner
    from ..made import find_model
    from ..runs.folder import read_config
    from ..trained import trained_learner
    from ..vocabulary import with_words

    config, label = read_config(run), f"{run}@{which}"
    model = with_words(find_model(config.model), run)
    learner = (
        build_learner(config, model, log=lambda text: None) if which == "0" else trained_learner(run, model, which)
    )
    base = held(f"{run}@0", dict(learner.base_weights()))
    return base if which == "0" else of_learner(learner, base, label)


def _saved_pairs(folder: Path) -> Pairs:
    from safetensors.torch import load_file

    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise UserError(f"{folder} holds no adapter_model.safetensors; give a PEFT adapter's folder")
    return pairs_of(json.loads((folder / "adapter_config.json").read_text()), load_file(file), str(folder))


def _fetched(name: str) -> Path:
    """A hub model's safetensors and configuration, in the hub's own cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.safetensors", "*.json"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{name} could not be fetched from the hub ({reason}); give a model folder or its id") from None
