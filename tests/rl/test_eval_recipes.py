"""The recipes that only measure, on small local files laid out as the published ones, with a random model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from underdog.parts import RunError, UserError
from underdog.records import Problem
from underdog.rl.api import evaluate, train
from underdog.rl.choices import name_of
from underdog.rl.config import read_recipe, resolve
from underdog.rl.data.prompts import wording

ROWS = {
    "math500": [
        {"problem": f"What is $1+{k}$?", "answer": str(1 + k), "subject": ("Algebra", "Geometry")[k % 2]}
        for k in range(4)
    ],
    "aime24": [{"problem": f"Find $n={k}$.", "answer": f"{k:03}"} for k in range(3)],
    "aime25": [{"problem": f"Find $n={k}$.", "answer": k} for k in range(3)],
    "amc23": [{"problem": f"Find $n={k}$.", "answer": float(k)} for k in range(3)],
    "minerva": [{"problem": f"Give $x_{k}$.", "solution": f"So $\\boxed{{{k} \\times 10^{{3}}}}$."} for k in range(3)],
    "olympiadbench": [{"question": f"Find $n={k}$.", "answer": f"$\\frac{{{k}}}{{2}}$"} for k in range(3)],
    "gpqa-diamond": [
        {"Question": f"Which, {k}?", "Correct Answer": "r", **{f"Incorrect Answer {i}": f"w{i}" for i in (1, 2, 3)}}
        for k in range(3)
    ],
}
PUBLISHED = {
    "aime24": ("HuggingFaceH4/aime_2024", None, "train", 30),
    "aime25": ("yentinglin/aime_2025", None, "train", 30),
    "amc23": ("knoveleng/AMC-23", None, "train", 40),
    "math500": ("HuggingFaceH4/MATH-500", None, "test", 500),
    "minerva": ("knoveleng/Minerva-Math", None, "train", 272),
    "olympiadbench": ("knoveleng/OlympiadBench", None, "train", 674),
    "gpqa-diamond": ("Idavidrein/gpqa", "gpqa_diamond", "train", 198),
}
"""Data set, configuration, split and problems of Tina's evaluation tasks."""


def settings(name: str, model: str, folder: Path) -> dict[str, Any]:
    """The recipe on a local copy that is laid out as the published data are, and made small."""
    copy = folder / "copy"
    copy.mkdir()
    split = PUBLISHED[name][2]
    (copy / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[name]))
    small = {"eval.n": 2, "rollouts.max_tokens": 4, "rollouts.engine": "local"}
    return {"model": model, "data.id": str(copy), "data.config": None, **small}


@pytest.mark.parametrize("name", ROWS)
def test_a_test_set_is_measured_whole_and_by_source(
    name: str, bytes_shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
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


@pytest.mark.parametrize("name", ROWS)
def test_the_verifier_finds_the_data_s_own_answers_right(
    name: str, bytes_shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    config = resolve(read_recipe(name)[1], settings(name, bytes_shape, tmp_path))
    problems = config.data.load_evaluation(0)
    assert len(problems) == len(ROWS[name])
    outcomes = [config.verifier.judge(p, f"Thus.\n{config.verifier.reference(p)}").outcome for p in problems]
    config.verifier.close()
    assert outcomes == ["right"] * len(problems)


@pytest.mark.parametrize("name", PUBLISHED)
def test_tina_s_tests_have_the_paper_s_settings(name: str) -> None:
    config = resolve(read_recipe(name)[1])
    data, rollouts = config.data, config.rollouts
    assert (data.id, data.config, data.eval_split, config.eval.problems) == PUBLISHED[name]
    assert (rollouts.temperature, rollouts.top_p, rollouts.top_k, rollouts.max_tokens) == (0.6, 0.95, 0, 32768)
    assert (config.eval.temperature, config.eval.max_tokens, config.eval.n) == (None, None, 10)
    assert (data.chat, data.system, name_of(rollouts.engine)) == (True, None, "vllm")
    text = wording(data, None).text(Problem("p", "THE QUESTION"))
    assert "Think step by step before answering.\n\nTHE QUESTION" in text
    assert ("'Answer: $LETTER'" in text) == (name == "gpqa-diamond")
    assert (r"$\boxed{ANSWER}$" in text) == (name != "gpqa-diamond")


@pytest.mark.parametrize("name", [*ROWS, "minif2f"])
def test_recipes_ask_for_published_data_and_models(name: str) -> None:
    config = resolve(read_recipe(name)[1])
    assert config.data.eval_split is not None or config.data.name == "minif2f"
    assert not config.model.startswith(("shape:", "recipe:"))
