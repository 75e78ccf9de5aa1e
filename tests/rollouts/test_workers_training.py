"""Training with rollout workers: their deaths change no bit of it, and however it ends it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from underdog.rl.api import train
from underdog.rollouts.workers import cluster

pytest.importorskip("ray")

PLANTED = Path(__file__).with_name("planted_engine.py")
STEPS = 10
OPTIONS: dict[str, Any] = {"rollouts.workers": 1, "eval.problems": 0, "eval.every": 0}


@pytest.mark.slow
def test_a_worker_killed_in_each_of_ten_steps_changes_no_bit(
    tiny_recipe: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.connect(tmp_path)  # one Ray for both runs
    try:
        calm, wild = (_train(tiny_recipe, tmp_path / name, deaths) for name, deaths in (("calm", 0), ("wild", STEPS)))
    finally:
        cluster.disconnect()
    assert sorted(path.name for path in (tmp_path / "wild-faults").iterdir()) == [f"died_at_{k}" for k in range(STEPS)]
    assert sum("(worker_died)" in message for message in caplog.messages) == STEPS
    assert _metrics(calm) == _metrics(wild)
    for step in range(1, STEPS + 1):
        served = [(run / "rollouts" / f"step_{step}.jsonl").read_bytes() for run in (calm, wild)]
        assert served[0] == served[1]
        rows = [json.loads(line) for line in served[0].splitlines()]
        assert len({(row["problem"], row["index"]) for row in rows}) == len(rows) == 12
    for file in sorted((calm / "adapters" / f"v{STEPS}").iterdir()):
        assert file.read_bytes() == (wild / "adapters" / f"v{STEPS}" / file.name).read_bytes()


def _train(recipe: Path, out: Path, deaths: int) -> Path:
    faults = out.with_name(f"{out.name}-faults")
    faults.mkdir()
    engine = {"name": f"{PLANTED}:Planted", "folder": str(faults), "deaths": deaths}
    train(recipe, out=str(out), steps=STEPS, **{**OPTIONS, "rollouts.engine": engine, "rollouts.workers": 2})
    return out


def _metrics(run: Path) -> list[dict[str, Any]]:
    """What must be bit-equal: all but what depends on the clock and the machine."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == STEPS
    return [{k: v for k, v in row.items() if not k.startswith(("time/", "memory/", "faults/"))} for row in rows]


@dataclass
class Running:
    """A training in a process group of its own."""

    out: Path
    process: subprocess.Popen[str]
    family: list[psutil.Process]
    """All processes that it started."""


@pytest.fixture(scope="module")
def trainings(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Running]]:
    """Three that train with a worker each; they start side by side, each test ends one."""
    running: dict[str, Running] = {}
    for name in ("SIGINT", "SIGTERM", "SIGKILL"):
        out = tmp_path_factory.mktemp(name) / "run"
        options = [f"{key}={value}" for key, value in OPTIONS.items()]
        command = [sys.executable, "-m", "underdog.rl.cli", "train", str(tiny_recipe), f"out={out}", *options]
        process = subprocess.Popen(
            [*command, "steps=100000"], stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=out.parent
        )
        running[name] = Running(out, process, [])
    try:
        for training in running.values():
            _wait_for(lambda t=training: t.process.poll() is not None or len(_lines(t.out)) > 3, 300)
            training.family = psutil.Process(training.process.pid).children(recursive=True)
        yield running
    finally:
        for training in running.values():
            training.process.kill()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGKILL", -signal.SIGKILL)])
def test_however_a_training_ends_it_leaves_no_process_and_no_file_behind(
    trainings: dict[str, Running], tiny_recipe: Path, name: str, code: int
) -> None:
    training = trainings[name]
    process, pid = training.process, training.process.pid
    names = " ".join(one.name() for one in training.family)
    assert "raylet" in names
    assert "ray::Worker" in names
    (temp,) = {one.cmdline()[4] for one in training.family if any(arg.endswith("guard.py") for arg in one.cmdline())}
    assert Path(temp).is_dir()
    if name == "SIGKILL":
        process.kill()
    else:  # to all that share a terminal, or a job's processes
        os.killpg(pid, getattr(signal, name))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    _wait_for(lambda: not any(_alive(one) for one in training.family), 20)
    assert not Path(temp).exists()
    assert list((training.out / "logs" / "ray").glob("session_*/raylet.out"))
    if name != "SIGKILL":
        said = {"SIGINT": "interrupted", "SIGTERM": "terminated"}[name]
        ended = f"underdog: {said}; the same command with out={training.out} --resume goes on"
        assert errors.splitlines()[-1] == ended
        assert "Traceback" not in errors
    if name == "SIGTERM":
        done = len(_lines(training.out))
        train(tiny_recipe, resume=True, out=str(training.out), steps=done + 1, **OPTIONS)
        assert len(_lines(training.out)) == done + 1


def _lines(out: Path) -> list[str]:
    path = out / "metrics.jsonl"
    return path.read_text().splitlines() if path.is_file() else []


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait_for(done: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
