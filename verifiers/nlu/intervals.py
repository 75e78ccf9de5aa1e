"""An evaluation's report: each task's official metrics with intervals, and the benchmark's average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...records import Problem, Verdict
from .report import Judged, report, rows_by_task, scorer
from .task import Task, task_of

RESAMPLES = 1000
"""Times that the problems are drawn anew."""


def evaluation_report(problems: Sequence[Problem], verdicts: Sequence[Verdict], task: str | None) -> dict[str, Any]:
    """`parts`, one block a task, and of several tasks `average`: the mean of their scores, a score that of the metrics.

    Figures have 95 % percentile intervals by drawing problems anew with all their samples (MultiRC: questions). A task
    of which nothing was graded has no figures, and with one such there is no average.
    """
    parts: dict[str, Any] = {}
    drawn: list[np.ndarray] = []
    for name, rows in rows_by_task(problems, verdicts, task).items():
        graded = [row for row in rows if row is not None]
        if not graded:
            parts[name] = {"rows": 0, "ungraded": len(rows)}
            continue
        found, draws = report(name, rows), resampled(task_of(name), graded)
        scores_B = np.mean(list(draws.values()), axis=0)
        drawn.append(scores_B)
        parts[name] = {
            "rows": found.rows,
            "ungraded": found.ungraded,
            "metrics": {key: _figure(value, draws[key]) for key, value in found.metrics.items()},
            "score": _figure(found.score, scores_B),
            "baselines": dict(found.baselines),
            "invalid_rate": found.invalid_rate,
            "answers": dict(found.histogram),
            "golds": dict(found.golds),
            "collapsed": found.collapsed,
        }
    if len(drawn) < len(parts) or len(parts) < 2:
        return {"parts": parts}
    mean = float(np.mean([part["score"]["mean"] for part in parts.values()]))
    return {"parts": parts, "average": _figure(mean, np.mean(drawn, axis=0))}


def resampled(task: Task, rows: Sequence[Judged], seed: int = 0) -> dict[str, np.ndarray]:
    """Each metric of `RESAMPLES` draws of the problems, with replacement."""
    score = scorer(task, rows, [row.answer for row in rows])
    names, unit_N = np.unique([row.unit for row in rows], return_inverse=True)
    draw, every = np.random.default_rng(seed), np.arange(len(rows))
    results = []
    for _ in range(RESAMPLES):
        times = np.bincount(draw.integers(0, len(names), len(names)), minlength=len(names))
        results.append(score(np.repeat(every, times[unit_N])))
    return {name: np.array([result[name] for result in results]) for name in task.metrics}


def _figure(value: float, drawn_B: np.ndarray) -> dict[str, Any]:
    low, high = np.quantile(drawn_B, [0.025, 0.975])
    return {"mean": value, "ci95": [float(low), float(high)]}
