"""The demo's problems: right by construction, and never shared between warm-up and training."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underdog.rl.data.arithmetic import Arithmetic, bare, worked
from underdog.rl.data.split import load


@pytest.fixture(scope="module")
def parts():
    return {part: Arithmetic(part=part).load(0) for part in ("warmup", "train")}


def test_every_answer_is_the_value_of_the_prompt(parts):
    for problem in parts["train"]:
        ((*numbers,),) = [map(int, three) for three in re.findall(r"^(\d\d)\+(\d\d)\+(\d\d)=$", problem.prompt)]
        assert int(problem.answer) == sum(numbers)
        assert problem.solution.endswith(rf"\boxed{{{sum(numbers)}}}")


@given(st.tuples(*[st.integers(10, 99)] * 3))
def test_worked_solutions_state_true_steps(abc):
    text = worked(*abc)
    ((units, tens),) = re.findall(r"^<think>([\d,]+);([\d,]+)</think>", text)
    units, tens = ([int(n) for n in part.split(",")] for part in (units, tens))
    assert units == [sum(n % 10 for n in abc[:k]) for k in (2, 3)]
    assert tens == [units[-1] // 10 + sum(n // 10 for n in abc[:k]) for k in (1, 2, 3)]
    assert 10 * tens[-1] + units[-1] % 10 == sum(abc)
    assert text.endswith(bare(*abc))


def test_parts_are_disjoint_and_make_up_the_whole_space(parts):
    warmup, train = ({p.id for p in parts[part]} for part in ("warmup", "train"))
    assert not warmup & train
    assert len(warmup) + len(train) == 125_580
    assert len(train) == pytest.approx(125_580 / 8, rel=0.02)


def test_no_problem_is_another_with_its_numbers_exchanged(parts):
    every = [tuple(sorted(p.id.split("+"))) for part in parts.values() for p in part]
    assert len(set(every)) == len(every)


def test_parts_are_the_same_problems_under_every_seed(parts):
    assert {p.id for p in Arithmetic(part="train").load(7)} == {p.id for p in parts["train"]}


def test_a_seed_chooses_which_solutions_are_worked_and_nothing_else():
    first, again, other = (Arithmetic(count=200).load(seed) for seed in (3, 3, 4))
    assert first == again
    assert [p.id for p in first] == [p.id for p in other]
    assert [p.solution for p in first] != [p.solution for p in other]


def test_count_takes_so_many_distinct_problems():
    drawn = Arithmetic(count=500).load(1)
    assert len({p.id for p in drawn}) == 500


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_worked_is_the_share_of_worked_solutions(share):
    drawn = Arithmetic(part="warmup", count=4000, worked=share).load(0)
    measured = sum(not str(p.solution).startswith(r"\boxed") for p in drawn) / len(drawn)
    assert measured == pytest.approx(share, abs=0.03 if 0 < share < 1 else 0)


def test_runs_of_any_seed_are_evaluated_on_the_same_held_out_problems():
    first, second = (load(Arithmetic(count=3000), seed) for seed in (0, 5))
    assert len(first.held_out) == 256
    assert [p.id for p in first.held_out] == [p.id for p in second.held_out]
