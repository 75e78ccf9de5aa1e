"""The analysis of arms against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from underdog.rl.config import read_recipe, resolve
from underdog.rl.studies.analyses.arms import Arms
from underdog.rl.studies.analyses.base import Findings
from underdog.rl.studies.finished import Finished
from underdog.rl.studies.grid import read_study
from underdog.rl.studies.intervals import estimate, paired
from underdog.rl.studies.plan import plan
from underdog.tests.rl.studies.small_run import write

FINAL = {"first": (0.30, 0.40), "second": (0.50, 0.70)}
T = 12.706204736
"""The 97.5 % quantile of Student's t with one degree of freedom."""


@pytest.fixture
def findings(write_study: Any, tmp_path: Path) -> Findings:
    name = write_study()
    study = read_study(str(name))
    tree = read_recipe(study.grid.recipe)[1]
    for run in plan(study, tmp_path / "out"):
        level = FINAL[run.arm][run.seed]
        write(resolve(tree, run.overrides), [0, 0, 0, 0, 0, 0, level, level + 0.1], 0.2, level)
    return Arms().analyse(Finished.read(study, tmp_path / "out"))


def test_means_and_student_intervals_over_seeds(findings: Findings) -> None:
    arms, against = findings.tables
    assert arms.columns == ("arm", "seeds", "pass@1", "change of pass@1", "late reward")
    assert arms.rows[0][:2] == ("first", 2)
    # mean 0.35, standard deviation 0.1/√2, so half the interval is t · 0.1/√2/√2 = t · 0.05
    number = findings.numbers["arms"]["pass@1"]["first"]
    assert number["mean"] == pytest.approx(0.35)
    assert number["ci95"] == pytest.approx([0.35 - 0.05 * T, 0.35 + 0.05 * T])
    assert arms.rows[0][2] == "0.350 [−0.285, 0.985]"
    assert findings.numbers["arms"]["change of pass@1"]["second"]["mean"] == pytest.approx(0.4)
    # the last quarter of eight steps: (0.3 + 0.4)/2 and (0.4 + 0.5)/2
    assert findings.numbers["arms"]["late reward"]["first"]["mean"] == pytest.approx(0.4)
    # differences 0.2 and 0.3, paired: mean 0.25, half the interval t · 0.05
    assert against.rows == (("second", "+0.250 [−0.385, +0.885]", "+0.250 [−0.385, +0.885]"),)
    assert findings.verdict == "pass@1 against first: second +0.250 [−0.385, +0.885] (no clear difference)."


def test_charts_show_each_seed_and_the_band_between_seeds(findings: Findings) -> None:
    ends, reward = findings.charts
    seeds, mean = ends.figure["data"]
    assert list(seeds["x"]) == ["first", "first", "second", "second"]
    assert list(mean["y"]) == pytest.approx([0.35, 0.6])
    assert list(mean["error_y"]["array"]) == pytest.approx([0.05 * T, 0.1 * T])
    band, line, *_ = reward.figure["data"]
    assert list(line["y"])[-2:] == pytest.approx([0.35, 0.45])
    assert list(band["y"])[7] == pytest.approx(0.5)  # the highest seed at the last step, then back along the lowest
    assert list(band["y"])[8] == pytest.approx(0.4)


def test_runs_without_an_evaluation_have_a_table_too(write_study: Any, tmp_path: Path) -> None:
    study = read_study(str(write_study(("seeds: [0, 1]", "seeds: [0]"))))
    tree = read_recipe(study.grid.recipe)[1]
    for run in plan(study, tmp_path / "out"):
        write(resolve(tree, run.overrides), [0.5], 0, 0)
        (run.folder / "summary.json").write_text('{"base": null, "final": null, "change": null, "seconds": 1}')
    findings = Arms().analyse(Finished.read(study, tmp_path / "out"))
    assert findings.tables[0].rows == (("first", 1, "0.500"), ("second", 1, "0.500"))
    assert "one seed" in findings.verdict


def test_what_is_missing_is_left_out() -> None:
    assert estimate([None, None]) is None
    single = estimate([None, 0.5])
    assert single is not None
    assert single.to_json() == {"mean": 0.5, "ci95": None, "count": 1}
    difference = paired([1.0, None, 0.5], [0.5, 1.0, None])
    assert difference is not None
    assert (difference.mean, difference.count) == (0.5, 1)
