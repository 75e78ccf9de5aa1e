"""pass@N against exact rationals, and intervals that cover what they should."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from underdog.rl.runs import evaluation
from underdog.rl.runs.evaluation import Tally, change, curve, interval, pass_at, powers_of_two, summarise


def tally(right: list[int], samples: int, graded: list[int] | None = None) -> Tally:
    names = tuple(f"p{i}" for i in range(len(right)))
    return Tally(names, np.array(right), np.array(graded or [samples] * len(right)), samples)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_is_the_exact_combinatorial_estimate(case: tuple[int, int, int]) -> None:
    n, c, k = case
    exact = 1 - Fraction(comb(n - c, k), comb(n, k))
    assert pass_at(n, c, k) == pytest.approx(float(exact), abs=1e-13)


def test_pass_at_needs_as_many_samples_as_it_counts() -> None:
    assert np.isnan(pass_at(4, 4, 8))


def test_powers_of_two() -> None:
    assert powers_of_two(64) == [1, 2, 4, 8, 16, 32, 64]
    assert powers_of_two(7) == [1, 2, 4]


def test_ungraded_samples_count_neither_for_nor_against() -> None:
    summary = summarise(tally([2, 0], 8, graded=[4, 8]))
    assert summary["pass@1"] == pytest.approx((2 / 4 + 0 / 8) / 2)
    assert summary["ungraded"] == 4
    assert curve(tally([2, 0], 8, graded=[4, 8]))[8][1] == 0.0


def test_interval_covers_the_true_mean_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    hits = sum(lo <= 0.3 <= hi for lo, hi in (interval(rng.random(120) < 0.3) for _ in range(200)))
    assert 180 <= hits <= 199


def test_paired_change_is_narrower_than_the_intervals_it_compares() -> None:
    rng = np.random.default_rng(1)
    before = rng.integers(0, 60, size=200)
    after = before + 4
    paired = change(tally(before.tolist(), 64), tally(after.tolist(), 64))["pass@1"]
    lo, hi = paired["ci95"]
    assert paired["mean"] == pytest.approx(4 / 64)
    low, high = interval(before / 64)
    assert hi - lo < 1e-9 < high - low


def test_change_refuses_other_problems() -> None:
    other = Tally(("x",), np.array([1]), np.array([4]), 4)
    with pytest.raises(ValueError, match="same problems"):
        change(tally([1], 4), other)


def test_file_round_trip(tmp_path) -> None:
    first = tally([1, 3], 4)
    value = evaluation.to_json(first, version=7, digest="d", name="held_out")
    again = evaluation.from_json(value)
    assert (again.problems, again.samples) == (first.problems, first.samples)
    assert again.right_P.tolist() == [1, 3]
    assert value["pass@1"] == pytest.approx(0.5)
