"""`study.html`: one page of figures and tables, made from `study.json` alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..config import dump_yaml
from ..runs.report.page import Page, Section, h, table_html
from ..runs.report.sections import duration
from .analyses.base import Cell, Table
from .result import Facts, Result, written


def page_of(result: Result) -> Page:
    """The page of a study."""
    runs = [Section("runs", "The runs", _runs(result.runs))] if result.runs else []
    sections = [
        Section("result", "What came out", _findings(result), result.charts),
        *runs,
        Section("grid", "The grid", _grid(result.grid)),
    ]
    title = f"{result.name}, short form" if result.short else result.name
    return Page(title, "study", "study.json", _overview(result), sections)


def _overview(result: Result) -> str:
    arms, seeds = result.grid["arms"], result.grid["seeds"]
    facts: dict[str, Any] = {
        "Recipe": result.grid.get("recipe"),
        "Experiment": result.grid.get("experiment"),
        "Runs": f"{len(arms)} arms × {len(seeds)} seeds",
        "Settings": 1 + sum(map(bool, (keys for at in result.grid.get("map", {}).values() for keys in at.values()))),
        "Arms": ", ".join(arms),
        "Seeds": ", ".join(map(str, seeds)),
        "Software": ", ".join(f"{name} {version}" for name, version in result.versions.items()),
    }
    cells = "".join(f"<div><dt>{h(name)}</dt><dd>{h(value)}</dd></div>" for name, value in facts.items() if value)
    asked = f"<p>{h(result.question)}</p>" if result.question else ""
    return f'{asked}<dl class="facts">{cells}</dl>'


def _findings(result: Result) -> str:
    verdict = f"<p>{h(result.verdict)}</p>" if result.verdict else ""
    return verdict + "".join(_table(table) for table in result.tables)


def _table(table: Table) -> str:
    note = f'<p class="note">{h(table.note)}</p>' if table.note else ""
    return f"<h3>{h(table.title)}</h3>{table_html(_cells(table.columns), [_cells(row) for row in table.rows])}{note}"


def _runs(runs: Sequence[Facts]) -> str:
    """Time stands here, apart from what the study found: it differs from machine to machine and from run to run."""
    head = ("run", "steps", "reward, first step", "reward, last step", "pass@1 of the base", "pass@1 trained", "time")
    rows: list[Sequence[Cell]] = [
        (
            f"{run.arm}, seed {run.seed}",
            str(run.steps),
            *(run.reward_first, run.reward_last, run.base, run.final),
            None if run.seconds is None else duration(run.seconds),
        )
        for run in runs
    ]
    note = "Each run is a process on one thread. Time is the run's own, evaluations included."
    return f'{table_html(_cells(head), [_cells(row) for row in rows])}<p class="note">{h(note)}</p>'


def _grid(grid: dict[str, Any]) -> str:
    return (
        '<div class="config"><button type="button" class="copy" data-copies="config-0">Copy</button>'
        f'<pre id="config-0" tabindex="0" aria-label="The grid">{h(dump_yaml(grid))}</pre></div>'
    )


def _cells(row: Sequence[Cell]) -> list[str]:
    return [h(written(cell)) for cell in row]
