"""From a grid to runs: each with its folder, its overrides, and the runs that must have finished before it begins."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...parts import UserError, nearest
from ..config import Config, read_recipe, resolve, to_tree
from ..runs.folder import read_config
from ..runs.reading import LOCK
from ..runs.report.sections import flatten
from .grid import Grid, Overrides, Study, laid_over

RUNS = "runs"
_BRACES = re.compile(r"\{\{|\}\}|\{([\w.+-]*)\}")
"""As in format strings: {arm}, and doubled braces for single ones."""


@dataclass(frozen=True)
class Planned:
    """One run of a study. `overrides` are dotted and hold all that is not the recipe's, `out` and `seed` too."""

    arm: str
    seed: int
    folder: Path
    overrides: Overrides
    needs: tuple[Path, ...]
    """Folders of the runs that must finish first."""

    @property
    def name(self) -> str:
        """What its folder is called."""
        return self.folder.name

    @property
    def finished(self) -> bool:
        """Whether it came to its end."""
        return (self.folder / "summary.json").is_file()

    @property
    def begun(self) -> bool:
        """Whether there is something to resume."""
        return (self.folder / "config.yaml").is_file()

    @property
    def lock(self) -> Path:
        """Held by the process that trains it."""
        return self.folder / LOCK


def run_folder(root: Path, arm: str, seed: int) -> Path:
    """Where one run of the study in `root` stands."""
    return root / RUNS / f"{arm}-seed{seed}"


def plan(study: Study, root: Path) -> list[Planned]:
    """The runs of a study in `root`, seed by seed, each after those that it needs.

    Raises:
        UserError: an arm needs one that there is not, or itself; or the recipe cannot take an arm's keys.
    """
    grid = study.grid
    order = _in_order({arm: sorted(_needs(grid, arm)) for arm in grid.arms})
    runs = [_planned(grid, root, arm, seed) for seed in grid.seeds for arm in order]
    tree = read_recipe(grid.recipe)[1]
    for run in runs[: len(order)]:  # seeds differ in nothing that could be wrong
        _resolved(tree, run)
    return runs


def check_unchanged(study: Study, runs: Sequence[Planned]) -> None:
    """Refuse to mix what an earlier grid (or recipe) made with what this one would.

    Raises:
        UserError: runs that are there were made otherwise; the sentence names them and the keys.
    """
    tree = read_recipe(study.grid.recipe)[1]
    found = {run.name: keys for run in runs if run.begun and (keys := _differences(study.grid, tree, run))}
    if found:
        said = "; ".join(f"{name} ({', '.join(keys)})" for name, keys in found.items())
        folder = runs[0].folder.parent
        raise UserError(
            f"the study {study.name} has changed since these runs in {folder} were made: {said}; remove their "
            "folders to make them again, choose another --out, or put the study back as it was"
        )


def _differences(grid: Grid, tree: Mapping[str, Any], run: Planned) -> list[str]:
    """Dotted keys in which a run that is there differs from the planned one, wherever its folder stood then."""
    recorded = read_config(run.folder)
    stood = Path(recorded.out or run.folder).parents[1]
    expected = _resolved(tree, _planned(grid, stood, run.arm, run.seed))
    before, now = dict(flatten(to_tree(recorded))), dict(flatten(to_tree(expected)))
    keys = [k for k in before | now if k != "out" and before.get(k) != now.get(k)]
    redone = [f"made from an earlier {path.name}" for path in run.needs if not (path / "summary.json").is_file()]
    return [*keys, *redone]


def _planned(grid: Grid, root: Path, arm: str, seed: int) -> Planned:
    folder = run_folder(root, arm, seed)
    folders = {other: str(run_folder(root, other, seed)) for other in grid.arms}
    own = laid_over(grid.overrides, grid.arms[arm])
    overrides = {key: _filled(value, folders) for key, value in own.items()} | {"seed": seed, "out": str(folder)}
    return Planned(arm, seed, folder, overrides, tuple(Path(folders[need]) for need in sorted(_needs(grid, arm))))


def _resolved(tree: Mapping[str, Any], run: Planned) -> Config:
    try:
        return resolve(tree, run.overrides)
    except UserError as error:
        raise UserError(f"the arm {run.arm}: {error}") from None


def _needs(grid: Grid, arm: str) -> set[str]:
    """The arms named in braces, each of them there."""
    found = {name for value in laid_over(grid.overrides, grid.arms[arm]).values() for name in _named(value)}
    for name in sorted(found - grid.arms.keys()):
        close = nearest(name, tuple(grid.arms))
        hint = f"did you mean {{{close}}}?" if close else f"the arms are {', '.join(grid.arms)}"
        raise UserError(
            f"the arm {arm} names {{{name}}}, which is no arm here; {hint} (double braces stand for single)"
        )
    return found


def _named(value: Any) -> Iterator[str]:
    """The names in braces in all texts of a value."""
    if isinstance(value, str):
        yield from (match[1] for match in _BRACES.finditer(value) if match[1] is not None)
    elif isinstance(value, Mapping):
        for below in value.values():
            yield from _named(below)
    elif isinstance(value, list):
        for below in value:
            yield from _named(below)


def _filled(value: Any, folders: Mapping[str, str]) -> Any:
    """The value with folders in place of the names in braces."""
    if isinstance(value, str):
        return _BRACES.sub(lambda match: match[0][0] if match[1] is None else folders[match[1]], value)
    if isinstance(value, Mapping):
        return {key: _filled(below, folders) for key, below in value.items()}
    return [_filled(below, folders) for below in value] if isinstance(value, list) else value


def _in_order(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """The arms as they stand in the grid, but each after those that it needs."""
    order: list[str] = []

    def visit(arm: str, path: tuple[str, ...]) -> None:
        if arm in path:
            circle = " -> ".join([*path[path.index(arm) :], arm])
            raise UserError(f"arms need each other in a circle, so none can run first: {circle}")
        for need in needs[arm] if arm not in order else ():
            visit(need, (*path, arm))
        if arm not in order:
            order.append(arm)

    for arm in needs:
        visit(arm, ())
    return order
