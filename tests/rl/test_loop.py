"""The loop as a whole, on a very small model: it learns, and what would make a run meaningless stops it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from underdog.parts import RunError, UserError
from underdog.rl.api import train

OWN = '''
from dataclasses import replace
from underdog.records import Verdict, Version
from underdog.rollouts.local import Local, LocalEngine
from underdog.verifiers.base import Verifier


def constant(group):
    return [1.0 for _ in group.samples]


class Stale(Local):
    """An engine that keeps serving the first version: the most common silent failure in the field."""

    def open(self, surroundings):
        engine = super().open(surroundings)
        publish, first = engine.publish, []
        engine.publish = lambda policy: (first.append(publish(policy)) if not first else None) or Version(
            policy.number, policy.digest()
        )
        return engine


class Broken(Verifier):
    """A verifier whose tool is missing."""

    def judge_all(self, submissions):
        return [Verdict("could_not_grade", "no_tool") for _ in submissions]


class Picky(Verifier):
    """Every other sample could not be graded."""

    def judge_all(self, submissions):
        outcomes = ["wrong", "could_not_grade"]
        return [Verdict(outcomes[i % 2], "planted") for i in range(len(submissions))]
'''


@pytest.fixture
def own(tmp_path: Path) -> str:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return str(path)


def rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def run(recipe: Path, out: Path, **overrides: Any) -> dict[str, Any]:
    return train(str(recipe), out=str(out), **{"eval.problems": 0, "eval.every": 0, **overrides})


@pytest.mark.slow
def test_reward_goes_up(tiny_recipe: Path, tmp_path: Path) -> None:
    run(
        tiny_recipe,
        tmp_path / "run",
        steps=16,
        **{
            "rollouts.problems": 8,
            "rollouts.group": 8,
            "learner.adapter": "full",
            "learner.lr": 1e-2,
            "algorithm.kl": 0.0,
        },
    )
    reward = [row["reward"] for row in rows(tmp_path / "run")]
    assert sum(reward[-5:]) / 5 > sum(reward[:5]) / 5 + 0.2


def test_every_sample_carries_the_version_that_served_it(tiny_recipe: Path, tmp_path: Path) -> None:
    run(tiny_recipe, tmp_path / "run", steps=3)
    for step in (1, 2, 3):
        text = (tmp_path / "run" / "rollouts" / f"step_{step}.jsonl").read_text()
        assert {json.loads(line)["version"] for line in text.splitlines()} == {step - 1}
    digests = [json.loads(line) for line in (tmp_path / "run" / "adapters" / "digests.jsonl").read_text().splitlines()]
    assert len({row["sha256"] for row in digests}) == len(digests) == 3


def test_a_stale_engine_stops_the_run_at_the_first_step_it_acts_on(tiny_recipe: Path, own: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="served version 0 where version 1 was published"):
        run(tiny_recipe, tmp_path / "run", steps=3, **{"rollouts.engine": f"{own}:Stale"})
    assert len(rows(tmp_path / "run")) == 1


def test_a_run_without_any_signal_stops_and_says_why(tiny_recipe: Path, own: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="8 steps in a row gave no signal"):
        run(
            tiny_recipe,
            tmp_path / "run",
            steps=20,
            rewards={f"{own}:constant": 1},
            algorithm={"name": "grpo", "kl": 0.0},
        )
    assert json.loads((tmp_path / "run" / "failure.json").read_text())["error"].startswith("8 steps")


def test_a_verifier_that_grades_nothing_stops_the_run(tiny_recipe: Path, own: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not one sample could be graded .no_tool."):
        run(tiny_recipe, tmp_path / "run", verifier=f"{own}:Broken", min_gold_rate=0.0)


def test_a_verifier_that_refuses_the_gold_answers_trains_nothing(tiny_recipe: Path, own: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="accepts 0.0% of the data set's own gold answers, fewer than 98.0%.*no_tool"):
        run(tiny_recipe, tmp_path / "run", verifier=f"{own}:Broken")
    assert not (tmp_path / "run" / "rollouts").exists()


def test_samples_that_could_not_be_graded_count_nowhere(tiny_recipe: Path, own: str, tmp_path: Path) -> None:
    run(tiny_recipe, tmp_path / "run", steps=1, verifier=f"{own}:Picky", min_gold_rate=0.0)
    (row,) = rows(tmp_path / "run")
    saved = [json.loads(line) for line in (tmp_path / "run" / "rollouts" / "step_1.jsonl").read_text().splitlines()]
    graded = [s for s in saved if s["outcome"] != "could_not_grade"]
    assert row["verify/could_not_grade"] == 0.5
    assert all(s["reward"] is None for s in saved if s["outcome"] == "could_not_grade")
    assert row["reward"] == pytest.approx(sum(s["reward"] for s in graded) / len(graded))


def test_bad_input_leaves_no_folder_behind(tiny_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leaves none"):
        run(tiny_recipe, tmp_path / "run", **{"data.held_out": 64})
    assert not (tmp_path / "run").exists()


def test_a_small_data_set_is_drawn_again_with_other_seeds(tiny_recipe: Path, tmp_path: Path) -> None:
    run(tiny_recipe, tmp_path / "run", steps=1, **{"data.count": 10, "rollouts.problems": 5})
    saved = [json.loads(line) for line in (tmp_path / "run" / "rollouts" / "step_1.jsonl").read_text().splitlines()]
    assert len({(s["problem"], s["seed"]) for s in saved}) == len(saved) == 20


def test_another_seed_draws_other_samples(tiny_recipe: Path, tmp_path: Path) -> None:
    texts = []
    for seed in (0, 0, 1):
        out = tmp_path / f"run{len(texts)}"
        run(tiny_recipe, out, steps=1, seed=seed)
        saved = (out / "rollouts" / "step_1.jsonl").read_text().splitlines()
        texts.append([json.loads(line)["text"] for line in saved])
    assert texts[0] == texts[1] != texts[2]
