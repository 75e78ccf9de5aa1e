"""The recipes that only measure, on small local files laid out as the published ones, with a random model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from underdog.parts import RunError, UserError
from underdog.rl.api import evaluate, train
from underdog.rl.config import read_recipe, resolve

ROWS = {
    "math500": [
        {"problem": f"What is $1+{k}$?", "answer": str(1 + k), "subject": ("Algebra", "Geometry")[k % 2]}
        for k in range(4)
    ],
    "aime24": [{"problem": f"Find $n={k}$.", "answer": f"{k:03}"} for k in range(3)],
    "amc23": [{"problem": f"Find $n={k}$.", "answer": float(k)} for k in range(3)],
}


def settings(name: str, model: str, folder: Path) -> dict[str, Any]:
    """The recipe on a file; the local form that its comment gives."""
    path = folder / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS[name]))
    block = {"name": "file", "path": None, "eval_path": str(path), "prompt": "problem", "template": "boxed"}
    source = {"source": "subject"} if name == "math500" else {}
    return {"model": model, "data": {**block, **source}, "eval.n": 2, "rollouts.max_tokens": 4}


@pytest.mark.parametrize("name", ROWS)
def test_a_test_set_is_measured_whole_and_by_source(name: str, bytes_shape: str, tmp_path: Path) -> None:
    result = evaluate(name, **settings(name, bytes_shape, tmp_path))
    assert (len(result["problems"]), result["samples"], result["ungraded"]) == (len(ROWS[name]), 2, 0)
    assert sum(result["reasons"].values()) == 2 * len(ROWS[name])
    parts = {"Algebra": 2, "Geometry": 2} if name == "math500" else {}
    assert {source: part["problems"] for source, part in result.get("sources", {}).items()} == parts


def test_a_test_set_is_nothing_to_train_on(bytes_shape: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(UserError, match="none to train on; measure with `underdog eval`"):
        train("aime24", out=str(out), **settings("aime24", bytes_shape, tmp_path))


def test_without_lean_minif2f_stops_and_says_why(bytes_shape: str, tmp_path: Path) -> None:
    path = tmp_path / "statements.jsonl"
    path.write_text(json.dumps({"name": "one", "split": "test", "formal_statement": "theorem one : 1 = 1 := by sorry"}))
    small: dict[str, Any] = {"eval.n": 1, "rollouts.max_tokens": 4, "verifier.command": "/no/such/lean"}
    with pytest.raises(RunError, match="not one sample could be graded .*infrastructure.*; there is no command"):
        evaluate("minif2f", model=bytes_shape, **{"data.path": str(path)}, **small)


@pytest.mark.parametrize("name", [*ROWS, "minif2f"])
def test_recipes_ask_for_published_data_and_models(name: str) -> None:
    config = resolve(read_recipe(name)[1])
    assert config.data.eval_split is not None or config.data.name == "minif2f"
    assert not config.model.startswith(("shape:", "recipe:"))
