"""`--dry-run`: what it tries without a model's weights, and what it says of what it cannot try."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from underdog.rl import reach
from underdog.rl.config import resolve

ROWS = [{"problem": f"What is {n}+1?", "answer": str(n + 1)} for n in range(12)]


@pytest.fixture
def recipe(bytes_shape: str, tmp_path: Path) -> Path:
    """A recipe on a file of twelve problems."""
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    path = tmp_path / "sums.yaml"
    path.write_text(
        f"model: {bytes_shape}\n"
        f"data: {{name: file, path: {tmp_path / 'data.jsonl'}, prompt: problem, template: boxed, held_out: 2}}\n"
        "rollouts: {problems: 3, group: 4, max_tokens: 12}\n"
        "learner: {adapter: {name: lora, r: 4, alpha: 8}}\n"
    )
    return path


def test_it_tries_data_prompts_adapter_and_verifier(underdog: Any, recipe: Path) -> None:
    said = underdog("train", recipe, "out=never", "--dry-run")
    assert (said.code, said.err) == (0, "")
    _, _, words = said.out.partition("\nwould run")
    assert "data: 10 problems to train on, 2 held out; 0 duplicates left out" in words
    assert "prompts: 0 too long left out, 0 cut; template " in words
    number = int(words.partition("+1?")[0].split()[-1])
    assert f"whose gold answer is '{number + 1}':\nWhat is {number}+1?\nPlease reason step by step" in words
    # q, o: 32 -> 32; k, v: 32 -> 16; gate, up: 32 -> 64; down: 64 -> 32: two layers of rank 4
    rank, sums = 4, 2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 64)
    assert f"adapter: lora trains {2 * rank * sums:,} numbers in 28 tensors, of a model of " in words
    assert "the verifier finds 100.0% of 12 gold answers right" in words


@pytest.mark.parametrize(
    ("override", "code", "sentence"),
    [
        ("data.prompt=question", 2, "no column 'question' (data.prompt)"),
        ("learner.adapter.targets=[q_proj, w_proj]", 2, "the model has no module named w_proj"),
        ("data.template=open_rs", 2, "did you mean 'open-rs'"),
        ("data.max_prompt_tokens=8", 2, "no problem is left"),
        ("data.answer=problem", 1, "the verifier accepts 0.0% of the data set's own gold answers"),
    ],
)
def test_what_is_wrong_ends_it_in_one_sentence(
    override: str, code: int, sentence: str, underdog: Any, recipe: Path
) -> None:
    said = underdog("train", recipe, "out=never", override, "verifier={name: math, numbers_only: true}", "--dry-run")
    assert said.code == code
    assert sentence in said.sentence
    assert "\nwould run" in said.out


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("data.path=nowhere.jsonl", "data: not checked: there is no file nowhere.jsonl"),
        ("data={name: hub, id: some/where}", "data: not checked: the data set 'some/where' could not be loaded"),
        ("model=some/where", "model: not checked: model: 'some/where' could not be loaded"),
    ],
)
def test_what_is_not_here_is_said_and_the_rest_is_tried(override: str, line: str, underdog: Any, recipe: Path) -> None:
    said = underdog("train", recipe, "out=never", override, "--dry-run")
    assert said.code == 0
    assert line in said.out
    assert ("adapter: lora trains" in said.out) == override.startswith("data")
    assert ("gold answers right" in said.out) == override.startswith("model")


def test_a_model_that_a_recipe_makes_is_not_made_for_it(
    underdog: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNDERDOG_CACHE", str(tmp_path))
    said = underdog("train", "demo", "data.count=300", "--dry-run")
    assert said.code == 0
    assert "model: not checked: recipe:demo-base is not made yet; a run makes it first" in said.out
    assert "gold answers right" in said.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", ["some/where", "shape:tiny-reasoner"])
def test_the_hub_s_libraries_are_told_when_it_is_out_of_reach(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed port stands for the hub; nothing is asked where a recipe needs nothing of it."""
    config = resolve({"model": model, "data": "arithmetic"})
    monkeypatch.delenv(reach.OFFLINE)
    monkeypatch.delitem(sys.modules, "huggingface_hub", raising=False)
    monkeypatch.setattr(reach, "getproxies", dict)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert reach.settle(config) == (model == "some/where")
        assert (reach.os.environ.get(reach.OFFLINE) == "1") == (model == "some/where")
        monkeypatch.delenv(reach.OFFLINE, raising=False)
        taken.listen()
        assert not reach.settle(config)
        assert reach.OFFLINE not in reach.os.environ
