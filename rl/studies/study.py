"""`underdog study`: run a grid, or what is left of it, and write down in one page what it came to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ...parts import RunError, UserError
from ..runs.files import write_text
from ..runs.locks import take
from ..runs.report.page import render_page, write_page
from .finished import Finished
from .grid import Study, read_study
from .page import page_of
from .plan import Planned, check_unchanged, plan
from .result import FILE, Result, conclude, read_result, to_markdown, write_result
from .runner import LOGS, Crew, Say

CHECKOUT = Path(__file__).resolve().parents[2]
KEPT = CHECKOUT / "docs" / "studies"
"""Where a checkout keeps what finished studies came to."""


def run_study(
    name: str,
    *,
    short: bool = False,
    report: bool = False,
    keep: bool = False,
    out: Path | None = None,
    jobs: int | None = None,
    say: Say = lambda text: None,
) -> tuple[Result, Path]:
    """Run a study's grid and analyse it; the result, and the page that shows it.

    Args:
        name: a study in `recipes/studies/`, or the path of a .yaml file.
        short: the short form.
        report: train nothing; take what is there.
        keep: also keep the result in the checkout's docs/studies/.
        out: the study's folder; None is studies/NAME, or studies/NAME-short.
        jobs: trainings at once; None is one a core.
        say: told what happens, a line at a time.

    Raises:
        UserError: bad input, or a grid that is not the one by which runs in the folder were made.
        RunError: a training failed, or another process runs this study.
    """
    if jobs is not None and jobs < 1:
        raise UserError(f"jobs={jobs}: at least one training must run")
    if keep:
        _check_keep(short)
    study = read_study(name, short=short)
    root = out or Path("studies") / study.form
    runs = plan(study, root)
    check_unchanged(study, runs)
    if report:
        result = _known(study, root, runs)
    else:
        _train(study, root, runs, jobs or os.cpu_count() or 1, say)
        result = _conclude(study, root)
    page = write_page(root / "study.html", render_page(page_of(result)))
    if keep:
        _keep(result, say)
    return result, page


def _train(study: Study, root: Path, runs: Sequence[Planned], jobs: int, say: Say) -> None:
    root.mkdir(parents=True, exist_ok=True)
    lock = take(root / "lock")
    if lock is None:
        raise RunError(f"another process runs the study in {root}; wait for it, or choose another --out")
    with lock:
        done = sum(run.finished for run in runs)
        say(f"{study.form}: {len(runs)} runs, {done or 'none'} finished already; at most {jobs} at once")
        Crew(study.grid.recipe, runs, root / LOGS, jobs, say).work()


def _conclude(study: Study, root: Path) -> Result:
    result = conclude(Finished.read(study, root))
    write_result(root / FILE, result)
    return result


def _known(study: Study, root: Path, runs: Sequence[Planned]) -> Result:
    """What the runs come to if all have finished, else what was written down of them, here or in the checkout."""
    if all(run.finished for run in runs):
        return _conclude(study, root)
    for path in (root / FILE, KEPT / study.form / FILE):
        if path.is_file():
            return read_result(path)
    done = sum(run.finished for run in runs)
    raise UserError(f"{done} of {len(runs)} runs in {root} are finished, so there is no report; leave --report out")


def _check_keep(short: bool) -> None:
    if short:
        raise UserError("--keep keeps what a full study came to; leave --short out")
    if not KEPT.parent.is_dir():
        raise UserError("--keep writes into docs/studies of a checkout of Underdog, and this is an installed package")


def _keep(result: Result, say: Say) -> None:
    folder = KEPT / result.name
    write_result(folder / FILE, result)
    write_text(folder / "study.md", to_markdown(result))
    say(f"kept in docs/studies/{result.name}")
