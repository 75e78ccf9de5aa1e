"""Real trainings: a study that is killed, and whose trainings are killed, ends with the table of one left in peace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from underdog.rl.config import read_recipe, resolve
from underdog.rl.runs.locks import is_taken
from underdog.rl.runs.reading import read_run
from underdog.rl.studies.grid import read_study
from underdog.rl.studies.plan import plan
from underdog.tests.rl.studies.small_run import write

pytestmark = pytest.mark.slow


def start(name: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "underdog.rl.cli", "study", str(name), "--out", str(out), "--jobs", "1"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=300)
    return process.returncode, said


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, finish(process)
        time.sleep(0.01)


def steps(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_text().count("\n") if path.is_file() else 0


def found(out: Path) -> dict[str, Any]:
    """What study.json holds, but for time."""
    result = json.loads((out / "study.json").read_text())
    for run in result["runs"]:
        run["seconds"] = None
    return result


def finish_seed_1(name: Path, root: Path) -> None:
    """One seed is enough to kill; the other makes intervals of it, without any training."""
    study = read_study(str(name))
    tree = read_recipe(study.grid.recipe)[1]
    for run in plan(study, root):
        if run.seed == 1:
            write(resolve(tree, run.overrides), [0.25, 0.5], 0.25, 0.5)


def test_killed_twice_and_started_again(write_study: Callable[..., Path], tmp_path: Path) -> None:
    name = write_study(("steps: 8", "steps: 16"), ("adapters/v8", "adapters/v16"))
    calm, out = tmp_path / "calm", tmp_path / "killed"
    for root in (calm, out):
        finish_seed_1(name, root)
    undisturbed = start(name, calm)  # beside the other, since most of a small training is its imports

    study = start(name, out)
    first = out / "runs" / "first-seed0"
    wait_for(lambda: steps(first) >= 3, study)
    study.kill()
    finish(study)
    deadline = time.monotonic() + 10
    while is_taken(first / "logs" / "lock"):  # the training dies with the study
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not (first / "summary.json").exists()

    study = start(name, out)
    second = out / "runs" / "second-seed0"
    wait_for(lambda: steps(second) >= 3, study)
    os.kill(int((second / "logs" / "lock").read_text()), signal.SIGKILL)
    code, said = finish(study)
    assert code == 1
    assert said.splitlines()[-1].startswith("underdog: the run second-seed0 was killed by signal 9; its log is ")

    code, said = finish(start(name, out))
    assert code == 0
    assert "second-seed0: resumed" in said
    assert finish(undisturbed)[0] == 0
    assert found(out) == found(calm)
    assert (out / "study.html").is_file()
    assert read_run(second).config["init_adapter"] == f"{first}/adapters/v16"
