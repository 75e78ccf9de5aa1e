"""Each thing a user can get wrong ends in one sentence that helps, a non-zero exit code, and nothing half-written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "demo", "lerner.lr=1"], "unknown key lerner.lr; did you mean learner.lr?"),
        (["train", "dmeo"], "there is no recipe 'dmeo'; did you mean 'demo'?"),
        (["train", "demo", "learner.lr=1e"], "learner.lr"),
        (["train", "demo", "steps"], "write it as key=value"),
        (["train", "demo", "model=./nowhere"], "there is no folder ./nowhere"),
        (["train", "demo", "model=shape:tiny-reasonr"], "did you mean shape:tiny-reasoner?"),
        (["train", "demo", "model=shape:tiny-reasoner", "init_adapter=nowhere"], "nowhere"),
        (["train", "demo", "model=shape:tiny-reasoner", "trackers=[wandb]"], "pip install wandb"),
        (["train", "demo", "rewards.mine.py:f=1"], "mine.py"),
        (["train", "nowhere.yaml"], "there is no recipe 'nowhere.yaml'"),
        (["eval", "runs/nothing"], "there is no run runs/nothing"),
        (["eval", "demo", "model=shape:tiny-reasoner", "eval.problems=0"], "no problem is held out"),
        (["report", "nothing"], "nothing"),
        (["export", "nothing", "model"], "nothing holds no run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input(
    underdog: Any, arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments[-1] == "trackers=[wandb]":
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ended = underdog(*arguments)
    assert ended.code == 2
    assert said in ended.sentence
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_column_that_is_not_there(underdog: Any, tiny_recipe: Path, tmp_path: Path) -> None:
    data = tmp_path / "sums.jsonl"
    data.write_text('{"question": "1+1=", "result": "2"}\n')
    block = f"data={{name: file, path: {data}, prompt: qestion, answer: result}}"
    ended = underdog("train", tiny_recipe, block, f"out={tmp_path / 'run'}")
    assert ended.code == 2
    assert "no column 'qestion'" in ended.sentence
    assert "did you mean 'question'? its columns are question, result" in ended.sentence
    assert [path.name for path in tmp_path.iterdir()] == ["sums.jsonl"]


def test_an_out_that_exists(underdog: Any, tiny_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("precious")
    ended = underdog("train", tiny_recipe, f"out={tmp_path / 'run'}")
    assert ended.code == 2
    assert "exists; choose another `out`, or add --resume" in ended.sentence
    ended = underdog("train", tiny_recipe, f"out={tmp_path / 'run'}", "--resume")
    assert ended.code == 2
    assert "holds no run" in ended.sentence
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "mine.txt"]


def test_an_export_never_overwrites(underdog: Any, finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert "exists; choose another folder" in underdog("export", finished_run, tmp_path / "model").sentence
    ended = underdog("export", finished_run, tmp_path / "new", "--checkpoint", "7")
    assert ended.code == 2
    assert "no checkpoint '7'; it holds steps 3, 4" in ended.sentence
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("what", ["state cut short", "state without a key", "tensors changed", "tensors gone"])
def test_a_corrupt_checkpoint(underdog: Any, tiny_recipe: Path, finished_run: Path, what: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished_run, out)
    newest = out / "checkpoints" / "step_4"
    state, tensors = newest / "state.json", newest / "learner.safetensors"
    if what == "state cut short":
        state.write_bytes(state.read_bytes()[:-40])
    elif what == "state without a key":
        state.write_text(json.dumps({"step": 4}))
    elif what == "tensors changed":
        tensors.write_bytes(tensors.read_bytes()[:-1] + b"?")
    else:
        tensors.unlink()
    before = {path: path.read_bytes() for path in newest.rglob("*") if path.is_file()}
    ended = underdog("train", tiny_recipe, f"out={out}", "steps=5", "--resume")
    assert ended.code == 1
    assert f"checkpoint {newest} is damaged" in ended.sentence
    assert "remove that folder and resume goes on from step 3" in ended.sentence
    assert {path: path.read_bytes() for path in newest.rglob("*") if path.is_file()} == before
    ended = underdog("export", out, tmp_path / "model")
    assert (ended.code, (tmp_path / "model").exists()) == (1, False)
    shutil.rmtree(newest)
    assert underdog("train", tiny_recipe, f"out={out}", "steps=5", "--resume").code == 0


def test_a_run_without_any_signal_stops_and_says_why(underdog: Any, tiny_recipe: Path, tmp_path: Path) -> None:
    quick = ("eval.problems=0", "eval.every=0", "algorithm.kl=0", "rewards={accuracy: 1}", "steps=50")
    ended = underdog("train", tiny_recipe, f"out={tmp_path / 'run'}", *quick)
    assert ended.code == 1
    assert "steps in a row gave no signal" in ended.sentence
    assert json.loads((tmp_path / "run" / "failure.json").read_text())["error"] in ended.sentence


def test_a_place_without_write_permission(underdog: Any, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/there/run")

    monkeypatch.setattr(Path, "mkdir", refused)  # the super-user, as whom tests may run, is refused nothing
    ended = underdog("train", tiny_recipe, "out=/there/run")
    assert (ended.code, ended.sentence) == (2, "/there/run: Permission denied; choose a place that you may write to")


def test_a_wrong_option_shows_the_usage(underdog: Any) -> None:
    ended = underdog("train", "demo", "--resme")
    assert ended.code == 2
    assert "--resume" in ended.err
