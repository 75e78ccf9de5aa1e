"""`model: recipe:NAME`: a model that another recipe makes, made once and kept in a cache."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

from ..parts import AbsentError, UserError
from .config import Config, read_recipe, resolve, to_tree
from .loop import train
from .runs.files import discard, replacing, write_json
from .runs.locks import alone
from .trained import trained_learner

PREFIX = "recipe:"


def find_model(model: str) -> str:
    """The model's id or folder; `recipe:NAME` is trained (or its making resumed) unless the cache holds it.

    The cache is `$UNDERDOG_CACHE`, else ~/.cache/underdog; its key is the digest of the resolved recipe, and of the one
    that makes that recipe's own model.

    Raises:
        UserError: there is no such recipe, or recipes make each other's models in a circle.
    """
    if not model.startswith(PREFIX):
        return model
    name, folder, config = _place(model)
    if not _is_made(folder):
        with alone(folder.with_name(f"{folder.name}.lock"), lambda: _say(f"another process makes {model}; waiting")):
            if not _is_made(folder):
                _make(config, name, folder)
    return str(folder)


def known_model(model: str) -> str:
    """As `find_model`, but nothing is made.

    Raises:
        AbsentError: it is one that a recipe makes, and the cache does not hold it.
    """
    if not model.startswith(PREFIX):
        return model
    name, folder = _place(model)[:2]
    if not _is_made(folder):
        raise AbsentError(f"{model} is not made yet; a run makes it first, by the recipe {name}")
    return str(folder)


def cache() -> Path:
    """Where made models are kept."""
    return Path(os.environ.get("UNDERDOG_CACHE") or Path.home() / ".cache" / "underdog")


def _place(model: str, after: tuple[str, ...] = ()) -> tuple[str, Path, Config]:
    """The recipe that makes a model, the folder where it is kept, and the recipe's configuration.

    `after` are models that are made from this one.
    """
    if model in after:
        raise UserError(f"recipes make each other's models in a circle: {' <- '.join((*after, model))}")
    name, tree = read_recipe(model.removeprefix(PREFIX))
    config = resolve(tree)
    below = _place(config.model, (*after, model))[1].name if config.model.startswith(PREFIX) else ""
    return name, cache() / "models" / f"{name}-{_digest(config, below)}", config


def _make(config: Config, name: str, folder: Path) -> None:
    run = folder.with_name(f"{folder.name}.run")
    started = (run / "config.yaml").is_file()
    if not started:
        discard(run)
    _say(f"making the model {PREFIX}{name}, once; it is kept in {folder}")
    below, config = find_model(config.model), config.model_copy(update={"out": str(run)})
    try:
        train(config, recipe=name, model=below, resume=started)
    except BaseException as error:
        error.__notes__ = [f"the same command again goes on making {PREFIX}{name}"]  # it is no run of the user's
        raise
    with replacing(folder) as temporary:
        trained_learner(run, below).save_merged(temporary)
        write_json(temporary / "made_by.json", {"recipe": name, "config": to_tree(config)})
    discard(run)


def _is_made(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _digest(config: Config, below: str) -> str:
    tree = json.dumps(to_tree(config), sort_keys=True)
    return hashlib.sha256((tree + below).encode()).hexdigest()[:12]
