"""Uplift by rank and different right samples: planted truths, a plain reference, and real runs cut short."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from underdog.parts import UserError
from underdog.rl.api import evaluate, train
from underdog.rl.runs.report.build import write_report
from underdog.rl.runs.uplift import risen, summarise

ROUNDED = st.integers(-3, 3).map(float)


def reference(before: Any, after: Any, right: Any) -> list[list[float]]:
    """[rank from 1, share, right samples], by hand."""
    marks: dict[int, list[int]] = {}
    for old, new, good in zip(before, after, right, strict=True):
        for rank, i in enumerate(sorted(range(len(old)), key=lambda i: (-old[i], i)), start=1):
            if good[i]:
                marks.setdefault(rank, []).append(int(new[i] > old[i]))
    return [[rank, sum(own) / len(own), len(own)] for rank, own in sorted(marks.items())]


@given(
    st.tuples(st.integers(1, 5), st.integers(1, 6)).flatmap(
        lambda shape: st.tuples(
            arrays.arrays(float, shape, elements=ROUNDED),
            arrays.arrays(float, shape, elements=ROUNDED),
            arrays.arrays(bool, shape),
        )
    )
)
def test_by_rank_is_the_share_of_right_samples_that_rose(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    found = summarise(*case)
    assert [[rank, count] for rank, *_, count in found["by_rank"]] == [[r, n] for r, _, n in reference(*case)]
    for (_, mean, low, high, _), (_, share, _) in zip(found["by_rank"], reference(*case), strict=True):
        assert mean == pytest.approx(share)
        assert low <= mean + 1e-12
        assert high >= mean - 1e-12
    assert found["right"] == case[2].sum()
    json.dumps(found, allow_nan=False)


def test_a_planted_rank_bias_is_found_with_its_sign() -> None:
    """Right samples rise with a chance that falls from 0.9 at the likeliest rank to 0.1 at the least likely."""
    rng = np.random.default_rng(0)
    before_PG = rng.normal(size=(400, 16))
    rank_PG = np.argsort(np.argsort(-before_PG, axis=1), axis=1)
    chance_PG = 0.9 - 0.8 * rank_PG / 15
    after_PG = before_PG + np.where(rng.random((400, 16)) < chance_PG, 1.0, -1.0)
    right_PG = rng.random((400, 16)) < 0.5
    found = summarise(before_PG, after_PG, right_PG)
    inside = [low <= 0.9 - 0.8 * (rank - 1) / 15 <= high for rank, _, low, high, _ in found["by_rank"]]
    assert sum(inside) >= 14
    low, high = found["bias"]["ci95"]
    assert low < 0.9 - 0.8 * 3.5 / 15 - (0.9 - 0.8 * 11.5 / 15) < high
    assert summarise(before_PG, 2 * before_PG - after_PG, right_PG)["bias"]["mean"] < 0


def test_wrong_samples_occupy_ranks_and_count_nowhere() -> None:
    risen_PG = risen(np.array([[-3.0, -1.0, -2.0]]), np.array([[0.0, 0.0, -9.0]]), np.array([[True, False, True]]))
    assert risen_PG.tolist()[0][1:] == [0.0, 1.0]
    assert math.isnan(risen_PG[0, 0])


@pytest.fixture(scope="module")
def even_recipe(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Right is what holds more even digits than odd ones: a random model is right often, and in many ways."""
    folder = tmp_path_factory.mktemp("even")
    (folder / "judge.py").write_text(
        "def more_even(problem, text):\n    return sum(c in '02468' for c in text) > sum(c in '13579' for c in text)\n"
    )
    path = folder / "even.yaml"
    path.write_text(
        f"extends: {tiny_recipe}\n"
        f"verifier: '{folder / 'judge.py'}:more_even'\n"
        "min_gold_rate: 0\n"
        "rewards: {accuracy: 1}\n"
        "learner.lr: 0.02\n"
        "eval: {problems: 8, n: 8, uplift: 6, every: 0}\n"
        "checkpoint: {every: 2}\n"
    )
    return path


def summary_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


def test_a_run_cut_in_two_measures_the_same_uplift_and_eval_finds_it_again(even_recipe: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    train(str(even_recipe), out=str(whole), steps=4)
    train(str(even_recipe), out=str(out), steps=2)
    first = summary_of(out)["uplift"]
    train(str(even_recipe), out=str(out), steps=4, resume=True)
    (found, again) = (summary_of(folder)["uplift"] for folder in (whole, out))
    assert found == again != first
    assert (found["problems"], found["samples"]) == (8, 6)
    assert found["right"] > 8
    mean = sum(mean * count for _, mean, *_, count in found["by_rank"]) / found["right"]
    assert mean > 0.6, "training on even digits makes texts of even digits likelier"
    assert evaluate(str(out))["uplift"] == found
    page = write_report([out]).read_text()
    assert "Uplift by rank" in page
    assert "Different right answers" in page


def test_different_right_samples_are_counted_as_the_kept_texts_say(even_recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(str(even_recipe), out=str(out), steps=1, **dict[str, Any]({"eval.n": 6}))
    rows = [json.loads(line) for line in (out / "evaluations" / "base.jsonl").read_text().splitlines()]
    right = {(row["problem"], row["text"].strip()) for row in rows if row["outcome"] == "right"}
    base = json.loads((out / "evaluations" / "base.json").read_text())
    assert base["unique_right"]["total"] == len(right)
    assert base["unique_right"]["mean"] == pytest.approx(len(right) / 8)
    assert summary_of(out)["base"]["unique_right"] == base["unique_right"]
    moved = summary_of(out)["final"]["unique_right"]["mean"] - base["unique_right"]["mean"]
    assert summary_of(out)["change"]["unique_right"]["mean"] == pytest.approx(moved)


def test_a_resume_that_asks_too_late_is_told(even_recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(str(even_recipe), out=str(out), steps=1, **dict[str, Any]({"eval.uplift": 2}))
    result = train(str(even_recipe), out=str(out), steps=2, resume=True, **{"eval.uplift": 4})
    assert result["uplift"] is None
    assert "no uplift is measured" in (out / "logs" / "run.log").read_text()
    assert train(str(even_recipe), out=str(out), steps=2, resume=True, **{"eval.uplift": 1})["uplift"]["samples"] == 1


def test_more_samples_than_are_drawn_are_refused(even_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="uplift=9 asks for more samples than n=8"):
        train(str(even_recipe), out=str(tmp_path / "run"), **dict[str, Any]({"eval.uplift": 9}))
