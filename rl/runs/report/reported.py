"""What a verifier reported of an evaluation beside pass@N: as rows, for the page and for terminals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..reading import PassAt, Run
from .figures import interval
from .page import Section, h, table_html

HEAD = ("", "measured", "best constant answer", "answers", "right answers", "invalid")
SHOWN = 6
"""Different answers that a row counts; all stand in the evaluation's file."""


def reported_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """One row a metric, with the part's answers beside its first, and one for the average; plain text, as `HEAD`."""
    rows = []
    for name, part in report.get("parts", {}).items():
        beside = [
            _counts(part.get("answers", {})),
            _counts(part.get("golds", {})),
            f"{part.get('invalid_rate', 0):.1%}",
        ]
        if part.get("collapsed"):
            beside[0] += " (COLLAPSED)"
        for key, figure in part.get("metrics", {}).items():
            best = part.get("baselines", {}).get(key)
            rows.append([f"{name} {key}", _figure(figure), "–" if best is None else f"{best:.3f}", *beside])
            beside = ["", "", ""]
        if "metrics" not in part:
            rows.append([name, "none graded", "–", "", "", ""])
    if "average" in report:
        rows.append(["average", _figure(report["average"]), "–", "", "", ""])
    return rows


def reported(runs: Sequence[Run]) -> Section | None:
    """Each run's base and trained policy, by what the verifier reported of them."""
    blocks = []
    for run in runs:
        for which, title in (("base", "base"), ("final", "trained")):
            report = ((run.summary or {}).get(which) or {}).get("report")
            if report:
                rows = [[h(cell) for cell in row] for row in reported_rows(report)]
                name = f"{run.name}: {title}" if len(runs) > 1 else title
                blocks.append(f"<h3>{h(name)}</h3>{table_html(HEAD, rows)}")
    note = '<p class="note">95 % intervals by resampling problems; an invalid answer is a wrong one.</p>'
    return Section("metrics", "The verifier's own measures", "".join(blocks) + note) if blocks else None


def _figure(figure: Mapping[str, Any]) -> str:
    return interval(PassAt(1, figure["mean"], *figure["ci95"]))


def _counts(counts: Mapping[str, int]) -> str:
    said = [f"{answer} {number}" for answer, number in list(counts.items())[:SHOWN]]
    return ", ".join(said) + (f", {len(counts) - SHOWN} more" if len(counts) > SHOWN else "")
