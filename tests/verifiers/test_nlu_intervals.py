"""The report of an evaluation: official metrics with intervals, as by hand and by scipy, and the average over tasks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from underdog.records import Problem
from underdog.verifiers.nlu.intervals import RESAMPLES, resampled
from underdog.verifiers.nlu.nlu import Nlu
from underdog.verifiers.nlu.report import Judged, report
from underdog.verifiers.nlu.task import task_of


def evaluated(task: str, golds: list[str], said: Sequence[str | None], questions: list[str] | None = None):
    """Problems of a task, and the verdicts on completions that say `said` (None: nothing between tags)."""
    names = questions or [""] * len(golds)
    infos = [{"task": task} | ({"question": q} if questions else {}) for q in names]
    problems = [Problem(f"{task}/{i}", "?", gold, info=infos[i]) for i, gold in enumerate(golds)]
    texts = ["?" if answer is None else f"<Judgement>{answer}</Judgement>" for answer in said]
    return problems, Nlu().judge_all(list(zip(problems, texts, strict=True)))


def test_a_block_says_all_that_a_reader_of_a_collapse_needs():
    problems, verdicts = evaluated("sst2", ["Positive"] * 60 + ["Negative"] * 40, ["Positive"] * 96 + [None] * 4)
    block = Nlu().report(problems, verdicts)
    assert "average" not in block
    part = block["parts"]["sst2"]
    low, high = part["metrics"]["accuracy"]["ci95"]
    assert part["metrics"]["accuracy"]["mean"] == part["baselines"]["accuracy"] == 0.6
    # Normal approximation of the same interval: 0.6 +- 1.96 sqrt(0.24 / 100).
    assert (low, high) == (pytest.approx(0.504, abs=0.02), pytest.approx(0.696, abs=0.02))
    assert (part["invalid_rate"], part["collapsed"]) == (0.04, True)
    assert part["answers"] == {"Positive": 96, "invalid": 4}
    assert part["golds"] == {"Positive": 60, "Negative": 40}


def test_an_interval_of_matthews_correlation_is_scipys_bootstrap():
    stats, sklearn = pytest.importorskip("scipy.stats"), pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(5)
    gold_N = draw.random(150) < 0.7
    said_N = np.where(draw.random(150) < 0.8, gold_N, ~gold_N)
    names = np.array(["No", "Yes"])
    rows = [
        Judged((names[int(g)],), names[int(s)], unit=str(i))
        for i, (g, s) in enumerate(zip(gold_N, said_N, strict=True))
    ]
    ours = np.quantile(resampled(task_of("cola"), rows)["matthews"], [0.025, 0.975])
    theirs = stats.bootstrap(
        (gold_N, said_N), sklearn.matthews_corrcoef, paired=True, vectorized=False, method="percentile",
        n_resamples=RESAMPLES, rng=1,
    ).confidence_interval  # fmt: skip
    np.testing.assert_allclose(ours, theirs, atol=0.03)


def test_rows_of_one_question_and_samples_of_one_problem_are_drawn_together():
    """Each question holds one right and one wrong row: drawing whole questions moves no metric."""
    rows = [Judged(("True",), said, f"{q}#0", f"{q}") for q in range(20) for said in ("True", "False")]
    draws = resampled(task_of("multirc"), rows)
    np.testing.assert_allclose(draws["f1a"], 2 / 3)
    np.testing.assert_allclose(draws["em"], 0)
    twice = [Judged(("Yes",), said, unit=f"p{i}") for i in range(20) for said in ("Yes", "No")]
    np.testing.assert_allclose(resampled(task_of("rte"), twice)["accuracy"], 0.5)


def test_taken_once_each_row_gives_the_metrics_themselves():
    draw = np.random.default_rng(0)
    golds = [f"{x:.1f}" for x in draw.uniform(0, 5, 40)]
    problems, verdicts = evaluated("stsb", golds, [f"{5 - float(x):.1f}" for x in golds])
    part = Nlu().report(problems, verdicts)["parts"]["stsb"]
    for name in ("pearson", "spearman"):
        figure = part["metrics"][name]
        assert figure["mean"] == pytest.approx(-1)
        assert figure["ci95"] == pytest.approx([-1, -1])
    again = report("stsb", [Judged((g,), v.detail) for g, v in zip(golds, verdicts, strict=True)])
    assert part["score"]["mean"] == again.score


def test_the_average_is_over_tasks_and_needs_all_of_them():
    one = evaluated("sst2", ["Positive"] * 30, ["Positive"] * 24 + ["Negative"] * 6)
    other = evaluated("mrpc", ["Yes"] * 10 + ["No"] * 10, ["Yes"] * 20)
    block = Nlu().report([*one[0], *other[0]], [*one[1], *other[1]])
    mrpc = (2 / 3 + 1 / 2) / 2
    assert block["parts"]["mrpc"]["score"]["mean"] == pytest.approx(mrpc)
    assert block["average"]["mean"] == pytest.approx((0.8 + mrpc) / 2)
    low, high = block["average"]["ci95"]
    assert low < block["average"]["mean"] < high
    broken = evaluated("rte", ["?"], ["Yes"])
    partial = Nlu().report([*one[0], *broken[0]], [*one[1], *broken[1]])
    assert partial["parts"]["rte"] == {"rows": 0, "ungraded": 1}
    assert "average" not in partial
