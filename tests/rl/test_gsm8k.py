"""The recipe gsm8k: two real steps on a local copy of the data, with a small random model that reads bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from underdog.rl.api import train
from underdog.rl.config import read_recipe, resolve

GSM8K = Path(__file__).resolve().parents[2] / "../shared/data/gsm8k"
pytestmark = pytest.mark.skipif(not (GSM8K / "test.jsonl").is_file(), reason=f"no copy of GSM8K in {GSM8K}")

ROWS = 40
"""Of the training set; the whole of it takes a while to tokenise, byte by byte."""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the hub's: the first rows of both sets."""
    folder = tmp_path_factory.mktemp("gsm8k")
    for name in ("train.jsonl", "test.jsonl"):
        lines = (GSM8K / name).read_text().splitlines(keepends=True)
        (folder / name).write_text("".join(lines[:ROWS]))
    return folder


def settings(model: str, folder: Path) -> dict[str, Any]:
    """The recipe made small; a reward that random text can earn stands beside accuracy."""
    (folder / "mine.py").write_text(
        "def letters(group):\n    return [sum(map(str.isalpha, s.text)) / max(len(s.text), 1) for s in group.samples]\n"
    )
    return {
        "model": model,
        "steps": 2,
        "rewards": {"accuracy": 1, f"{folder / 'mine.py'}:letters": 0.5},
        "rollouts.problems": 2,
        "rollouts.group": 4,
        "rollouts.max_tokens": 16,
        "eval": {"problems": 4, "n": 2},
    }


def local_file(folder: Path) -> dict[str, Any]:
    """The recipe's data block as a file's."""
    block = {"path": str(folder / "train.jsonl"), "eval_path": str(folder / "test.jsonl"), "answer_after": "####"}
    return {"data": {"name": "file", "prompt": "question", "template": "boxed", **block}}


def test_the_recipe_asks_for_the_hub_s_data_and_the_model_s_own_template() -> None:
    config = resolve(read_recipe("gsm8k")[1])
    assert (config.data.id, config.data.eval_split, config.data.chat) == ("openai/gsm8k", "test", True)
    assert not config.model.startswith(("shape:", "recipe:"))


def test_two_real_steps_on_a_local_copy(bytes_shape: str, copy: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = train("gsm8k", out=str(out), **local_file(copy), **settings(bytes_shape, tmp_path))
    assert summary["steps"] == 2
    assert summary["final"]["problems"] == 4
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["updates/steps"] == 1 and row["grad_norm"] > 0 for row in rows)
    adapters = [load_file(out / "adapters" / "v2" / "adapter_model.safetensors")]
    assert any(abs(tensor).max() > 0 for name, tensor in adapters[0].items() if "lora_B" in name)

    counts = json.loads((out / "data.json").read_text())
    assert counts["data/train"] == ROWS
    questions = {json.loads(line)["question"] for line in (copy / "train.jsonl").read_text().splitlines()}
    answers = {line.rpartition("#### ")[2].rstrip('"}') for line in (copy / "train.jsonl").read_text().splitlines()}
    for line in (out / "rollouts" / "step_1.jsonl").read_text().splitlines():
        sample = json.loads(line)
        assert sample["prompt"].partition("\n")[0] in {q.partition("\n")[0] for q in questions}
        assert sample["answer"] in answers


def test_a_local_copy_may_lie_as_the_hub_lays_it_out(
    bytes_shape: str, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    folder = shutil.copytree(copy, tmp_path / "data")
    config = resolve(read_recipe("gsm8k")[1], {"data.id": str(folder), "data.config": None, "data.limit": 5})
    problems, held_out = config.data.load(0), config.data.load_evaluation(0)
    assert (len(problems), len(held_out or [])) == (5, ROWS)
    assert problems[0].answer == "72"
    assert problems[0].solution is not None
    assert problems[0].solution.endswith("#### 72")
