"""Evaluation outside a run: of a run's policy at any of its checkpoints, and of a recipe's model as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from underdog.parts import UserError
from underdog.rl.api import evaluate, train


@pytest.fixture(scope="module")
def run(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("measured") / "run"
    settings: dict[str, Any] = {"eval.every": 1, "checkpoint.every": 1}
    train(tiny_recipe, out=str(out), steps=2, **settings)
    return out


def written(run: Path, name: str) -> dict[str, object]:
    return json.loads((run / "evaluations" / f"{name}.json").read_text())


def apart(result: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The evaluation as a run folder holds it, and what else is told."""
    more = {"base", "change", "data_sha256", "verifier"}
    return {k: v for k, v in result.items() if k not in more}, {k: v for k, v in result.items() if k in more}


def test_the_last_checkpoint_gives_the_final_evaluation_beside_the_base(run: Path) -> None:
    result, more = apart(evaluate(run))
    assert result == written(run, "final")
    assert more["base"] == written(run, "base")
    assert more["change"] == json.loads((run / "summary.json").read_text())["change"]
    assert len(more["data_sha256"]) == 64
    assert sum(result["reasons"].values()) == len(result["problems"]) * result["samples"]


def test_a_step_s_checkpoint_gives_that_step_s_evaluation(run: Path) -> None:
    # While training, four problems with two samples each; the same ones are asked for here.
    assert apart(evaluate(run, checkpoint="1", **{"eval.problems": 4, "eval.n": 2}))[0] == written(run, "step_1")


def test_a_recipe_is_measured_as_it_is(run: Path, tiny_recipe: Path) -> None:
    result = evaluate(tiny_recipe)
    assert apart(result)[0] == written(run, "base")
    assert result["version"] == 0


def test_overrides_change_what_is_measured(tiny_recipe: Path) -> None:
    greedy = evaluate(tiny_recipe, **{"eval.temperature": 0.0, "eval.problems": 3, "eval.n": 4})
    assert (len(greedy["problems"]), greedy["samples"]) == (3, 4)
    assert all(problem["right"] in {0, 4} for problem in greedy["problems"])  # greedy samples are all the same
    assert {key for key in greedy if key.startswith("pass@")} == {"pass@1", "pass@2", "pass@4"}


def test_a_policy_that_is_always_right_has_pass_1_of_one(tiny_recipe: Path, tmp_path: Path) -> None:
    verifier = tmp_path / "kind.py"
    verifier.write_text("def always(problem, completion):\n    return True\n")
    result = evaluate(tiny_recipe, verifier=f"{verifier}:always")
    assert (result["pass@1"], result["ci95"]["pass@1"], result["ungraded"]) == (1.0, [1.0, 1.0], 0)


def test_measuring_changes_nothing_in_the_run(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    evaluate(run, checkpoint="last", **{"eval.problems": 2, "eval.n": 1})
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_what_cannot_be_measured(run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint '9'; it holds steps 1, 2"):
        evaluate(run, checkpoint="9")
    with pytest.raises(UserError, match="holds no run"):
        evaluate(tmp_path)
    with pytest.raises(UserError, match="there is no run"):
        evaluate(tmp_path / "nothing")
    with pytest.raises(UserError, match="no problem is held out"):
        evaluate(tiny_recipe, checkpoint="last", **{"data.held_out": 0})
    with pytest.raises(UserError, match="did you mean 'demo'"):
        evaluate("dem0")
