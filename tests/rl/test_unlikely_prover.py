"""The recipes of Rewarding the Unlikely: published settings, variants, `--dry-run`, and steps of the same shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from underdog.parts import UserError
from underdog.rl.api import train
from underdog.rl.checks import check
from underdog.rl.choices import name_of
from underdog.rl.config import Config, read_recipe, resolve
from underdog.rl.data.lean_statements import LeanStatements
from underdog.rl.data.split import load

# Shaping, epochs and KL coefficient of each variant.
VARIANTS: dict[str, tuple[str, int, float]] = {
    "unlikely-prover": ("unlikeliness", 2, 0.1),
    "unlikely-prover-grpo-default": ("none", 1, 0.02),
    "unlikely-prover-high-kl": ("none", 1, 0.1),
    "unlikely-prover-epochs-2": ("none", 2, 0.1),
    "unlikely-prover-epochs-3": ("none", 3, 0.1),
    "unlikely-prover-unlikely-1": ("unlikeliness", 1, 0.1),
    "unlikely-prover-unlikely-2": ("unlikeliness", 2, 0.1),
}
HEADER = "import Mathlib\nimport Aesop\n\nset_option maxHeartbeats 0\n\n"


def recipe(name: str, overrides: dict[str, Any] | None = None) -> Config:
    return resolve(read_recipe(name)[1], overrides)


def written(path: Path, names: list[str], **columns: str) -> str:
    rows = [{"name": n, "formal_statement": f"theorem {n} : 1 = 1 := by\n", "header": HEADER, **columns} for n in names]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def stand_in(bytes_shape: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Twelve problems of one file and four of another's validation half, whose test half is left alone."""
    folder = tmp_path_factory.mktemp("statements")
    book = written(folder / "lean_workbook.jsonl", [f"lean_workbook_{k}" for k in range(12)])
    mini = folder / "minif2f.jsonl"
    written(mini, [f"valid_{k}" for k in range(4)], split="valid")
    first = mini.read_text()
    written(mini, [f"test_{k}" for k in range(4)], split="test")
    mini.write_text(first + mini.read_text())
    return {"model": bytes_shape, "data.path": [book, str(mini)], "data.held_out": 2, "rollouts.engine": "local"}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_settings_are_the_published_ones(name: str) -> None:
    config = recipe(name)
    shaping, epochs, kl = VARIANTS[name]
    r, a, o, e = config.rollouts, config.algorithm, config.learner, config.eval
    assert (config.model, config.seed) == ("deepseek-ai/DeepSeek-Prover-V1.5-SFT", 42)
    assert (r.problems, r.group, r.temperature, r.top_p, r.top_k) == (16, 32, 1, 1, 0)
    assert (config.data.max_prompt_tokens, r.max_tokens) == (512, 512)
    assert (a.informative * r.group, a.minibatch, a.epochs, a.kl) == (256, 256, epochs, kl)
    assert (a.clip_low, a.clip_high, a.kl_estimator, a.kl_cap, a.per) == (0.2, 0.2, "k3", 10, "token")
    assert (a.overlong_penalty, a.mismatch, a.resamples) == (0, "none", True)
    assert name_of(config.shaping) == shaping
    assert shaping == "none" or (config.shaping.beta, config.shaping.form) == (0.25, "paper")
    assert {n: w.weight for n, w in config.rewards.items()} == {"accuracy": 1}
    assert (o.lr, o.schedule.name, o.schedule.warmup, name_of(o.adapter)) == (1e-6, "constant", 0, "full")
    assert (name_of(o.optimizer), o.optimizer.weight_decay, o.max_grad_norm, o.skip_grad_norm) == ("adamw", 0.01, 1, 20)
    assert (name_of(config.verifier), config.verifier.seconds, config.verifier.memory_mib) == ("lean", 300, 10240)
    assert (e.problems, e.n, e.uplift, e.max_tokens, config.eval_sampling().temperature) == (200, 512, 32, 1024, 1)


@pytest.mark.parametrize("name", VARIANTS)
def test_each_recipe_passes_the_dry_run_on_a_stand_in(name: str, stand_in: dict[str, Any]) -> None:
    said: list[str] = []
    check(recipe(name, stand_in), said.append)
    text = "\n".join(said)
    assert "data: 14 problems to train on, 2 held out; 0 duplicates left out" in text
    assert "prompts: 0 too long left out" in text
    assert "Complete the following Lean 4 code:\n\n```lean4\nimport Mathlib" in text


