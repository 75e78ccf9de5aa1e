"""A run that is killed and resumed ends as one that never was: adapter bytes, data order, samples and metrics."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from underdog.parts import RunError, UserError
from underdog.rl.api import train
from underdog.rl.runs import checkpoint
from underdog.rl.runs.metrics import TIMING

NO_EVALUATION: dict[str, Any] = {"eval.every": 0}
DRIVER = Path(__file__).with_name("killed_run.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}  # one thread count on both sides, as on one machine


def start(recipe: Path, out: Path, place: str = "nowhere", visit: int = 0, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(DRIVER), str(recipe), str(out), place, str(visit), *more]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> int:
    _, errors = process.communicate(timeout=300)
    assert process.returncode in (0, -signal.SIGKILL), errors.decode()
    return process.returncode


def metrics(out: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith(TIMING)} for row in rows]


def samples(out: Path) -> list[list[dict[str, object]]]:
    files = sorted((out / "rollouts").glob("step_*.jsonl"), key=lambda path: int(path.stem[5:]))
    rows = [[json.loads(line) for line in path.read_text().splitlines()] for path in files]
    return [[{key: value for key, value in row.items() if key != "seconds"} for row in step] for step in rows]


def adapter_bytes(out: Path) -> bytes:
    return (out / "adapters" / "v24" / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def uninterrupted(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert finish(start(tiny_recipe, out)) == 0
    return out


def assert_same_end(out: Path, whole: Path) -> None:
    assert adapter_bytes(out) == adapter_bytes(whole)
    assert metrics(out) == metrics(whole)
    assert samples(out) == samples(whole)
    results = [json.loads((folder / "summary.json").read_text()) for folder in (out, whole)]
    assert results[0]["final"] == results[1]["final"]
    assert not [path for path in out.rglob(".*") if path.suffix in {".tmp", ".removed"}]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "visit"),
    [("generation", 200), ("update", 25), ("checkpoint", 5), ("pruning", 4), ("metrics", 17)],
)
def test_killed_in_the_midst_of(place: str, visit: int, tiny_recipe: Path, uninterrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert finish(start(tiny_recipe, out, place, visit)) == -signal.SIGKILL
    assert not (out / "summary.json").exists()
    assert finish(start(tiny_recipe, out, "nowhere", 0, "--resume")) == 0
    assert_same_end(out, uninterrupted)


@pytest.mark.slow
def test_killed_again_and_again_at_random_moments(tiny_recipe: Path, uninterrupted: Path, tmp_path: Path) -> None:
    out, chance = tmp_path / "run", random.Random(0)
    for _ in range(5):
        process = start(tiny_recipe, out, "nowhere", 0, "--resume")
        while process.poll() is None and not (out / "metrics.jsonl").exists():
            time.sleep(0.05)
        time.sleep(chance.uniform(0.2, 2.0))
        process.kill()
        finish(process)
    assert finish(start(tiny_recipe, out, "nowhere", 0, "--resume")) == 0
    assert_same_end(out, uninterrupted)


@pytest.mark.slow
def test_a_critic_and_its_controllers_are_resumed_bit_for_bit(tiny_recipe: Path, tmp_path: Path) -> None:
    """PPO with a trunk of its own, a steered KL coefficient and scaled values, killed in the midst of an update."""
    recipe = tmp_path / "ppo.yaml"
    ppo = "{name: ppo, kl: 0.1, kl_target: 0.01, kl_horizon: 100, whiten_values: true, epochs: 2, minibatch: 5}"
    text = tiny_recipe.read_text().replace("{name: grpo, kl: 0.01}", ppo)
    recipe.write_text(text.replace("{lr: 1e-3,", "{lr: 1e-3, critic: {name: own, lr: 1e-2},"))
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert finish(start(recipe, whole)) == 0
    assert finish(start(recipe, out, "update", 90)) == -signal.SIGKILL
    assert not (out / "summary.json").exists()
    assert finish(start(recipe, out, "nowhere", 0, "--resume")) == 0
    assert_same_end(out, whole)
    coefficients = {row["kl_coefficient"] for row in metrics(out)}
    assert len(coefficients) == 24
    states = [(folder / "checkpoints" / "step_24" / checkpoint.STATE).read_text() for folder in (out, whole)]
    assert json.loads(states[0])["algorithm"] == json.loads(states[1])["algorithm"]
    digests = [json.loads(state)["sha256"] for state in states]
    assert digests[0] == digests[1]


def test_more_steps_go_on_where_a_run_ended(tiny_recipe: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    train(str(tiny_recipe), out=out, steps=2)
    first = (tmp_path / "run" / "rollouts" / "step_2.jsonl").read_bytes()
    train(str(tiny_recipe), out=out, steps=4, resume=True)
    assert [row["step"] for row in metrics(tmp_path / "run")] == [1, 2, 3, 4]
    assert (tmp_path / "run" / "rollouts" / "step_2.jsonl").read_bytes() == first
    with pytest.raises(UserError, match="has done 4 steps"):
        train(str(tiny_recipe), out=out, steps=3, resume=True)


def test_a_resume_with_another_configuration_is_refused(tiny_recipe: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    train(str(tiny_recipe), out=out, steps=1)
    with pytest.raises(UserError, match="another learner"):
        train(str(tiny_recipe), out=out, steps=2, resume=True, **{"learner.lr": 1.0})
    with pytest.raises(UserError, match="exists"):
        train(str(tiny_recipe), out=out)
    with pytest.raises(UserError, match="holds no run"):
        train(str(tiny_recipe), out=str(tmp_path / "nothing"), resume=True)


def test_a_damaged_checkpoint_is_named_and_an_earlier_one_goes_on(tiny_recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(str(tiny_recipe), out=str(out), steps=4, **NO_EVALUATION)
    tensors = out / "checkpoints" / "step_4" / checkpoint.TENSORS
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:-5] + b"xxxxx")
    with pytest.raises(RunError, match=r"step_4 is damaged .* resume goes on from step 2"):
        train(str(tiny_recipe), out=str(out), steps=6, resume=True, **NO_EVALUATION)
    checkpoint.discard(tensors.parent)
    train(str(tiny_recipe), out=str(out), steps=6, resume=True, **NO_EVALUATION)
    assert [row["step"] for row in metrics(out)] == [1, 2, 3, 4, 5, 6]


def test_checkpoints_are_safetensors_and_json(tiny_recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(str(tiny_recipe), out=str(out), steps=2)
    names = {path.suffix for path in (out / "checkpoints").rglob("*") if path.is_file()}
    assert names <= {".safetensors", ".json"}
    with safe_open(out / "checkpoints" / "step_2" / checkpoint.TENSORS, "pt") as file:
        assert any(name.startswith("optimizer/") for name in file.keys())  # noqa: SIM118 (no mapping)


def test_replay_trains_from_saved_samples_as_the_run_did(tiny_recipe: Path, tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    train(str(tiny_recipe), out=str(first), steps=3)
    replay: dict[str, Any] = {"rollouts.engine": {"name": "replay", "run": str(first)}}
    train(str(tiny_recipe), out=str(again), steps=3, **replay)
    assert samples(again) == samples(first)
    assert [row["loss"] for row in metrics(again)] == [row["loss"] for row in metrics(first)]
