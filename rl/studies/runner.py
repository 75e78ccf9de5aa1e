"""Runs a plan's trainings, as many at once as asked: what has finished is skipped, what was cut off is resumed.

Each training is a process of its own on one thread, so that its numbers do not depend on how many ran beside it.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ...parts import RunError
from ..runs.files import discard
from ..runs.locks import is_taken
from ..runs.report.sections import duration
from .plan import Planned

LOGS = "logs"
POLL = 0.1
"""Seconds between looks at what runs."""
GRACE = 30.0
"""Seconds in which a training may close its files when the study stops; then it is killed, and resumes all the same."""
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
TRAIN = (sys.executable, "-m", f"{__package__}.child", "train")

Say = Callable[[str], None]


class Crew:
    """The trainings of one study: those that wait, and those that run."""

    def __init__(self, recipe: str, runs: Sequence[Planned], logs: Path, jobs: int, say: Say) -> None:
        self.recipe, self.logs, self.jobs, self.say = recipe, logs, jobs, say
        self.waiting = [run for run in runs if not run.finished]
        self.running: dict[Path, tuple[Planned, subprocess.Popen[bytes], float]] = {}
        self.elsewhere: set[Path] = set()
        """Runs that another process was found to train."""

    def work(self) -> None:
        """Train all that is not finished.

        Raises:
            RunError: a training failed; the others were stopped and can be resumed.
        """
        try:
            while self.waiting or self.running:
                self._start_some()
                time.sleep(POLL)
                self._look()
        except KeyboardInterrupt as error:
            error.add_note("the same command goes on where it stopped")
            raise
        finally:
            self._stop()

    def _start_some(self) -> None:
        for run in [run for run in self.waiting if self._ready(run)]:
            if len(self.running) >= self.jobs:
                return
            self.waiting.remove(run)
            if not run.finished:  # else the process that was found at work on it has finished it
                self.running[run.folder] = (run, self._start(run), time.monotonic())

    def _ready(self, run: Planned) -> bool:
        """Whether all that it needs is there, and nobody trains it: such as what a killed study left, for a moment."""
        if not all((need / "summary.json").is_file() and need not in self.running for need in run.needs):
            return False
        if not is_taken(run.lock):
            return True
        if run.folder not in self.elsewhere:
            self.elsewhere.add(run.folder)
            self.say(f"{run.name}: another process is training it; waiting")
        return False

    def _start(self, run: Planned) -> subprocess.Popen[bytes]:
        if not run.begun:
            discard(run.folder)  # killed before it wrote down what it is
        overrides = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in run.overrides.items()]
        arguments = [self.recipe, *overrides, *(["--resume"] if run.begun else [])]
        self.say(f"{run.name}: {'resumed' if run.begun else 'started'}")
        self.logs.mkdir(parents=True, exist_ok=True)
        with log_file(self.logs, run).open("a", encoding="utf-8") as log:
            log.write(f"$ {shlex.join(['underdog', 'train', *arguments])}\n")
            log.flush()
            return subprocess.Popen(
                [*TRAIN, *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, **THREADS},
                start_new_session=True,  # what a terminal sends reaches the study, which then ends its trainings
            )

    def _look(self) -> None:
        for folder, (run, process, since) in list(self.running.items()):
            if process.poll() is None:
                continue
            del self.running[folder]
            _close(process)
            if process.returncode or not run.finished:
                raise RunError(self._failure(run, process.returncode))
            left = len(self.waiting) + len(self.running)
            self.say(f"{run.name}: done after {duration(time.monotonic() - since)}; {left or 'none'} left")

    def _failure(self, run: Planned, code: int) -> str:
        log = log_file(self.logs, run)
        how = f"was killed by signal {-code}" if code < 0 else f"failed with exit code {code}"
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        last = lines[-1].strip().removeprefix("underdog: ") if lines and not lines[-1].startswith("$ ") else ""
        reason = f" ({last})" if last and code > 0 else ""
        return f"the run {run.name} {how}{reason}; its log is {log}, and the same command goes on from there"

    def _stop(self) -> None:
        """Ask all trainings to end, and kill those that do not."""
        for _, process, _ in self.running.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        for run, process, _ in self.running.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            _close(process)
            self.say(f"{run.name}: stopped; it can be resumed")
        self.running.clear()


def log_file(logs: Path, run: Planned) -> Path:
    """Where a training's output goes."""
    return logs / f"{run.name}.log"


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
