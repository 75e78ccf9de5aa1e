"""The model of step time: its limits, and what it says of more workers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underdog.rl.runs.scaling import StageTimes, enough_workers, step_seconds

seconds = st.floats(0.01, 100)
times = st.builds(StageTimes, seconds, seconds, seconds, seconds)


@given(times, st.integers(1, 32))
def test_overlap_never_takes_longer_and_hides_the_shorter_side(t: StageTimes, workers: int) -> None:
    apart = step_seconds(t, workers, overlapped=False)
    beside = step_seconds(t, workers, overlapped=True)
    assert beside <= apart
    assert apart - beside == pytest.approx(min(t.generate / workers + t.verify, t.learn))


@given(times, st.booleans(), st.floats(0, 1))
def test_more_workers_never_slow_a_step_down_where_cores_are_free(t: StageTimes, overlapped: bool, f: float) -> None:
    took = [step_seconds(t, n, overlapped=overlapped, fixed=f) for n in (1, 2, 4, 8, 1000)]
    assert took == sorted(took, reverse=True)
    assert took[-1] >= t.publish + t.learn


def test_workers_stop_helping_when_the_learner_is_the_longer_side() -> None:
    t = StageTimes(publish=0.0, generate=8.0, verify=0.0, learn=2.0)
    assert enough_workers(t, overlapped=True) == 4
    assert enough_workers(t, overlapped=False) == 64 or step_seconds(t, 64, overlapped=False) > 2.0


def test_two_cores_cannot_do_the_work_of_three() -> None:
    t = StageTimes(publish=0.0, generate=2.0, verify=0.0, learn=2.0)
    assert step_seconds(t, 1, overlapped=True, cores=2) == 2.0
    assert step_seconds(t, 2, overlapped=True, cores=2) == 2.0
    assert step_seconds(t, 2, overlapped=True, cores=2, fixed=1.0) == 3.0


def test_stage_times_of_a_run_with_and_without_overlap() -> None:
    row = {"time/step": 3.0, "time/publish": 0.5, "time/generate": 2.0, "time/verify": 0.1, "time/update": 0.4}
    assert StageTimes.of([row, row], 1, overlapped=False).learn == pytest.approx(0.4)
    ahead = {"time/step": 2.5, "time/publish": 0.5, "time/generate": 2.0, "time/wait": 1.2, "time/update": 0.8}
    assert StageTimes.of([ahead], 1, overlapped=True).learn == pytest.approx(0.8)
