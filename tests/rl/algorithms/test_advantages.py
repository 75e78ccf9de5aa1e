"""Advantages from rewards: published vectors, and the properties that the formulas promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from underdog.rl.algorithms.advantages import (
    group_relative,
    is_constant,
    leave_one_out,
    overlong_penalty,
    token_weight,
    whiten,
)

rewards = st.lists(st.integers(-8, 8).map(lambda n: n / 4), min_size=2, max_size=9).map(np.array)


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        ([0.75, 0.84375, 0.9375], [0.987, 1.200, 1.413]),  # unlikeliness, the paper's arm
        ([0.78125, 0.875, 0.96875], [0.995, 1.200, 1.406]),  # the published code's
        ([1.0, 1.0, 1.0], [1.208, 1.208, 1.208]),  # plain
    ],
)
def test_unlikeliness_vectors(right: list[float], expected: list[float]) -> None:
    """core.md §2.1: G = 8, correct at ranks 0, 3, 6, unbiased standard deviation."""
    rewards_G = np.zeros(8)
    rewards_G[[0, 3, 6]] = right
    np.testing.assert_allclose(group_relative(rewards_G)[[0, 3, 6]], expected, atol=1e-3)


def test_equal_rewards_are_constant_whatever_their_deviation() -> None:
    """Float32 tenths have a non-zero float32 deviation; a group of them must still have no advantage."""
    tenths_G = np.full(7, 0.1, dtype=np.float32)
    assert tenths_G.std() > 0
    assert is_constant(tenths_G)
    assert not group_relative(tenths_G).any()
    assert not leave_one_out(tenths_G).any()


def test_rewards_that_differ_a_little_are_kept() -> None:
    rewards_G = np.array([0.1, 0.1 + 1e-7, 0.1])
    assert not is_constant(rewards_G)
    assert group_relative(rewards_G)[1] > 0


@pytest.mark.parametrize("rewards_G", [[np.nan, np.nan], [0.3], [0.3, np.nan], []])
def test_fewer_than_two_graded_samples_are_constant(rewards_G: list[float]) -> None:
    assert is_constant(np.array(rewards_G))


@given(rewards, st.booleans())
def test_group_relative_sums_to_zero_and_ignores_a_shift(rewards_G: np.ndarray, scale: bool) -> None:
    advantages_G = group_relative(rewards_G, scale)
    assert abs(advantages_G.sum()) < 1e-9
    np.testing.assert_allclose(group_relative(rewards_G + 3, scale), advantages_G, atol=1e-9)


@given(rewards, st.integers(1, 9))
def test_scaling_rewards_matters_only_without_the_deviation(rewards_G: np.ndarray, factor: int) -> None:
    """Up to the 1e-4 beside the deviation, which is at least 0.25/sqrt(9) here."""
    np.testing.assert_allclose(group_relative(rewards_G * factor), group_relative(rewards_G), rtol=2e-3)
    np.testing.assert_allclose(
        group_relative(rewards_G * factor, scale=False), factor * group_relative(rewards_G, scale=False), atol=1e-9
    )


@given(rewards, st.randoms(use_true_random=False))
def test_the_order_of_samples_is_no_matter(rewards_G: np.ndarray, random) -> None:
    order = list(range(len(rewards_G)))
    random.shuffle(order)
    for function in (group_relative, leave_one_out, whiten):
        np.testing.assert_allclose(function(rewards_G[order]), function(rewards_G)[order], atol=1e-9)


@given(rewards, st.integers(0, 9))
def test_an_ungraded_sample_counts_nowhere(rewards_G: np.ndarray, place: int) -> None:
    at = min(place, len(rewards_G))
    with_one_G = np.insert(rewards_G, at, np.nan)
    for function in (group_relative, leave_one_out):
        assert np.isnan(function(with_one_G)[at])
        np.testing.assert_array_equal(np.delete(function(with_one_G), at), function(rewards_G))


@given(rewards)
def test_leave_one_out_is_the_mean_of_the_others(rewards_G: np.ndarray) -> None:
    others = [r - np.delete(rewards_G, i).mean() for i, r in enumerate(rewards_G)]
    np.testing.assert_allclose(leave_one_out(rewards_G), others, atol=1e-9)


@given(rewards)
def test_whitened_values_have_mean_0_and_variance_1(values_N: np.ndarray) -> None:
    white_N = whiten(values_N)
    assert abs(white_N.mean()) < 1e-9
    assert white_N.var() == pytest.approx(0.0 if is_constant(values_N) else 1.0)


def test_overlong_penalty_is_the_papers() -> None:
    """DAPO: expected maximum 16,384 tokens, a buffer of 4,096 more."""
    lengths_G = np.array([1, 16384, 16385, 18432, 20480, 30000])
    expected = [0, 0, -1 / 4096, -0.5, -1, -1]
    np.testing.assert_allclose(overlong_penalty(lengths_G, 20480, 4096), expected)


def test_weights_of_all_tokens_sum_to_what_the_method_says() -> None:
    lengths_N = np.array([3, 5, 2])

    def total(per) -> float:
        return sum(n * token_weight(per, n, lengths_N, 10) for n in lengths_N)

    assert total("sequence") == pytest.approx(1)
    assert total("token") == pytest.approx(1)
    assert total("constant") == pytest.approx(10 / (3 * 10))


@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_groups_beside_each_other_are_each_by_itself(seed: int, ungraded: bool, scale: bool) -> None:
    draw = np.random.default_rng(seed)
    rewards_NMG = draw.integers(0, 3, size=(2, 3, 7)) / 2
    if ungraded:
        rewards_NMG[draw.random(rewards_NMG.shape) < 0.3] = np.nan
    each = [[group_relative(rewards_G, scale) for rewards_G in rewards_MG] for rewards_MG in rewards_NMG]
    np.testing.assert_array_equal(group_relative(rewards_NMG, scale), each)
