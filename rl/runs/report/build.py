"""`report.html`: one self-contained page a run, or one for several side by side. Needs no torch and no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Template

from ....parts import UserError
from ..reading import Run, read_runs
from .page import Page, Section, asset, h, render_page, write_page
from .samples import Chosen, choose
from .sections import build_sections, overview

SAMPLES = 400
"""At most so many samples are embedded."""


def write_report(runs: Sequence[Path], out: Path | None = None) -> Path:
    """Write the report of one run folder, or of several side by side, and return its path.

    Without `out` it is `report.html` in the one run's folder, or `comparison.html` in the working directory.

    Raises:
        UserError: no run was named, a folder holds no run, or `out` is a folder.
        RunError: the file cannot be written.
    """
    if not runs:
        raise UserError("name at least one run folder, such as runs/demo-1")
    read = read_runs(runs)
    target = out or (read[0].folder / "report.html" if len(read) == 1 else Path("comparison.html"))
    if target.is_dir():
        raise UserError(f"{target} is a folder; name a file for the report, such as {target / 'report.html'}")
    return write_page(target, render(read))


def render(runs: Sequence[Run]) -> str:
    """The whole page."""
    sections = build_sections(runs)
    chosen = choose(runs, SAMPLES)
    if chosen.total:
        sections.insert(-1, _browser(runs, chosen))  # the configuration stays last
    data = {"runs": [run.name for run in runs], "samples": chosen.samples, "prompts": chosen.prompts}
    title = " · ".join(run.name for run in runs)
    return render_page(Page(title, "run report", "the run folder", overview(runs), sections, data))


def _browser(runs: Sequence[Run], chosen: Chosen) -> Section:
    damaged = f" {chosen.damaged} lines could not be read." if chosen.damaged else ""
    shown = (
        f"{len(chosen.samples):,} of {chosen.total:,} saved samples are in this page: of steps all along the run, the "
        f"best, the worst, the ungraded and some of the rest.{damaged} All stand in the run folder under rollouts/."
    )
    body = Template(asset("samples.html")).substitute(shown=h(shown), hidden="" if len(runs) > 1 else "hidden")
    return Section("samples", "Samples", body)
