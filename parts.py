"""A name in a recipe is a file: the strict options that every part has, and the finding of parts by name.

`algorithm: dr_grpo` is `rl/algorithms/dr_grpo.py`, which holds one public class derived from `Part`; the class's
fields are its options. `my_file.py:MyReward` in the same place brings the user's own. Nothing is registered: adding a
method is adding a file. No heavy import stands here, nor at the module level of any part, so that help and schemas
need no torch.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict

ROOMS = {
    "algorithm": "rl.algorithms",
    "engine": "rollouts",
    "verifier": "verifiers",
    "reward": "rewards",
    "shaping": "rewards.shaping",
    "data": "rl.data",
    "adapter": "rl.learner.adapters",
    "critic": "rl.learner.critics",
    "initialisation": "rl.learner.initialisations",
    "mask": "rl.learner.masks",
    "optimizer": "rl.learner.optimizers",
    "perturbation": "rl.learner.perturbations",
    "regulariser": "rl.learner.regularisers",
    "analysis": "rl.studies.analyses",
    "experiment": "rl.studies.experiments",
}
"""Which folder holds which kind of part."""


class UserError(Exception):
    """Bad input: one sentence that says what to do. The command line prints it and exits with code 2."""


class AbsentError(UserError):
    """What the input names is not here: a file, a data set or a model that no network brings. The rest may be right."""


class RunError(Exception):
    """A run that cannot go on: one sentence that says why and what to do. Exit code 1."""


class Options(BaseModel):
    """A strict block of options: unknown keys and wrong types are errors, values never change once read."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class Part(Options):
    """One method of one kind: an algorithm, a reward, a verifier, an engine ... with its options as fields."""


def find(kind: str, name: str) -> Any:
    """The class of the part `name` of `kind`, or whatever `file.py:name` holds.

    Raises:
        UserError: there is no such part; the message names the nearest one.
    """
    if ":" in name:
        return _from_file(kind, name)
    if name not in names(kind):
        raise UserError(f"there is no {kind} named {name!r}; {_hint(name, names(kind))}")
    return _part_of(_module(kind, name))


@cache
def names(kind: str) -> tuple[str, ...]:
    """All parts of `kind`, sorted: the files of its room that hold a part, `name.py` or `name/name.py`."""
    room = importlib.import_module(f"{_package()}.{ROOMS[kind]}")
    files = [file for path in room.__path__ for file in Path(path).glob("*.py")]
    files += [file for path in room.__path__ for file in Path(path).glob("*/*.py") if file.stem == file.parent.name]
    return tuple(sorted(file.stem for file in files if _part_of(_module(kind, file.stem)) is not None))


def nearest(word: str, known: list[str] | tuple[str, ...]) -> str | None:
    """The known word that `word` most likely meant, or None."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return close[0] if close else None


def _hint(word: str, known: tuple[str, ...]) -> str:
    close = nearest(word, known)
    return f"did you mean {close!r}?" if close else f"choose one of {', '.join(known)}"


def _package() -> str:
    return __name__.rpartition(".")[0]


def _module(kind: str, name: str) -> ModuleType:
    """The file of that name, or in a folder of that name the file of that name."""
    module = importlib.import_module(f"{_package()}.{ROOMS[kind]}.{name}")
    own_folder = getattr(module, "__file__", None) is None
    return importlib.import_module(f"{module.__name__}.{name}") if own_folder else module


def _part_of(module: ModuleType) -> type[Part] | None:
    """The one public part that a module defines itself; None for a module that only serves the parts beside it."""
    key = module.__name__.rpartition(".")[2].replace("_", "")
    for value in vars(module).values():
        own = isinstance(value, type) and issubclass(value, Part) and value.__module__ == module.__name__
        if own and value.__name__.lower() == key:
            return value
    return None


def _from_file(kind: str, name: str) -> Any:
    path, _, attribute = name.rpartition(":")
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise UserError(f"{kind} {name!r}: there is no file {path}; write it as path/to/file.py:name")
    module_name = f"underdog_user_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    module = sys.modules.get(module_name)
    if module is None:
        spec = importlib.util.spec_from_file_location(module_name, file)
        if spec is None or spec.loader is None:
            raise UserError(f"{kind} {name!r}: {path} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        spec.loader.exec_module(module)
    if not hasattr(module, attribute):
        public = tuple(n for n in vars(module) if not n.startswith("_"))
        raise UserError(f"{kind} {name!r}: {path} holds no {attribute!r}; {_hint(attribute, public)}")
    return getattr(module, attribute)
