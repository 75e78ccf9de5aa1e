"""Methods side by side on tasks of two labels: official score, invalid rate, answers beside the golds, differences."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from ....parts import UserError
from ....verifiers.nlu.metrics import accuracy, matthews
from ....verifiers.nlu.task import Task, task_of
from ...data.glue import Glue
from ...runs.evaluation import HELD, RESAMPLES
from ..charts import estimates
from ..finished import Finished
from ..intervals import Estimate, estimate, paired
from .base import Analysis, Cell, Findings, Table

SCORES = {"matthews": matthews, "accuracy": accuracy}


@dataclass(frozen=True)
class Answers:
    """What one run's final policy answered: gold_P and said_P are 1 for the positive label, else 0.

    An invalid answer stands in said_P as the wrong label, as both scores count it; `invalid` says how many there were.
    """

    gold_P: np.ndarray
    said_P: np.ndarray
    invalid: int


class Nlu(Analysis):
    """Arms called TASK-METHOD: each method's official score on its task, against the majority and the supervised arm.

    A task whose supervised arm stays below `needed` says nothing of the others, so its comparison is void.
    """

    needed: dict[str, float] = Field(default={"cola": 0.15, "sst2": 0.75})
    """Mean score of a task's supervised arm from which its comparison counts."""
    supervised: str = "supervised"
    """The method that the others are compared with."""

    def analyse(self, study: Finished) -> Findings:
        """Scores, answers and differences, and a chart a task.

        Raises:
            UserError: a task's evaluation rows cannot be read, a run was not evaluated greedily once on all of them,
                or a task has no supervised arm.
        """
        found = {arm: [_answers(study, arm, seed) for seed in study.seeds] for arm in study.arms}
        tasks = {arm: task_of(study.config(arm, study.seeds[0])["data"]["task"][0]) for arm in study.arms}
        scores = {arm: [_score(tasks[arm], one) for one in own] for arm, own in found.items()}
        means = {arm: estimate(values) for arm, values in scores.items()}
        first = self._first(tasks)
        minus = {a: paired(scores[a], scores[first[tasks[a].name]]) for a in study.arms if a not in first.values()}
        void = [name for name, arm in first.items() if _mean(means[arm]) < self.needed.get(name, 0.0)]
        tables = (
            Table("Scores", _SCORE_COLUMNS, tuple(_score_row(tasks[a], a, found[a], means[a]) for a in found), _NOTE),
            Table("Answers", ("arm", "answers", "golds"), tuple(_answer_row(tasks[a], a, found[a]) for a in found)),
            Table("Against supervised", ("arm", "difference", "counts"), tuple(_against(tasks, minus, void)), _PAIRED),
        )
        charts = [_chart(name, tasks, scores) for name in first]
        numbers = {
            "scores": {arm: e and e.to_json() for arm, e in means.items()},
            "minus supervised": {arm: e and e.to_json() for arm, e in minus.items()},
            "void": void,
        }
        verdict = " ".join(self._said(name, arm, tasks, means, minus) for name, arm in first.items())
        return Findings(tables, tuple(chart for chart in charts if chart), numbers, verdict)

    def _first(self, tasks: Mapping[str, Task]) -> dict[str, str]:
        """Each task's supervised arm."""
        first = {task.name: arm for arm, task in tasks.items() if arm.rpartition("-")[2] == self.supervised}
        for arm, task in tasks.items():
            if task.name not in first:
                raise UserError(f"{arm} has nothing to be compared with: add an arm {task.name}-{self.supervised}")
        return first

    def _said(
        self,
        name: str,
        first: str,
        tasks: Mapping[str, Task],
        means: Mapping[str, Estimate | None],
        minus: Mapping[str, Estimate | None],
    ) -> str:
        title, got, needed = tasks[first].title, _mean(means[first]), self.needed.get(name, 0.0)
        if got < needed:
            return f"{title}: void, as its supervised arm reached {got:.3f} of the {needed:g} that it needs."
        own = [(arm, e) for arm, e in minus.items() if tasks[arm].name == name and e is not None]
        said = "; ".join(f"{arm} {e.shown(signed=True)} ({_clear(e)})" for arm, e in own)
        return f"{title}: supervised {got:.3f}; {said}."


_SCORE_COLUMNS = ("arm", "metric", "score over seeds", "over problems", "majority", "invalid")
_NOTE = (
    "Score over seeds: mean with its 95 % Student-t interval. Over problems: 95 % bootstrap interval of the mean, "
    "the same problems drawn for all seeds. Majority: the most frequent gold label for every row. "
    "An invalid answer counts as the wrong label."
)
_PAIRED = "Each arm minus the supervised arm of its task, paired by seed, with 95 % Student-t intervals."


