"""One answer for everything is seen while training: a warning or a stop after some steps, also across a resume."""

from __future__ import annotations

import numpy as np
import pytest

from underdog.parts import RunError
from underdog.records import Group, Problem, Sample, Version
from underdog.rl.collapse import Collapse, CollapseWatch
from underdog.verifiers.base import Verifier
from underdog.verifiers.math.math import Math
from underdog.verifiers.nlu.nlu import Nlu


def step(said: str, golds: str = "YN" * 10) -> list[Group]:
    """One group a letter of `said` (Y, N, or ? for nothing between tags), judged by the verifier."""
    words = {"Y": "Yes", "N": "No"}
    groups = []
    for i, (letter, gold) in enumerate(zip(said, golds, strict=True)):
        problem = Problem(f"{i}", "?", words[gold], info={"task": "rte"})
        text = f"<Judgement>{words[letter]}</Judgement>" if letter in words else letter
        ids = np.zeros(1, np.int64)
        sample = Sample(problem.id, 0, Version(0, ""), 0, ids, ids, None, text, "eos")
        groups.append(Group(problem, (sample,), (Nlu().judge(problem, text),)))
    return groups


def watching(verifier: Verifier | None = None, **options) -> tuple[CollapseWatch, list[str]]:
    warnings: list[str] = []
    return CollapseWatch(Collapse(patience=3, **options), verifier or Nlu(), warnings.append), warnings


def test_it_warns_once_after_as_many_steps_in_a_row():
    watch, warnings = watching()
    for said in ("Y" * 20, "Y" * 20, "YN" * 10, "Y" * 20, "N" * 19 + "?"):
        watch.take(step(said))
    assert not warnings
    for _ in range(3):
        watch.take(step("Y" * 20))
    assert len(warnings) == 1
    assert "'Yes'" in warnings[0]


def test_it_stops_where_it_is_to_stop_and_keeps_count_across_a_resume():
    watch, _ = watching(on="stop")
    watch.take(step("Y" * 20))
    watch.take(step("Y" * 20))
    resumed, _ = watching(on="stop")
    resumed.load_state_dict(watch.state_dict())
    with pytest.raises(RunError, match=r"3 steps in a row .*collapse\.on=warn"):
        resumed.take(step("Y" * 20))


def test_it_is_silent_where_it_is_off_and_logs_all_the_same():
    watch, warnings = watching(on="off")
    for _ in range(4):
        stats = watch.take(step("Y" * 15 + "N" * 1 + "?" * 4))
    assert stats == {"answers/invalid": 0.2, "answers/top_share": 15 / 16}
    for _ in range(4):
        assert watch.take(step("Y" * 20)) == {"answers/invalid": 0, "answers/top_share": 1}
    assert not warnings


def test_golds_that_are_as_one_sided_and_answers_that_are_none_are_no_collapse():
    watch, warnings = watching()
    for _ in range(5):
        watch.take(step("Y" * 20, "Y" * 19 + "N"))
        assert watch.take(step("?" * 20)) == {"answers/invalid": 1}
    for _ in range(5):
        watch.take(step("Y" * 18 + "N" * 2))
    assert not warnings


def test_a_verifier_that_tells_no_answers_is_left_alone():
    watch, _ = watching(Math())
    assert watch.take(step("Y" * 20)) == {}