def test_both_readings_of_the_rank_are_an_option(stand_in: dict[str, Any]) -> None:
    assert recipe("unlikely-prover-unlikely-1", {**stand_in, "shaping.form": "code"}).shaping.form == "code"


@pytest.fixture(scope="module")
def small_run(stand_in: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two real steps: groups of 4, three with a signal make a step, two optimizer steps of 8 samples an epoch."""
    folder = tmp_path_factory.mktemp("run")
    judge = "def judge(problem, text):\n    return bool(text) and ord(text[0]) % 4 == 0\n"
    (folder / "judge.py").write_text(judge)
    small: dict[str, Any] = {
        "verifier": f"{folder / 'judge.py'}:judge",
        "rollouts.workers": None,
        "rollouts.problems": 2,
        "rollouts.group": 4,
        "rollouts.max_tokens": 6,
        "algorithm.informative": 3,
        "algorithm.minibatch": 8,
        "learner.ranks": 1,
        "learner.dtype": "float32",
        "eval": {"problems": 2, "n": 4, "uplift": 4},
        "steps": 2,
    }
    train("unlikely-prover", out=str(folder / "out"), **stand_in, **small)
    return folder / "out"


def test_a_step_draws_until_enough_groups_carry_a_signal_and_learns_from_all_of_them(small_run: Path) -> None:
    rows = [json.loads(line) for line in (small_run / "metrics.jsonl").read_text().splitlines()]
    rewards: set[float] = set()
    for step, row in enumerate(rows, start=1):
        samples = [json.loads(x) for x in (small_run / "rollouts" / f"step_{step}.jsonl").read_text().splitlines()]
        groups: dict[int, list[str]] = {}
        for sample in samples:
            groups.setdefault(sample["group"], []).append(sample["outcome"])
        mixed = [len(set(own)) > 1 for own in groups.values()]
        assert row["draws"] * 2 == len(groups)
        assert sum(mixed[:-2]) < 3 <= sum(mixed), "the last draw was needed, and it was enough"
        assert row["groups/used"] == sum(mixed)
        steps_an_epoch = -(-4 * sum(mixed) // 8)
        assert row["updates/steps"] + row["updates/skipped"] == 2 * steps_an_epoch
        rewards |= {sample["reward"] for sample in samples if sample["outcome"] == "right"}
    assert rewards <= {0.75, 0.8125, 0.875, 0.9375}, "1 - beta (G - rank) / G"
    assert len(rewards) > 1


def test_the_run_says_uplift_and_different_proofs(small_run: Path) -> None:
    summary = json.loads((small_run / "summary.json").read_text())
    assert summary["uplift"]["samples"] == 4
    assert summary["base"]["unique_right"]["total"] >= 0
    assert (summary["base"]["problems"], summary["base"]["samples"]) == (2, 4)


def test_files_without_splits_go_by_their_names_and_an_evaluation_file_stays_apart(tmp_path: Path) -> None:
    book = written(tmp_path / "book.jsonl", ["a", "b", "c"])
    mini = written(tmp_path / "mini.jsonl", ["d"], split="valid")
    apart = written(tmp_path / "apart.jsonl", ["c", "e"])
    both = load(LeanStatements(path=[book, mini], split=["book", "valid"], eval_path=apart), 0)
    assert {p.id for p in both.train} == {"a", "b", "d"}, "what is held out is not trained on"
    assert {p.id for p in both.held_out} == {"c", "e"}
    assert {p.info["source"] for p in both.train} == {"book", "valid"}
    assert {p.id for p in LeanStatements(path=[book, mini], split="valid").load(0)} == {"d"}
    with pytest.raises(UserError, match="has no row of split 'tests'; its splits are book, valid"):
        LeanStatements(path=[book, mini], split=["book", "tests"]).load(0)
    with pytest.raises(UserError, match="and .* holds the theorem a twice"):
        LeanStatements(path=[book, written(tmp_path / "more.jsonl", ["a"])]).load(0)
