"""Rebounds on curves whose truth is planted: what falls, rises and recovers is found, and noise and spikes are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from underdog.rl.studies.rebounds import levels, rebound

STEPS, WINDOW = 200, 12
T = np.arange(STEPS)
FALL = 0.2 + np.exp(-T / 10)
"""From 1.2 to 0.2."""
HUMP = 0.2 * np.exp(-(((T - 90) / 18) ** 2))
"""Doubles the level between steps 70 and 110, roughly."""


def noisy(curve: np.ndarray, seed: int, share: float = 0.1) -> np.ndarray:
    return curve * (1 + share * np.random.default_rng(seed).standard_normal(len(curve)))


@pytest.mark.parametrize("seed", range(20))
def test_a_planted_double_descent_is_found_where_it_is(seed: int) -> None:
    late = np.where(T > 130, 0.8, 1.0)
    found = rebound(noisy((FALL + HUMP) * late, seed), WINDOW)
    assert found is not None
    assert 40 < found.bottom_at < 85
    assert 80 < found.top_at < 115
    assert found.bottom == pytest.approx(0.2, rel=0.2)
    assert found.height == pytest.approx(1.0, abs=0.35)
    assert found.recovered_at is not None
    assert 100 < found.recovered_at < 160


def test_a_rise_that_stays_is_a_rebound_without_a_recovery() -> None:
    found = rebound(noisy(FALL + 0.2 * (T > 80), 0), WINDOW)
    assert found is not None
    assert found.recovered_at is None


def test_without_noise_the_numbers_are_exact() -> None:
    curve = np.concatenate([[2.0], np.full(30, 1.0), np.full(30, 1.5), np.full(30, 0.5)])
    found = rebound(curve, 5)
    assert found is not None
    assert (found.bottom, found.top, found.height) == (1.0, 1.5, 0.5)
    # the third of five losses decides a median of five
    assert (found.top_at, found.recovered_at) == (31 + 2, 61 + 2)
    assert rebound(np.where(curve == 1.5, 1.04, curve), 5) is None  # a rise below a twentieth does not count


def test_a_rise_from_the_very_beginning_is_no_rebound() -> None:
    """A rate that is too high at once: nothing had fallen."""
    assert rebound(noisy(0.5 + HUMP, 0), WINDOW) is None
    assert rebound(noisy(1.0 - 0.5 * np.exp(-T / 10), 0), WINDOW) is None


@pytest.mark.parametrize("curve", [FALL, np.full(STEPS, 0.5), 1.2 - T / STEPS], ids=["falling", "level", "linear"])
@pytest.mark.parametrize("share", [0.05, 0.3])
def test_noise_alone_gives_less_than_one_false_alarm_in_a_hundred(curve: np.ndarray, share: float) -> None:
    alarms = sum(rebound(noisy(curve, seed, share), WINDOW) is not None for seed in range(300))
    assert alarms <= 2


@given(at=st.integers(30, 190), length=st.integers(1, 5), height=st.floats(1.0, 100.0), seed=st.integers(0, 99))
def test_a_spike_shorter_than_half_a_window_is_none(at: int, length: int, height: float, seed: int) -> None:
    curve = noisy(FALL, seed, 0.05)
    curve[at : at + length] += height
    assert rebound(curve, WINDOW) is None


@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 20))
def test_the_unit_of_the_loss_does_not_matter(scale: float, seed: int) -> None:
    curve = noisy(FALL + HUMP, seed)
    one, other = rebound(curve, WINDOW), rebound(scale * curve, WINDOW)
    assert one is not None
    assert other is not None
    assert (one.bottom_at, one.top_at, one.recovered_at) == (other.bottom_at, other.top_at, other.recovered_at)
    assert one.height == pytest.approx(other.height)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3])
def test_the_noise_is_measured_beside_the_trend(share: float) -> None:
    _, d_T = levels(noisy(np.full(4000, 1.0), 1, share), WINDOW)
    assert np.median(d_T) == pytest.approx(share, rel=0.05)
    straight = noisy(np.full(4000, 1.0), 1, share) + np.linspace(0, 40, 4000)
    assert np.median(levels(straight, WINDOW)[1]) == pytest.approx(share, rel=0.05)


def test_what_is_no_curve_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter than two windows"):
        rebound([1.0] * 9, 5)
    with pytest.raises(ValueError, match="not finite"):
        rebound([1.0, np.nan] * 9, 5)
