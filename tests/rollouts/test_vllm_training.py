"""The demo's own recipe on two real vLLM workers, short: it trains, and a worker's death loses and doubles nothing."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytest.importorskip("vllm")
pytest.importorskip("ray")

STEPS = 3
SHORT = [
    "model=shape:tiny-reasoner",
    "rollouts.problems=4",
    "rollouts.group=4",
    "shaping=none",
    "eval.every=0",
    "eval.problems=8",
    "eval.n=4",
]
EVEN = """
def even(group):
    return [sum(c in "02468" for c in s.text) / max(len(s.text), 1) for s in group.samples]
"""


@pytest.mark.slow
def test_the_demo_trains_on_two_workers_one_of_which_is_killed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    # Of a model without training next to nothing is right: another reward gives a signal.
    (tmp_path / "even.py").write_text(EVEN)
    options = [*SHORT, f"rewards.{tmp_path / 'even.py'}:even=1", f"steps={STEPS}", f"out={out}"]
    command = [sys.executable, "-m", "underdog.rl.cli", "train", "demo", "rollouts.engine=vllm", "rollouts.workers=2"]
    with (tmp_path / "said").open("w") as said:
        training = subprocess.Popen([*command, *options], stdout=said, stderr=said)
        try:
            _wait_for(lambda: training.poll() is not None or len(_metrics(out)) == 1, 300)
            killed = _workers(training)
            assert len(killed) == 2
            killed[0].kill()
            assert training.wait(300) == 0, (tmp_path / "said").read_text()[-2000:]
        finally:
            training.kill()
    metrics = _metrics(out)
    assert sum(row.get("faults/worker_died", 0) for row in metrics) == 1
    assert [row["grad_norm"] > 0 for row in metrics] == [True] * STEPS
    for step, row in enumerate(metrics, 1):
        assert row["rollouts/stale_fraction"] == 0
        assert row["freshness/gap"] <= 1e-4
        samples = [json.loads(line) for line in (out / "rollouts" / f"step_{step}.jsonl").read_text().splitlines()]
        assert len({(sample["problem"], sample["index"]) for sample in samples}) == len(samples) == 16
    summary = json.loads((out / "summary.json").read_text())
    assert summary["base"]["problems"] == summary["final"]["problems"] == 8


def _workers(training: subprocess.Popen[bytes]) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(training.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [child] if child.name().startswith("ray::Worker") else []
    return found


def _metrics(out: Path) -> list[dict[str, float]]:
    path = out / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [row for line in lines if "reward" in (row := json.loads(line))]


def _wait_for(done: object, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
