from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from underdog.rl.learner.options import LearnerOptions, Schedule


def test_a_bare_word_is_short_for_its_block():
    assert LearnerOptions.model_validate({"schedule": "cosine"}).schedule == Schedule(name="cosine")
    with pytest.raises(ValidationError):
        LearnerOptions.model_validate({"schedule": "cosin"})


def test_constant_is_one():
    assert [Schedule().share(step, 7) for step in range(1, 9)] == [1.0] * 8


def test_warmup_rises_in_equal_parts_to_the_peak():
    schedule = Schedule(name="linear", warmup=0.4)
    assert [schedule.share(step, 10) for step in (1, 2, 3, 4, 5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_linear_falls_to_the_floor_and_stays():
    schedule = Schedule(name="linear", floor=0.2)
    assert schedule.share(1, 4) == 1
    assert schedule.share(3, 4) == pytest.approx(0.6)
    assert schedule.share(5, 4) == schedule.share(50, 4) == pytest.approx(0.2)


def test_cosine_in_closed_form():
    schedule = Schedule(name="cosine", warmup=0.1, floor=0.1)
    for step in range(3, 21):
        expected = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - 3) / 18))
        assert schedule.share(step, 20) == pytest.approx(expected)


def test_a_horizon_keeps_the_rate_when_steps_are_raised():
    schedule = Schedule(name="cosine", horizon=10)
    assert [schedule.share(s, 5) for s in range(1, 6)] == [schedule.share(s, 100) for s in range(1, 6)]
