"""The analysis of pass@N over pooled seeds against numbers worked out by hand, and the bound on constant policies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from underdog.parts import UserError
from underdog.records import Problem
from underdog.rl.data.goals.language import written
from underdog.rl.data.lean_goals import FAMILIES, UNSEEN, LeanGoals, goals
from underdog.rl.runs.evaluation import Tally, interval, to_json
from underdog.rl.studies.analyses.unlikely import START, Unlikely
from underdog.rl.studies.constant import best_constant, may_prove
from underdog.rl.studies.finished import Finished
from underdog.rl.studies.grid import read_study
from underdog.rl.studies.plan import plan

RIGHT = {("base", 0): [1, 1, 0], ("base", 1): [1, 0, 0], ("first", 0): [4, 4, 0], ("first", 1): [4, 4, 0]}
RIGHT |= {("second", 0): [2, 2, 2], ("second", 1): [2, 4, 2]}
BIAS = (0.5, 0.4)


def tally(right: list[int]) -> Tally:
    rows = np.array(right)
    return Tally(("a", "b", "c"), rows, np.full(3, 4), 4, ("x", "x", "y"), unique_P=np.minimum(rows, 2))


@pytest.fixture
def finished(write_study: Any, tmp_path: Path) -> Finished:
    study = read_study(str(write_study()))
    for run in plan(study, tmp_path / "out"):
        folder = tmp_path / "out" / "runs" / f"{run.arm}-seed{run.seed}"
        (folder / "evaluations").mkdir(parents=True)
        for which, key in (("base", "base"), ("final", run.arm)):
            value = to_json(tally(RIGHT[key, run.seed]), version=0, digest="", name="held_out")
            (folder / "evaluations" / f"{which}.json").write_text(json.dumps(value))
        (folder / "config.yaml").write_text("data: {name: arithmetic}\n")
        (folder / "summary.json").write_text(json.dumps({"uplift": {"bias": {"mean": BIAS[run.seed]}}}))
    return Finished.read(study, tmp_path / "out")


def test_seeds_are_pooled_before_problems_are_resampled(finished: Finished) -> None:
    findings = Unlikely().analyse(finished)
    passes = findings.numbers["pass@N"]
    # pass@1 of the initial policy: problems (1/4 + 1/4)/2, (1/4 + 0)/2 and 0
    assert passes[START][1]["mean"] == pytest.approx((0.25 + 0.125) / 3)
    assert passes[START][1]["ci95"] == pytest.approx(interval(np.array([0.25, 0.125, 0.0])))
    assert passes["first"][1]["mean"] == pytest.approx(2 / 3)
    # of 4 samples 2 right: pass@2 = 1 - 1/6
    assert passes["second"][2]["mean"] == pytest.approx((5 / 6 + (5 / 6 + 1) / 2 + 5 / 6) / 3)
    assert passes["second"][4]["mean"] == 1.0
    assert findings.numbers["unique right"]["second"]["mean"] == pytest.approx(2.0)
    curves, differences, parts, uplift = findings.tables
    assert [row[0] for row in curves.rows] == [START, "first", "second"]
    assert [row[0] for row in differences.rows] == [f"first − {START}", f"second − {START}", "second − first"]
    assert differences.rows[2][3] == "+0.333 [+0.000, +1.000]"  # pass@4 by problem: 0, 0 and 1
    assert [row[0] for row in parts.rows] == ["x", "y"]
    assert findings.numbers["uplift"]["first"]["bias"]["mean"] == pytest.approx(0.45)
    assert uplift.rows[0][:3] == ("first", None, None)
    assert str(uplift.rows[0][3]).startswith("0.450 ")
    assert findings.verdict.startswith(f"pass@1: {START} 0.125")
    assert findings.numbers["constant"] is None


def test_other_problems_are_not_pooled(finished: Finished) -> None:
    path = finished.folder("first", 1) / "evaluations" / "final.json"
    path.write_text(path.read_text().replace('"a"', '"other"'))
    with pytest.raises(UserError, match="first were evaluated on different problems"):
        Unlikely().analyse(finished)
    path.unlink()
    with pytest.raises(UserError, match="no final evaluation; set eval.problems"):
        Unlikely().analyse(finished)


def test_the_bound_never_excludes_a_goal_that_a_proof_proves() -> None:
    """A goal's own proofs, that are known to prove it, are within their bound."""
    problems = {problem.id: problem for problem in LeanGoals(test=100).load_evaluation(0)}
    for name, goal in goals("test", 100, (*FAMILIES, *UNSEEN)).items():
        assert all(may_prove(written(proof), problems[name]) for proof in goal.proofs), name


def test_a_text_cannot_prove_a_goal_without_the_names_it_uses() -> None:
    def goal(statement: str, solution: str = "") -> Problem:
        return Problem("1", "", statement, solution, {"statement": statement})

    chain = goal("theorem t (P Q : Prop) (h1 : P → Q) (h2 : P) : Q", "apply h1 ; exact h2")
    either = goal("theorem t (P Q : Prop) (h1 : P ∨ Q) (h2 : P) (h3 : Q → P) : P", "exact h2")
    some = goal("theorem t (P : Nat → Prop) (h1 : ∀ x, P x → P (x + 1)) (h2 : P 0) : P a")
    plain = goal("theorem t (a b : Nat) : 0 + a = 1 * a", "rw [ Nat.zero_add ] ; rw [ Nat.one_mul ]")
    assert may_prove("apply h1 ; exact h2", chain)
    assert not may_prove("apply h4 ; exact h2", chain)
    assert not may_prove("rcases h1 with x | y ; exact x ; exact h3 y", chain)
    assert may_prove("rcases h1 with x | y ; exact x ; exact h3 y", either)
    assert not may_prove("rcases h2 with x | y ; exact x ; exact h3 y", either)
    assert may_prove("induction a ; exact h2 ; rename_i x y ; exact h1 x y", some)
    assert not may_prove("rw [ Nat.zero_add ] ; rw [ Nat.one_mul ]", chain)
    assert may_prove("rw [ Nat.zero_add ] ; rw [ Nat.one_mul ]", plain)
    found = best_constant([chain, either, plain], [])
    assert (found.text, found.texts) == ("apply h1 ; exact h2", 3)
    assert found.bound == pytest.approx(2 / 3)


def test_no_reference_might_prove_a_fifth_of_the_held_out_goals() -> None:
    found = best_constant(LeanGoals(test=100).load_evaluation(0), [])
    assert found.texts >= 90
    assert found.bound < 0.2
