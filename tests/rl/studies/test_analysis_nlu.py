"""The analysis of language understanding on planted answers, against scores worked out by other means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from underdog.parts import UserError
from underdog.rl.config import read_recipe, resolve
from underdog.rl.studies.analyses.base import Findings
from underdog.rl.studies.analyses.nlu import Nlu, over_problems
from underdog.rl.studies.finished import Finished
from underdog.rl.studies.grid import read_study
from underdog.rl.studies.plan import plan
from underdog.tests.rl.studies.small_run import write
from underdog.verifiers.nlu.metrics import matthews

GOLD = [1] * 14 + [0] * 6
# How many of the answers to the 14 acceptable and the 6 other sentences are right.
RIGHT = {"cola-supervised": ((12, 4), (12, 3)), "cola-ppo": ((14, 0), (13, 3))}


def planted(folder: Path, right: tuple[int, int], invalid: int) -> None:
    order = [i < right[0] for i in range(14)] + [i < right[1] for i in range(6)]
    rows = [{"id": f"cola/validation/{i}", "right": int(r), "graded": 1} for i, r in enumerate(order)]
    value = {"samples": 1, "problems": rows, "reasons": {"wrong/invalid": invalid}}
    (folder / "evaluations").mkdir(exist_ok=True)
    (folder / "evaluations/final.json").write_text(json.dumps(value))


@pytest.fixture
def study(tiny_recipe: Path, tmp_path: Path) -> Finished:
    (tmp_path / "CoLA").mkdir()
    (tmp_path / "CoLA/dev.tsv").write_text("".join(f"s\t{g}\t\tSentence {i}.\n" for i, g in enumerate(GOLD)))
    data = f'{{data: {{name: glue, task: cola, path: "{tmp_path}"}}}}'
    path = tmp_path / "nlu.yaml"
    path.write_text(f"recipe: {tiny_recipe}\nseeds: [0, 1]\nanalysis: nlu\narms:\n  cola-supervised: {data}\n")
    with path.open("a") as file:
        file.write(f"  cola-ppo: {data}\n")
    study = read_study(str(path))
    for run in plan(study, tmp_path / "out"):
        write(resolve(read_recipe(study.grid.recipe)[1], run.overrides), [0.5], 0.2, 0.5)
        planted(run.folder, RIGHT[run.arm][run.seed], invalid=2 if run.arm == "cola-ppo" else 0)
    return Finished.read(study, tmp_path / "out")


def said(right: tuple[int, int]) -> list[int]:
    return [1] * right[0] + [0] * (14 - right[0]) + [0] * right[1] + [1] * (6 - right[1])


def correlation(right: tuple[int, int]) -> float:
    """Matthews' is Pearson's of two binary variables; of a constant one, 0."""
    answers = said(right)
    return float(np.corrcoef(GOLD, answers)[0, 1]) if len(set(answers)) > 1 else 0.0


def analysed(study: Finished, **options: Any) -> Findings:
    return Nlu(**options).analyse(study)


def test_scores_answers_and_paired_differences(study: Finished) -> None:
    found = analysed(study)
    supervised, ppo = ([correlation(r) for r in RIGHT[arm]] for arm in ("cola-supervised", "cola-ppo"))
    numbers = found.numbers
    assert numbers["scores"]["cola-supervised"]["mean"] == pytest.approx(np.mean(supervised))
    assert numbers["minus supervised"]["cola-ppo"]["mean"] == pytest.approx(np.mean(ppo) - np.mean(supervised))
    assert numbers["void"] == []
    scores, answers, _ = found.tables
    assert [row[-2:] for row in scores.rows] == [("0.000", "0.0%"), ("0.000", "10.0%")]
    assert answers.rows[1] == ("cola-ppo", "Yes 90.0%, No 10.0%", "Yes 70.0%, No 30.0%")
    assert "no clear difference" in found.verdict


def test_below_what_is_needed_a_comparison_is_void(study: Finished) -> None:
    found = analysed(study, needed={"cola": 0.9})
    assert found.numbers["void"] == ["cola"]
    assert found.tables[2].rows[0][-1] == "void"
    assert "void" in found.verdict
    assert "cola-ppo" not in found.verdict


def test_the_interval_over_problems_is_that_of_the_metric_itself() -> None:
    rng = np.random.default_rng(1)
    gold_P = (rng.random(300) < 0.7).astype(int)
    said_P = np.where(rng.random(300) < 0.75, gold_P, 1 - gold_P)
    low, high = over_problems("matthews", gold_P, said_P[None])
    chosen = [rng.integers(0, 300, 300) for _ in range(2000)]
    expected = np.quantile([matthews(gold_P[c], said_P[c]) for c in chosen], [0.025, 0.975])
    assert (low, high) == pytest.approx(tuple(expected), abs=0.02)


def test_what_cannot_be_compared(study: Finished, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="add an arm cola-tuned"):
        analysed(study, supervised="tuned")
    (tmp_path / "CoLA/dev.tsv").rename(tmp_path / "elsewhere.tsv")
    with pytest.raises(UserError, match="no file of CoLA called"):
        analysed(study)
