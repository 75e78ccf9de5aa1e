"""Reports on judged answers: each task's official metrics, baselines, invalid rate and the alarm on collapse."""

from __future__ import annotations

import numpy as np
import pytest

from underdog.parts import UserError
from underdog.records import Problem, Verdict
from underdog.verifiers.collapse import SHARE
from underdog.verifiers.nlu.nlu import Nlu
from underdog.verifiers.nlu.report import Judged, report, reports
from underdog.verifiers.nlu.task import task_names, task_of

sklearn = pytest.importorskip("sklearn.metrics")
stats = pytest.importorskip("scipy.stats")

OFFICIAL = {
    "cola": ["matthews"],
    "sst2": ["accuracy"],
    "mrpc": ["f1", "accuracy"],
    "qqp": ["f1", "accuracy"],
    "stsb": ["pearson", "spearman"],
    "mnli": ["accuracy"],
    "qnli": ["accuracy"],
    "rte": ["accuracy"],
    "wnli": ["accuracy"],
    "boolq": ["accuracy"],
    "cb": ["macro_f1", "accuracy"],
    "copa": ["accuracy"],
    "multirc": ["f1a", "em"],
    "record": ["f1", "em"],
    "wic": ["accuracy"],
    "wsc": ["accuracy"],
}


def rows(gold: list[str], said: list[str | None], question: str = "") -> list[Judged | None]:
    return [Judged((g,), s, question) for g, s in zip(gold, said, strict=True)]


def test_every_task_has_its_official_metrics():
    assert {name: list(task_of(name).metrics) for name in task_names()} == OFFICIAL


def test_random_answers_through_verifier_and_report_agree_with_scikit_learn():
    draw = np.random.default_rng(1)
    for name in ("cola", "mrpc", "cb", "mnli", "sst2"):
        labels = list(task_of(name).labels)
        gold = [str(g) for g in draw.choice(labels, 300)]
        said = [g if draw.random() < 0.5 else str(draw.choice([*labels, "perhaps"])) for g in gold]
        problems = [Problem(f"p{i}", "?", g, info={"task": name}) for i, g in enumerate(gold)]
        completions = [f"<Judgement>{text.upper()}.</Judgement>" for text in said]
        verdicts = Nlu().judge_all(list(zip(problems, completions, strict=True)))
        found = reports(problems, verdicts)[name]
        assert found.invalid_rate == said.count("perhaps") / 300
        other = {labels[0]: labels[1], labels[1]: labels[0]}
        flipped = [other[g] if s == "perhaps" and len(labels) == 2 else s for g, s in zip(gold, said, strict=True)]
        expected = {
            "accuracy": sklearn.accuracy_score(gold, said),
            "macro_f1": sklearn.f1_score(gold, said, labels=labels, average="macro"),
        }
        if len(labels) == 2:
            expected["matthews"] = sklearn.matthews_corrcoef(gold, flipped)
            expected["f1"] = sklearn.f1_score(gold, flipped, pos_label=task_of(name).positive)
        assert found.metrics == pytest.approx({metric: expected[metric] for metric in OFFICIAL[name]})
        assert found.score == pytest.approx(np.mean([expected[metric] for metric in OFFICIAL[name]]))


def test_similarity_against_scipy_with_invalid_answers_below_the_scale():
    draw = np.random.default_rng(2)
    gold = [f"{x:.1f}" for x in draw.uniform(0, 5, 200)]
    said = [None if draw.random() < 0.1 else f"{min(5, float(g) + draw.uniform()):g}" for g in gold]
    found = report("stsb", rows(gold, said))
    x, y = [float(g) for g in gold], [-1.0 if s is None else float(s) for s in said]
    assert found.metrics == pytest.approx({"pearson": stats.pearsonr(x, y)[0], "spearman": stats.spearmanr(x, y)[0]})
    assert found.baselines == {"pearson": 0, "spearman": 0}


def test_questions_of_several_rows_and_several_samples():
    verdicts = {
        "right": Verdict("right", "exact", detail="True"),
        "wrong": Verdict("wrong", "different", detail="False"),
    }
    problems = [Problem(f"p{i}", "?", "True", info={"task": "multirc", "question": q}) for i, q in enumerate("aab")]
    both = reports(problems * 2, [verdicts[x] for x in ("right", "right", "wrong", "right", "wrong", "right")])
    # Questions a and b, two samples of each: only the first of a and the second of b are right in all rows.
    assert both["multirc"].metrics == pytest.approx({"f1a": 2 * 4 / (6 + 4), "em": 2 / 4})
    with pytest.raises(UserError, match="question"):
        report("multirc", rows(["True"], ["True"]))


def test_texts():
    judged: list[Judged | None] = [Judged(("Donald Trump", "Trump"), "trump"), Judged(("New York",), "York"), None]
    found = report("record", [*judged, Judged(("Rome",), None)])
    assert found.metrics == pytest.approx({"f1": (1 + 2 / 3 + 0) / 3, "em": 1 / 3})
    assert (found.rows, found.ungraded, found.invalid_rate) == (3, 1, pytest.approx(1 / 3))


def test_baselines_are_what_the_best_constant_answer_gets():
    # CoLA's and MRPC's validation sets, counted by hand.
    assert report("mrpc", rows(["Yes"] * 279 + ["No"] * 129, ["No"] * 408)).baselines == pytest.approx(
        {"f1": 2 * 279 / (408 + 279), "accuracy": 279 / 408}
    )
    assert report("cola", rows(["Yes"] * 721 + ["No"] * 322, ["No"] * 1043)).baselines == {"matthews": 0}


def test_an_answer_that_could_not_be_graded_counts_nowhere():
    problems = [Problem(f"p{i}", "?", "Yes", info={"task": "cola"}) for i in range(3)]
    verdicts = [
        Verdict("right", "exact", detail="Yes"),
        Verdict("could_not_grade", "gold"),
        Verdict("wrong", "invalid"),
    ]
    found = reports(problems, verdicts)["cola"]
    assert (found.rows, found.ungraded, found.invalid_rate) == (2, 1, 0.5)
    assert found.histogram == {"Yes": 1, "invalid": 1}
    with pytest.raises(UserError, match="none of 1 answers"):
        reports(problems[1:2], verdicts[1:2])


@pytest.mark.parametrize(
    ("said", "collapsed"),
    [
        (["Yes"] * 100, True),
        (["Yes"] * 95 + ["No"] * 5, True),
        (["Yes"] * 94 + ["No"] * 6, False),
        (["No"] * 100, True),
        (["Yes"] * 50 + [None] * 50, True),
        ([None] * 100, False),
        (["Yes"] * 8 + [None] * 92, False),
    ],
)
def test_one_label_for_nearly_everything_is_a_collapse(said, collapsed):
    assert SHARE == 0.95
    assert report("cola", rows(["Yes"] * 70 + ["No"] * 30, said)).collapsed is collapsed


def test_no_alarm_where_the_gold_answers_are_as_one_sided():
    assert not report("cola", rows(["Yes"] * 98 + ["No"] * 2, ["Yes"] * 100)).collapsed
    assert report("cola", rows(["Yes"] * 98 + ["No"] * 2, ["No"] * 100)).collapsed


def test_a_constant_number_or_text_is_a_collapse_too():
    draw = np.random.default_rng(3)
    assert report("stsb", rows([f"{x:.1f}" for x in draw.uniform(0, 5, 50)], ["3"] * 50)).collapsed
    assert report("record", rows([f"city {i}" for i in range(50)], ["Rome"] * 50)).collapsed
