"""`underdog study`: run a grid or a sweep, or what is left of it, and write down in one page what it came to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...parts import RunError, UserError
from ..runs.files import write_text
from ..runs.locks import take
from ..runs.report.page import render_page, write_page
from .analyses.base import Analysis, SweepAnalysis
from .finished import Finished
from .grid import Study, read_study, study_file
from .page import page_of
from .plan import Planned, check_unchanged, plan
from .result import FILE, Result, conclude, conclude_sweep, read_result, to_markdown, write_result
from .runner import LOGS, Crew, Say
from .sweep import SweepStudy, Trial, read_sweep, trials
from .tried import Tried, check_trials, compute

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
    """Run a study and analyse it; the result, and the page that shows it.

    Args:
        name: a study in `recipes/studies/`, or the path of a .yaml file.
        short: the short form.
        report: train nothing; take what is there.
        keep: also keep the result in the checkout's docs/studies/.
        out: the study's folder; None is studies/NAME, or studies/NAME-short.
        jobs: trainings at once; None is one a core. The trials of an experiment come one after another.
        say: told what happens, a line at a time.

    Raises:
        UserError: bad input, or a grid that is not the one by which runs in the folder were made.
        RunError: a training failed, or another process runs this study.
    """
    if jobs is not None and jobs < 1:
        raise UserError(f"jobs={jobs}: at least one training must run")
    if keep:
        _check_keep(short)
    work = _work(name, short, out, jobs or os.cpu_count() or 1)
    work.check()
    if report:
        result = _known(work)
    else:
        _alone(work, say)
        result = _concluded(work)
    page = write_page(work.root / "study.html", render_page(page_of(result)))
    if keep:
        _keep(result, say)
    return result, page


@dataclass(frozen=True)
class _Trainings:
    """What a study of trainings has to do."""

    study: Study
    root: Path
    runs: Sequence[Planned]
    jobs: int

    @property
    def pieces(self) -> list[bool]:
        return [run.finished for run in self.runs]

    def check(self) -> None:
        check_unchanged(self.study, self.runs)

    def do(self, say: Say) -> None:
        done = sum(self.pieces)
        say(f"{self.study.form}: {len(self.runs)} runs, {done or 'none'} finished already; at most {self.jobs} at once")
        Crew(self.study.grid.recipe, self.runs, self.root / LOGS, self.jobs, say).work()

    def conclude(self) -> Result:
        return conclude(Finished.read(self.study, self.root))


@dataclass(frozen=True)
class _Trials:
    """What a study of an experiment has to do."""

    study: SweepStudy
    root: Path
    trials: Sequence[Trial]

    @property
    def pieces(self) -> list[bool]:
        return [trial.file.is_file() for trial in self.trials]

    def check(self) -> None:
        check_trials(self.study, self.trials)

    def do(self, say: Say) -> None:
        done = sum(self.pieces)
        say(f"{self.study.form}: {len(self.trials)} trials, {done or 'none'} finished already; one after another, here")
        compute(self.trials, say)

    def conclude(self) -> Result:
        return conclude_sweep(Tried.read(self.study, self.trials))


def _work(name: str, short: bool, out: Path | None, jobs: int) -> _Trainings | _Trials:
    if "experiment" in study_file(name)[2]:
        sweep = read_sweep(name, short=short)
        if not isinstance(sweep.grid.analysis, SweepAnalysis):
            raise UserError(f"{sweep.name}: its analysis is of trainings; an experiment needs one of trials")
        root = out or Path("studies") / sweep.form
        return _Trials(sweep, root, trials(sweep, root))
    study = read_study(name, short=short)
    if not isinstance(study.grid.analysis, Analysis):
        raise UserError(f"{study.name}: its analysis is of an experiment's trials; a recipe needs one of trainings")
    root = out or Path("studies") / study.form
    return _Trainings(study, root, plan(study, root), jobs)


def _alone(work: _Trainings | _Trials, say: Say) -> None:
    work.root.mkdir(parents=True, exist_ok=True)
    lock = take(work.root / "lock")
    if lock is None:
        raise RunError(f"another process runs the study in {work.root}; wait for it, or choose another --out")
    with lock:
        work.do(say)


def _concluded(work: _Trainings | _Trials) -> Result:
    result = work.conclude()
    write_result(work.root / FILE, result)
    return result


def _known(work: _Trainings | _Trials) -> Result:
    """What the pieces come to if all are finished, else what was written down of them, here or in the checkout."""
    if all(work.pieces):
        return _concluded(work)
    for path in (work.root / FILE, KEPT / work.study.form / FILE):
        if path.is_file():
            return read_result(path)
    done, of = sum(work.pieces), len(work.pieces)
    kind = "runs" if isinstance(work, _Trainings) else "trials"
    raise UserError(f"{done} of {of} {kind} in {work.root} are finished, so there is no report; leave --report out")


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
