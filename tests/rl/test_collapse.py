"""One answer for everything is seen while training: a warning or a stop, task by task, also across a resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from underdog.parts import RunError
from underdog.records import Group, Problem, Sample, Version
from underdog.rl.api import train
from underdog.rl.collapse import Collapse, CollapseWatch
from underdog.verifiers.base import Verifier
from underdog.verifiers.math.math import Math
from underdog.verifiers.nlu.nlu import Nlu

WORDS = {"Y": "Yes", "N": "No", "u": "unacceptable"}
COLLAPSED = """
from dataclasses import replace
from underdog.rollouts.local import Local

class Constant(Local):
    def open(self, surroundings):
        engine = super().open(surroundings)
        generate = engine.generate
        engine.generate = lambda requests: [
            [replace(sample, text="<Judgement>Yes</Judgement>") for sample in samples] for samples in generate(requests)
        ]
        return engine
"""


def step(said: str, golds: str = "YN" * 10, task: str = "rte") -> list[Group]:
    """One group a letter of `said` (Y, N, or ? for nothing between tags), judged by the verifier."""
    groups = []
    for i, (letter, gold) in enumerate(zip(said, golds, strict=True)):
        problem = Problem(f"{i}", "?", WORDS[gold], info={"task": task})
        text = f"<Judgement>{WORDS[letter]}</Judgement>" if letter in WORDS else letter
        ids = np.zeros(1, np.int64)
        sample = Sample(problem.id, 0, Version(0, ""), 0, ids, ids, None, text, "eos")
        groups.append(Group(problem, (sample,), (Nlu().judge(problem, text),)))
    return groups


def watching(verifier: Verifier | None = None, **options: Any) -> tuple[CollapseWatch, list[str]]:
    """A watch, and the different warnings that it gave, which a terminal says once each."""
    warnings: list[str] = []
    options = {"patience": 3, **options}
    return CollapseWatch(Collapse(**options), verifier or Nlu(), lambda text: _once(warnings, text)), warnings


def _once(warnings: list[str], text: str) -> None:
    warnings += [] if text in warnings else [text]


def test_it_warns_after_as_many_steps_and_in_the_same_words():
    watch, warnings = watching()
    for said in ("Y" * 20, "Y" * 20, "YN" * 10, "Y" * 20, "Y" * 20):
        watch.take(step(said))
    assert not warnings
    for _ in range(5):
        watch.take(step("Y" * 20))
    (first,) = warnings
    assert "collapsed on rte: 95% or more of its valid answers of the last 3 steps are 'Yes'" in first
    for said in ("YN" * 10, *["N" * 20] * 4):
        watch.take(step(said))
    assert len(warnings) == 2
    assert "'No'" in warnings[1]


def test_one_answer_98_times_in_a_hundred_is_noticed_at_sixteen_answers_a_step():
    """15 of 16 are not yet 95 %: in more than a quarter of the steps alone that share is not reached."""
    draw = np.random.default_rng(0)
    watch, warnings = watching(patience=20)
    for _ in range(25):
        watch.take(step("".join("Y" if draw.random() < 0.98 else "N" for _ in range(16)), "YN" * 8))
    assert len(warnings) == 1
    sound, none = watching(patience=20)
    for _ in range(300):
        golds = "".join("Y" if draw.random() < 0.7 else "N" for _ in range(16))
        sound.take(step("".join(g if draw.random() < 0.9 else "Y" for g in golds), golds))
    assert not none


def test_a_task_is_not_hidden_by_others_with_the_same_words():
    watch, warnings = watching()
    for _ in range(3):
        watch.take(step("Y" * 20, task="cola") + step("YN" * 10, task="rte") + step("N" * 18 + "YY", task="boolq"))
    assert len(warnings) == 1
    assert "collapsed on cola" in warnings[0]


def test_it_stops_where_it_is_to_stop_and_keeps_count_across_a_resume():
    watch, _ = watching(on="stop")
    watch.take(step("Y" * 20))
    watch.take(step("Y" * 20))
    resumed, _ = watching(on="stop")
    resumed.load_state_dict(json.loads(json.dumps(watch.state_dict())))
    with pytest.raises(RunError, match=r"last 3 steps .*collapse\.on=warn"):
        resumed.take(step("Y" * 20))


def test_a_resume_changes_no_figure():
    watch, _ = watching()
    for said in ("Y" * 20, "N" * 12 + "?" * 8):
        watch.take(step(said))
    resumed, _ = watching()
    resumed.load_state_dict(json.loads(json.dumps(watch.state_dict())))
    for said in ("Y" * 20, "Y" * 19 + "?", "YN" * 10):
        assert resumed.take(step(said)) == watch.take(step(said))
        assert resumed.state_dict() == watch.state_dict()


def test_it_is_silent_where_it_is_off_and_logs_all_the_same():
    watch, warnings = watching(on="off", patience=2)
    assert watch.take(step("Y" * 15 + "N" * 1 + "?" * 4)) == {"answers/invalid": 0.2, "answers/top_share": 15 / 16}
    assert watch.take(step("Y" * 20)) == {"answers/invalid": 0, "answers/top_share": 35 / 36}
    assert watch.take(step("Y" * 20)) == {"answers/invalid": 0, "answers/top_share": 1}
    assert not warnings


@pytest.mark.parametrize(
    ("said", "golds", "task"),
    [
        ("Y" * 20, "Y" * 19 + "N", "rte"),  # it is right for as many
        ("?" * 20, "YN" * 10, "rte"),
        ("Y" + "?" * 19, "YN" * 10, "rte"),  # three valid answers in all are too few to tell
        ("N" * 20, "u" * 20, "cola"),  # the gold answers say No in another word
        ("Y" * 18 + "N" * 2, "YN" * 10, "rte"),
    ],
)
def test_what_is_no_collapse(said: str, golds: str, task: str):
    watch, warnings = watching()
    for _ in range(5):
        watch.take(step(said, golds, task))
    assert not warnings


def test_a_verifier_that_tells_no_answers_is_left_alone():
    watch, _ = watching(Math())
    assert watch.take(step("Y" * 20)) == {}


@pytest.mark.slow
def test_a_run_stops_and_goes_on_from_its_checkpoint_when_only_warned(bytes_shape: str, tmp_path: Path) -> None:
    (tmp_path / "constant.py").write_text(COLLAPSED)
    (tmp_path / "RTE").mkdir()
    rows = [
        {"premise": f"{n}.", "hypothesis": "Wet.", "label": ("entailment", "not_entailment")[n % 2]} for n in range(16)
    ]
    (tmp_path / "RTE/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings: dict[str, Any] = {
        "model": bytes_shape,
        "data": {"name": "glue", "task": "rte", "path": str(tmp_path), "eval_split": None, "held_out": 0},
        "rollouts": {"engine": f"{tmp_path / 'constant.py'}:Constant", "problems": 8, "group": 1, "max_tokens": 2},
        "eval": {"problems": 0},
        "checkpoint": {"every": 1},
        "tracking": {"every": 0},
        "steps": 3,
    }
    out = str(tmp_path / "run")
    with pytest.raises(RunError, match="collapsed on rte: 95% or more .* last 2 steps are 'Yes'"):
        train("nlu-rte", out=out, collapse={"on": "stop", "patience": 2}, **settings)
    summary = train("nlu-rte", out=out, resume=True, collapse={"on": "warn", "patience": 2}, **settings)
    assert summary["steps"] == 3
    assert "warning: the policy has collapsed on rte" in (tmp_path / "run/logs/run.log").read_text()
    written = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row.get("answers/top_share") for row in written] == [None, 1, 1]
    assert [row["answers/invalid"] for row in written] == [0, 0, 0]