def _answers(study: Finished, arm: str, seed: int) -> Answers:
    run = study.run(arm, seed)
    path = run.folder / "evaluations" / "final.json"
    if not path.is_file():
        raise UserError(f"{run.folder} has no final evaluation; set eval.problems to all rows and run it again")
    value = json.loads(path.read_text())
    data = dict(study.config(arm, seed)["data"])
    data.pop("name", None)
    problems = {problem.id: problem for problem in Glue(**data).load_evaluation(0) or []}
    task, rows = task_of(data["task"][0]), value["problems"]
    if value["samples"] != 1 or any(row["graded"] != 1 for row in rows) or {row["id"] for row in rows} != {*problems}:
        raise UserError(f"{run.folder}: the scores need one graded answer to every validation row: set eval.n=1")
    gold_P = np.array([int(problems[row["id"]].answer == task.positive) for row in rows])
    right_P = np.array([row["right"] == 1 for row in rows])
    return Answers(gold_P, np.where(right_P, gold_P, 1 - gold_P), value["reasons"].get("wrong/invalid", 0))


def _score(task: Task, one: Answers) -> float:
    return SCORES[task.metrics[0]](one.gold_P, one.said_P)


def _score_row(task: Task, arm: str, own: Sequence[Answers], mean: Estimate | None) -> tuple[Cell, ...]:
    gold_P = own[0].gold_P
    majority = SCORES[task.metrics[0]](gold_P, np.full_like(gold_P, round(gold_P.mean())))
    low, high = over_problems(task.metrics[0], gold_P, np.stack([one.said_P for one in own]))
    invalid = sum(one.invalid for one in own) / sum(len(one.gold_P) for one in own)
    shown = mean.shown() if mean else None
    return arm, task.metrics[0], shown, f"[{low:.3f}, {high:.3f}]", f"{majority:.3f}", f"{invalid:.1%}"


def over_problems(metric: str, gold_P: np.ndarray, said_SP: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean over S seeds of a score, by resampling problems alike for all seeds."""
    draw = np.random.default_rng(seed)
    right_SP, n = said_SP == gold_P, len(gold_P)
    means = []
    for _ in range(0, RESAMPLES, rows := max(1, min(RESAMPLES, HELD // n))):
        chosen_RP = draw.integers(0, n, size=(rows, n))
        means.append(np.mean([_each(metric, gold_P[chosen_RP], right_P[chosen_RP]) for right_P in right_SP], axis=0))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


def _each(metric: str, gold_RP: np.ndarray, right_RP: np.ndarray) -> np.ndarray:
    """The score of each row of answers, [R]; Matthews' correlation of no variance is 0."""
    if metric == "accuracy":
        return right_RP.mean(axis=1)
    gold = gold_RP == 1
    tp, tn = (gold & right_RP).mean(axis=1), (~gold & right_RP).mean(axis=1)
    fp, fn = (~gold & ~right_RP).mean(axis=1), (gold & ~right_RP).mean(axis=1)
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return np.where(product > 0, (tp * tn - fp * fn) / np.sqrt(np.where(product > 0, product, 1.0)), 0.0)


def _answer_row(task: Task, arm: str, own: Sequence[Answers]) -> tuple[Cell, ...]:
    said = np.mean([one.said_P.mean() for one in own])
    return arm, _shares(task, float(said)), _shares(task, float(own[0].gold_P.mean()))


def _shares(task: Task, positive: float) -> str:
    shares = Counter({name: positive if name == task.positive else 1 - positive for name in task.labels})
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items())


def _against(tasks: Mapping[str, Task], minus: Mapping[str, Estimate | None], void: Sequence[str]) -> list[Any]:
    return [(arm, e and e.shown(signed=True), "void" if tasks[arm].name in void else "yes") for arm, e in minus.items()]


def _chart(name: str, tasks: Mapping[str, Task], scores: Mapping[str, Sequence[float]]) -> Any:
    own = {arm: values for arm, values in scores.items() if tasks[arm].name == name}
    task = task_of(name)
    return estimates(f"{task.title} after training", own, y=task.metrics[0], percent=task.metrics[0] == "accuracy")


def _mean(value: Estimate | None) -> float:
    return float("nan") if value is None else value.mean


def _clear(difference: Estimate) -> str:
    if difference.low is None or difference.high is None:
        return "one seed, so nothing is known of chance"
    return "the interval leaves out 0" if difference.low > 0 or difference.high < 0 else "no clear difference"
