"""The Python API: what the command line does, as functions. Overrides are keywords, dotted ones through `**{…}`."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..parts import UserError
from .config import read_recipe, resolve

if TYPE_CHECKING:
    from .updates.maps import UpdateMap
    from .updates.overlap import Overlaps


def train(recipe: str | PathLike[str], *, resume: bool = False, **overrides: Any) -> dict[str, Any]:
    """Train what a recipe describes and return its summary: `train("demo", seed=3, **{"learner.lr": 1e-4})`.

    Raises:
        UserError: bad input. RunError: the run cannot go on; it stays resumable.
    """
    from .reach import settle

    name, tree = read_recipe(str(recipe))
    config = resolve(tree, overrides)
    settle(config)
    from .loop import train as run
    from .made import find_model

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


def study(
    name: str | PathLike[str],
    *,
    short: bool = False,
    report: bool = False,
    keep: bool = False,
    out: str | PathLike[str] | None = None,
    jobs: int | None = None,
) -> dict[str, Any]:
    """Run a grid of trainings, or what is left of it, and return what study.json in its folder holds.

    `report` trains nothing and takes what is there. The page is study.html in the study's folder.

    Raises:
        UserError: bad input. RunError: a training failed; the same call goes on.
    """
    from .studies.result import to_json
    from .studies.study import run_study

    folder = None if out is None else Path(out)
    result, _ = run_study(str(name), short=short, report=report, keep=keep, out=folder, jobs=jobs)
    return to_json(result)


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
    from .export import export_adapter, export_merged
    from .runs.files import replacing

    folder = Path(out)
    if folder.exists():
        raise UserError(f"{folder} exists; choose another folder")
    with replacing(folder) as temporary:
        (export_merged if form == "merged" else export_adapter)(Path(run), temporary, checkpoint)
    return folder


def analyze(
    base: str | PathLike[str],
    tuned: str | PathLike[str] | None = None,
    *,
    spectra: int = 32,
    out: str | PathLike[str] | None = None,
) -> UpdateMap:
    """The update map from `base` to `tuned`: which parameters changed, by tensor; `.frame()` is a data frame.

    Each is a model folder or hub id, a PEFT adapter's folder, or a run (`RUN`, `RUN@STEP`, `RUN@best`, `RUN@0`);
    without `tuned`, `base` is a run, compared with the model that it began with. Ranks and singular values are computed
    for the `spectra` largest matrices; `out` is a folder for updates.json, updates.parquet and updates.html.

    Raises:
        UserError: one of them cannot be had, or they have nothing in common.
    """
    from .updates.maps import compare
    from .updates.output import write
    from .updates.sources import open_pair

    update = compare(*open_pair(str(base), None if tuned is None else str(tuned)), spectra=spectra)
    if out is not None:
        write(update, Path(out))
    return update


def overlap(
    *tuned: str | PathLike[str],
    base: str | PathLike[str] | None = None,
    tolerance: float = 0.0,
    out: str | PathLike[str] | None = None,
) -> Overlaps:
    """Overlap of the sets of weights that two or more runs or models changed, beside what chance would give.

    `base` is where all of them began; runs know their own. `out` is a folder for overlap.json and overlap.parquet.

    Raises:
        UserError: fewer than two are named, or one of them cannot be had.
    """
    from .updates.output import write_overlaps
    from .updates.overlap import overlaps
    from .updates.sources import open_pair

    if len(tuned) < 2:
        raise UserError("name at least two runs or models whose updates are to be compared")
    sides = [open_pair(str(one), None) if base is None else open_pair(str(base), str(one)) for one in tuned]
    found = overlaps(sides, tolerance)
    if out is not None:
        write_overlaps(found, Path(out))
    return found
