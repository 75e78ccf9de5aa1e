"""What a set of judged answers adds up to: official metrics, constant-answer baselines, invalid rate, collapse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...parts import UserError
from ...records import Problem, Verdict
from ..base import Said
from ..collapse import only_answer
from . import metrics
from .parsing import normalise
from .task import Task, task_of


@dataclass(frozen=True, slots=True)
class Judged:
    """One graded answer: None is an invalid one; `golds` are all right answers, of which a text may have several.

    `question` is what the rows of one question share, apart for each sample of it; `unit` what is drawn together where
    problems are drawn anew: the rows of one problem, or of one question.
    """

    golds: tuple[str, ...]
    answer: str | None
    question: str = ""
    unit: str = ""


@dataclass(frozen=True)
class NluReport:
    """The figures of one task, all fractions.

    `metrics` are the official ones in their order, `score` their mean; `baselines` what the best constant answer gets
    in each (for accuracy: the majority). `histogram` counts the answers, `golds` the right ones, most frequent first.
    `collapsed`: one answer holds nearly all valid answers (`collapse.SHARE`) while the golds are less one-sided.
    `rows` were graded, `ungraded` could not be and count nowhere.
    """

    task: str
    rows: int
    ungraded: int
    metrics: Mapping[str, float]
    baselines: Mapping[str, float]
    invalid_rate: float
    histogram: Mapping[str, int]
    golds: Mapping[str, int]
    collapsed: bool

    @property
    def score(self) -> float:
        """The mean of the metrics, as the benchmarks average them."""
        return float(np.mean(list(self.metrics.values())))


def reports(problems: Sequence[Problem], verdicts: Sequence[Verdict], task: str | None = None) -> dict[str, NluReport]:
    """One report a task, from verdicts of the verifier `nlu`; `task` is for problems that do not name theirs.

    A problem that comes again is taken for another sample of it, which MultiRC groups apart.

    Raises:
        UserError: a problem names no task, or nothing of a task was graded.
    """
    return {name: report(name, found) for name, found in rows_by_task(problems, verdicts, task).items()}


def rows_by_task(
    problems: Sequence[Problem], verdicts: Sequence[Verdict], task: str | None = None
) -> dict[str, list[Judged | None]]:
    """The rows of each task, as `reports` takes problems and verdicts."""
    rows: dict[str, list[Judged | None]] = {}
    seen: Counter[str] = Counter()
    for problem, verdict in zip(problems, verdicts, strict=True):
        chosen = task_for(problem, task)
        rows.setdefault(chosen.name, []).append(judged(chosen, problem, verdict, seen[problem.id]))
        seen[problem.id] += 1
    return rows


def task_for(problem: Problem, task: str | None) -> Task:
    """The task of that name, else the one that the problem names.

    Raises:
        UserError: there is none.
    """
    name = task or problem.info.get("task")
    if not isinstance(name, str):
        raise UserError(f"problem {problem.id!r} names no task of language understanding; give one by verifier.task")
    return task_of(name)


def judged(task: Task, problem: Problem, verdict: Verdict, sample: int = 0) -> Judged | None:
    """A verdict as a row for `report`; None if the sample was not graded."""
    if verdict.outcome == "could_not_grade":
        return None
    question = problem.info.get("question")
    return Judged(
        golds=golds_of(task, problem),
        answer=None if verdict.reason == "invalid" else verdict.detail,
        question="" if question is None else f"{question}#{sample}",
        unit=problem.id if question is None else str(question),
    )


def golds_of(task: Task, problem: Problem) -> tuple[str, ...]:
    """The right answers of a problem as `task.read` would give them; none if its gold answer is no such thing."""
    several = problem.info.get("answers") if task.answer == "text" else None
    written = several if isinstance(several, list | tuple) and several else [problem.answer]
    read = [task.gold(str(answer)) for answer in written]
    return tuple(answer for answer in read if answer is not None)


def report(task: Task | str, rows: Sequence[Judged | None]) -> NluReport:
    """The figures of one task's rows; None stands for a sample that could not be graded.

    Raises:
        UserError: nothing was graded, or a row lacks the question that a metric groups by.
    """
    task = task_of(task) if isinstance(task, str) else task
    graded = [row for row in rows if row is not None]
    if not graded:
        raise UserError(f"{task.title}: none of {len(rows)} answers was graded; there is nothing to report")
    if "f1a" in task.metrics and not all(row.question for row in graded):
        raise UserError(f"{task.title} is measured by question; give each row its question's id as info['question']")
    answers = [row.answer for row in graded]
    golds = _count([row.golds[0] for row in graded])
    constants = [scorer(task, graded, [answer] * len(graded))() for answer in _constants(task, golds)]
    histogram = _count([_bin(task, answer) for answer in answers])
    right = _count([_bin(task, row.golds[0]) for row in graded])
    valid = _count([_bin(task, answer) for answer in answers if answer is not None])
    meant = _count([_bin(task, gold) for row in graded for gold in row.golds])
    return NluReport(
        task=task.name,
        rows=len(graded),
        ungraded=len(rows) - len(graded),
        metrics=scorer(task, graded, answers)(),
        baselines={name: max(constant[name] for constant in constants) for name in task.metrics},
        invalid_rate=answers.count(None) / len(answers),
        histogram=histogram,
        golds=right,
        collapsed=only_answer(valid, meant, len(graded)) is not None,
    )


def said(task: Task, problem: Problem, verdict: Verdict) -> Said:
    """The answer that was read and the right ones, as they are counted here."""
    answer = None if verdict.reason == "invalid" else _bin(task, verdict.detail)
    return Said(task.name, tuple(_bin(task, gold) for gold in golds_of(task, problem)), answer)


def _constants(task: Task, golds: Mapping[str, int]) -> list[str]:
    """The answers to try for a baseline: every label; else the most frequent answer."""
    return list(task.labels) or [next(iter(golds))]


def _bin(task: Task, answer: str | None) -> str:
    """What an answer is counted as: numbers to the nearest whole one, texts as they are compared."""
    if answer is None:
        return "invalid"
    if task.answer == "number":
        return str(round(float(answer)))
    return normalise(answer) if task.answer == "text" else answer


def _count(values: Sequence[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def scorer(task: Task, rows: Sequence[Judged], answers: Sequence[str | None]) -> Scorer:
    """The metrics of a task as a function of the rows to take, so that they can be drawn anew; None takes all once.

    Rows of one question must be taken together.
    """
    columns = _columns(task, rows, answers)
    functions = {name: _METRICS[task.answer][name] for name in task.metrics}

    def score(taken_N: np.ndarray | None = None) -> dict[str, float]:
        chosen = columns if taken_N is None else {name: values_N[taken_N] for name, values_N in columns.items()}
        return {name: function(chosen, len(task.labels)) for name, function in functions.items()}

    return score


def _columns(task: Task, rows: Sequence[Judged], answers: Sequence[str | None]) -> dict[str, np.ndarray]:
    """What the metrics are made of: one number a row in each column."""
    if task.answer == "text":
        pairs = list(zip(rows, answers, strict=True))
        each = {"f1": metrics.text_f1, "em": metrics.text_em}
        return {name: np.array([one(row.golds, said) for row, said in pairs]) for name, one in each.items()}
    if task.answer == "number":
        said_N = np.array([metrics.INVALID_NUMBER if answer is None else float(answer) for answer in answers])
        return {"gold": np.array([float(row.golds[0]) for row in rows]), "said": said_N}
    # The positive label is class 1 of two, however the file lists them.
    index = {name: number for number, name in enumerate(sorted(task.labels, key=lambda name: name == task.positive))}
    gold_N = np.array([index[row.golds[0]] for row in rows])
    said_N = np.array([metrics.INVALID if answer is None else index[answer] for answer in answers])
    columns = {"gold": gold_N, "said": said_N}
    if "em" in task.metrics:
        whole_N, share_N = metrics.group_shares(gold_N == said_N, [row.question for row in rows])
        columns |= {"whole": whole_N, "share": share_N}
    return columns


Columns = Mapping[str, np.ndarray]
Scorer = Callable[..., dict[str, float]]
_METRICS: dict[str, dict[str, Callable[[Columns, int], float]]] = {
    "text": {"f1": lambda of, _: float(np.mean(of["f1"])), "em": lambda of, _: float(np.mean(of["em"]))},
    "number": {
        "pearson": lambda of, _: metrics.pearson(of["gold"], of["said"]),
        "spearman": lambda of, _: metrics.spearman(of["gold"], of["said"]),
    },
    "label": {
        "accuracy": lambda of, _: metrics.accuracy(of["gold"], of["said"]),
        "f1": lambda of, _: metrics.f1(of["gold"], of["said"]),
        "f1a": lambda of, _: metrics.f1(of["gold"], of["said"]),
        "macro_f1": lambda of, classes: metrics.macro_f1(of["gold"], of["said"], classes),
        "matthews": lambda of, _: metrics.matthews(of["gold"], of["said"]),
        "em": lambda of, _: float(np.average(of["whole"], weights=of["share"])),
    },
}
