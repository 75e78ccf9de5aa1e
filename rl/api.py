"""The Python API: what the command line does, as functions. Overrides are keywords, dotted ones through `**{…}`."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, Literal

from .config import read_recipe, resolve


def train(recipe: str | PathLike[str], *, resume: bool = False, **overrides: Any) -> dict[str, Any]:
    """Train what a recipe describes and return its summary: `train("demo", seed=3, **{"learner.lr": 1e-4})`.

    Raises:
        UserError: bad input. RunError: the run cannot go on; it stays resumable.
    """
    from .loop import train as run
    from .made import find_model

    name, tree = read_recipe(str(recipe))
    config = resolve(tree, overrides)
    return run(config, recipe=name, model=find_model(config.model), resume=resume)


def evaluate(target: str | PathLike[str], *, checkpoint: str = "last", **overrides: Any) -> dict[str, Any]:
    """pass@N with intervals of a run's policy (`last`, `best` or a step), or of a recipe's model as it is."""
    from .measure import measure

    return measure(str(target), overrides, checkpoint)


def verify(
    verifier: Literal["math", "nlu", "lean"],
    file: str | PathLike[str],
    *,
    out: str | PathLike[str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Judge a file of samples and return what they came to: `verify("nlu", "samples.jsonl", task="cola")`.

    The rows with their verdicts are in the file that the result names as `out`. Options are the verifier's.
    """
    from .verify import verify as run

    return run(verifier, Path(file), None if out is None else Path(out), options)


def report(*runs: str | PathLike[str], out: str | PathLike[str] | None = None) -> Path:
    """Write the report of one run, or of several side by side, and return its path."""
    from .runs.report.build import write_report

    return write_report([Path(run) for run in runs], None if out is None else Path(out))


def export(
    run: str | PathLike[str],
    out: str | PathLike[str],
    *,
    form: Literal["merged", "adapter"] = "merged",
    checkpoint: str = "last",
) -> Path:
    """Write a run's policy as a model folder, or as a PEFT adapter folder, and return the folder.

    Raises:
        UserError: `out` exists, or there is no such run or checkpoint.
    """
    from ..parts import UserError
    from .export import export_adapter, export_merged
    from .runs.files import replacing

    folder = Path(out)
    if folder.exists():
        raise UserError(f"{folder} exists; choose another folder")
    with replacing(folder) as temporary:
        (export_merged if form == "merged" else export_adapter)(Path(run), temporary, checkpoint)
    return folder
