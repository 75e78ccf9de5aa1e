"""What a study came to: `study.json`, which holds all that its page and its tables need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ...parts import UserError
from ..runs.files import write_json
from ..runs.folder import installed_versions
from ..runs.reading import Run, is_number
from ..runs.report.charts import Chart, short
from .analyses.base import Cell, Findings, Table
from .finished import Finished
from .grid import Form, Grid
from .sweep import Sweep
from .tried import Tried

FILE = "study.json"


@dataclass(frozen=True)
class Facts:
    """One run in a line; None is what it did not measure. `base` and `final` are pass@1."""

    arm: str
    seed: int
    steps: int
    seconds: float | None
    reward_first: float | None
    reward_last: float | None
    base: float | None
    final: float | None


@dataclass(frozen=True)
class Result:
    """A study's question, its grid as it was run, its runs in a line each, and what its analysis found. A study of an
    experiment has no runs."""

    name: str
    short: bool
    question: str
    grid: dict[str, Any]
    runs: tuple[Facts, ...]
    verdict: str
    tables: tuple[Table, ...]
    charts: tuple[Chart, ...]
    numbers: dict[str, Any]
    versions: dict[str, str]


_RESULT = TypeAdapter(Result)


def conclude(study: Finished) -> Result:
    """Analyse a finished study."""
    found: Findings = study.study.grid.analysis.analyse(study)
    versions = next(iter(study.runs.values())).summary or {}
    runs = tuple(_facts(arm, seed, run) for (arm, seed), run in study.runs.items())
    return _result(study.study, study.study.grid, found, runs, dict(versions.get("versions", {})))


def conclude_sweep(study: Tried) -> Result:
    """Analyse a sweep whose trials are all there."""
    return _result(study.study, study.study.grid, study.study.grid.analysis.analyse(study), (), installed_versions())


def _result(
    study: Form, grid: Grid | Sweep, found: Findings, runs: tuple[Facts, ...], versions: dict[str, str]
) -> Result:
    return Result(
        name=study.name,
        short=study.short,
        question=study.question,
        grid=grid.model_dump(mode="json", exclude={"short"}),
        runs=runs,
        verdict=found.verdict,
        tables=found.tables,
        charts=found.charts,
        numbers=dict(found.numbers),
        versions=versions,
    )


def to_json(result: Result) -> dict[str, Any]:
    """The result as `study.json` holds it."""
    return _RESULT.dump_python(result, mode="json")


def write_result(path: Path, result: Result) -> None:
    """Write `study.json` atomically."""
    write_json(path, to_json(result))


def read_result(path: Path) -> Result:
    """Read a `study.json`.

    Raises:
        UserError: it holds something else.
    """
    try:
        return _RESULT.validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(f"{path} does not hold what a study came to: {error.errors()[0]['msg']}") from None


def to_markdown(result: Result) -> str:
    """The tables, for a reader of the repository."""
    parts = [f"# {result.name}", result.question, result.verdict]
    for table in result.tables:
        rows = [table.columns, ("---",) * len(table.columns), *([written(cell) for cell in row] for row in table.rows)]
        lines = (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
        parts += [f"## {table.title}", "\n".join(lines), table.note]
    return "\n\n".join(part for part in parts if part) + "\n"


def written(cell: Cell) -> str:
    """A cell as a reader sees it."""
    return "—" if cell is None else short(cell) if isinstance(cell, float) else str(cell)


def _facts(arm: str, seed: int, run: Run) -> Facts:
    summary: Mapping[str, Any] = run.summary or {}
    _, rewards = run.series("reward")
    base, final = ({p.n: p.mean for p in block}.get(1) for block in (run.passes("base"), run.passes("final")))
    seconds = summary.get("seconds")
    ends = (rewards[0], rewards[-1]) if rewards else (None, None)
    return Facts(arm, seed, run.step, seconds if is_number(seconds) else None, *ends, base, final)
