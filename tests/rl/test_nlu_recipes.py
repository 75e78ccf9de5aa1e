"""The recipes for language understanding: each resolves, as do its arms, and one runs on a small local folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from underdog.parts import find
from underdog.rl.api import train
from underdog.rl.cli.main import main
from underdog.rl.config import parse_overrides, parse_yaml, read_recipe, recipe_names, resolve, to_yaml

RECIPES = ("nlu-cola", "nlu-sst2", "nlu-rte", "nlu-cb", "nlu-boolq", "nlu-glue", "nlu-superglue")
ARMS = {
    "zero-shot": ["steps=0"],
    "few-shot": ["steps=0", "data.shots=5"],
    "supervised": ["algorithm=supervised", "rollouts.engine=gold", "learner.optimizer=adamw"],
    "code": ["rewards={nlu_code: 1}"],
    "biases": ["learner.adapter.bias=all"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """CoLA and RTE, as they are handed out, a few rows each."""
    for name in ("CoLA", "RTE"):
        (tmp_path / name).mkdir()
    for split, who in (("train", "They"), ("dev", "We")):
        lines = [f"s\t{n % 2}\t\t{who} left {n}.\n" for n in range(16)]
        (tmp_path / f"CoLA/{split}.tsv").write_text("".join(lines))
    for split in ("train", "val"):
        rows = [
            {"premise": f"{split} {n}.", "hypothesis": "Wet.", "label": ("entailment", "not_entailment")[n % 2]}
            for n in range(12)
        ]
        (tmp_path / f"RTE/{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_the_seven_recipes_are_there() -> None:
    assert {name for name in recipe_names() if name.startswith("nlu-")} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("arm", ["ppo", *ARMS])
def test_every_arm_resolves_and_is_shown_as_it_would_run(name: str, arm: str) -> None:
    config = resolve(read_recipe(name)[1], parse_overrides(ARMS.get(arm, [])))
    assert resolve(parse_yaml(to_yaml(config), "shown")) == config
    adapter = config.learner.adapter
    assert (adapter.r, adapter.alpha, adapter.rslora) == (16, 32, True)
    assert adapter.bias == ("all" if arm == "biases" else "none")
    assert list(config.rewards) == ["nlu_code" if arm == "code" else "nlu_paper"]
    assert type(config.algorithm) is find("algorithm", "supervised" if arm == "supervised" else "ppo")


@pytest.mark.parametrize("name", RECIPES)
def test_a_dry_run_needs_neither_data_nor_model(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["underdog", "train", name, "out=never", "--dry-run"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    shown, _, words = capsys.readouterr().out.partition("\nwould run")
    assert "16 problems x 1 samples" in words
    assert resolve(parse_yaml(shown, "shown")) == resolve(read_recipe(name)[1], {"out": "never"})
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["ppo", "few-shot", "supervised"])
def test_a_recipe_runs_on_a_local_folder(arm: str, bytes_shape: str, folder: Path, tmp_path: Path) -> None:
    overrides = parse_overrides(ARMS.get(arm, [])) | {
        "model": bytes_shape,
        "data.task": ["cola", "rte"],
        "data.path": str(folder),
        "data.limit": None,
        "rollouts.problems": 4,
        "rollouts.max_tokens": 40,
        "eval.problems": 12,
        "tracking.every": 0,
    }
    steps = overrides.pop("steps", 2)
    summary = train("nlu-glue", out=str(tmp_path / "run"), steps=steps, **overrides)
    assert (summary["steps"], summary["final"]["problems"]) == (steps, 12)
    for name in ("base", "final"):
        report = json.loads((tmp_path / "run" / "evaluations" / f"{name}.json").read_text())["report"]
        assert summary[name]["report"] == report
        assert sum(part["rows"] for part in report["parts"].values()) == 12
        assert {metric for part in report["parts"].values() for metric in part["metrics"]} == {"matthews", "accuracy"}
        assert len(report["average"]["ci95"]) == 2
    page = (tmp_path / "run" / "report.html").read_text()
    assert "cola matthews" in page
    assert "rte accuracy" in page
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines() if steps else []
    for row in map(json.loads, lines):
        assert row["reward"] == (1.0 if arm == "supervised" else -1.0)
