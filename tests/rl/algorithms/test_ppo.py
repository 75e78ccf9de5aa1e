"""PPO against plain float64 references: returns, advantages, losses, controllers, whitening; and its state."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from underdog.parts import find
from underdog.records import Batch, Group
from underdog.rl.algorithms.advantages import generalised
from underdog.rl.algorithms.base import Outputs
from underdog.rl.algorithms.controllers import Moments, adapted
from underdog.rl.algorithms.losses import clipped_value_loss

numbers = st.floats(-5, 5, allow_nan=False, width=32)
lengths = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def build(**options: Any) -> Any:
    return find("algorithm", "ppo")(**options)


def with_values(groups: list[Group], seed: int = 3) -> list[Group]:
    draw = np.random.default_rng(seed)
    return [
        replace(g, annotations={**g.annotations, "values": tuple(draw.normal(size=n) for n in g.lengths_G)})
        for g in groups
    ]


def reference_gae(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """Eq. 16 as it is printed: for each t the sum over all that comes after."""
    ends = [*values, 0.0]
    deltas = [r + gamma * ends[t + 1] - ends[t] for t, r in enumerate(rewards)]
    return [sum((gamma * lam) ** (s - t) * deltas[s] for s in range(t, len(deltas))) for t in range(len(deltas))]


def graded(groups: list[Group]) -> list[tuple[Group, int]]:
    return [(g, i) for g in groups for i in np.flatnonzero(g.graded_G)]


def reference_rows(groups: list[Group], gamma: float, lam: float, kl: float) -> list[tuple[list[float], list[float]]]:
    """Advantages before whitening, and returns, of each graded sample."""
    rows = []
    for group, i in graded(groups):
        assert group.rewards_G is not None
        logp, ref, values = (group.annotations[name][i].astype(float) for name in ("logp", "ref_logp", "values"))
        rewards = [-kl * (a - b) for a, b in zip(logp, ref, strict=True)]
        rewards[-1] += float(group.rewards_G[i])
        advantages = reference_gae(rewards, list(values), gamma, lam)
        rows.append((advantages, [a + v for a, v in zip(advantages, values, strict=True)]))
    return rows


# --- advantages ------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12), st.floats(0, 1), st.floats(0, 1))
def test_gae_is_the_papers_sum(tokens: list[tuple[float, float]], gamma: float, lam: float) -> None:
    rewards, values = (list(column) for column in zip(*tokens, strict=True))
    ours = generalised(np.array(rewards), np.array(values), gamma, lam)
    np.testing.assert_allclose(ours, reference_gae(rewards, values, gamma, lam), rtol=1e-9, atol=1e-9)


@given(st.lists(numbers, min_size=1, max_size=12), st.floats(0, 1))
def test_lambda_0_is_the_temporal_difference_and_lambda_1_the_return_less_the_value(rewards, gamma) -> None:
    rewards_T, values_T = np.array(rewards), np.linspace(-1, 2, len(rewards))
    after_T = np.append(values_T[1:], 0)
    np.testing.assert_allclose(
        generalised(rewards_T, values_T, gamma, 0.0), rewards_T + gamma * after_T - values_T, atol=1e-12
    )
    returns = [sum(gamma ** (s - t) * rewards[s] for s in range(t, len(rewards))) for t in range(len(rewards))]
    np.testing.assert_allclose(generalised(rewards_T, values_T, gamma, 1.0), returns - values_T, atol=1e-9)


@given(lengths, st.lists(numbers, min_size=6, max_size=6), st.floats(0, 1))
def test_without_a_critic_advantages_are_the_monte_carlo_returns(make_group, lengths, rewards, kl) -> None:
    """gamma = lambda = 1, all values 0: what is still to be paid and earned, on ragged batches."""
    group = make_group("a", rewards[: len(lengths)], lengths)
    zero = tuple(np.zeros(n, np.float32) for n in lengths)
    group = replace(group, annotations={**group.annotations, "values": zero})
    batch = build(lam=1.0, kl=kl, whiten_advantages=False).advantages([group])
    for i, row in enumerate(batch.rows):
        paid_T = kl * (group.annotations["logp"][i].astype(float) - group.annotations["ref_logp"][i])
        returns_T = rewards[i] - np.cumsum(paid_T[::-1])[::-1]
        np.testing.assert_allclose(row.advantage_T, returns_T, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(row.return_T, row.advantage_T)


@pytest.mark.parametrize("options", [{}, {"kl": 0.0}, {"gamma": 0.9, "lam": 0.5, "kl": 0.3}])
def test_rows_are_the_references_whitened_over_all_tokens(options, groups) -> None:
    groups = with_values(groups)
    algorithm = build(**options)
    batch = algorithm.advantages(groups)
    expected = reference_rows(groups, algorithm.gamma, algorithm.lam, algorithm.kl)
    flat = np.concatenate([advantages for advantages, _ in expected])
    assert len(batch.rows) == len(expected) == 8  # none is dropped but what could not be graded
    for row, (advantages, returns) in zip(batch.rows, expected, strict=True):
        np.testing.assert_allclose(row.advantage_T, (advantages - flat.mean()) / flat.std(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(row.return_T, returns, rtol=1e-5, atol=1e-6)
        assert row.weight == pytest.approx(1 / len(flat))


def test_whitening_is_of_the_whole_step_not_of_a_mini_batch(groups) -> None:
    batch = build(minibatch=2).advantages(with_values(groups))
    every = np.concatenate([row.advantage_T for row in batch.rows]).astype(float)
    assert batch.minibatch == 2
    assert every.mean() == pytest.approx(0, abs=1e-6)
    assert every.std() == pytest.approx(1, rel=1e-5)


# --- losses ----------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=20), st.floats(0.01, 3))
def test_the_clipped_value_loss_is_the_references(tokens, clip) -> None:
    value_T, old_T, return_T = (torch.tensor(column, dtype=torch.float64) for column in zip(*tokens, strict=True))
    loss_T, clipped_T = clipped_value_loss(value_T, old_T, return_T, clip)
    plain_T, _ = clipped_value_loss(value_T, old_T, return_T, None)
    for t, (value, old, target) in enumerate(tokens):
        near = min(max(value, old - clip), old + clip)
        assert float(loss_T[t]) == pytest.approx(0.5 * max((value - target) ** 2, (near - target) ** 2), abs=1e-9)
        assert float(plain_T[t]) == pytest.approx(0.5 * (value - target) ** 2, abs=1e-9)
        apart = (near - target) ** 2 - (value - target) ** 2
        assert abs(apart) < 1e-9 or bool(clipped_T[t]) == (apart > 0)


def outputs_of(batch: Batch, news: dict[int, torch.Tensor], pack) -> tuple[Outputs, Any, torch.Tensor]:
    outputs, micro = pack(batch.rows, [news[id(row.tokens_T)] for row in batch.rows])
    draw = np.random.default_rng(8)
    value_T = torch.tensor(draw.normal(size=len(outputs.logp_T)), requires_grad=True)

    def tensor(name: str) -> torch.Tensor:
        return torch.tensor(np.concatenate([getattr(row, name) for row in batch.rows]).astype(float))

    micro = replace(micro, old_value_T=tensor("old_value_T"), return_T=tensor("return_T"))
    return outputs._replace(value_T=value_T), micro, value_T


@pytest.mark.parametrize("kl_in", ["reward", "loss"])
def test_the_loss_is_policy_plus_values_plus_kl(kl_in, groups, new_logps, pack) -> None:
    algorithm = build(kl=0.3, kl_in=kl_in, mismatch="none", vf_coef=0.7)
    batch = algorithm.advantages(with_values(groups))
    outputs, micro, value_T = outputs_of(batch, new_logps, pack)
    loss, stats = algorithm.loss(outputs, micro)
    total, at = 0.0, 0
    count = sum(len(row.tokens_T) for row in batch.rows)
    for row in batch.rows:
        for t in range(len(row.tokens_T)):
            new, value = float(outputs.logp_T[at]), float(value_T[at])
            ratio, a = math.exp(new - float(row.old_logp_T[t])), float(row.advantage_T[t])
            old, target = float(row.old_value_T[t]), float(row.return_T[t])
            near = min(max(value, old - 0.2), old + 0.2)
            one = -min(ratio * a, min(max(ratio, 0.8), 1.2) * a)
            one += 0.7 * 0.5 * max((value - target) ** 2, (near - target) ** 2)
            if kl_in == "loss":
                d = float(row.ref_logp_T[t]) - new
                one += 0.3 * (math.exp(d) - d - 1)
            total, at = total + one / count, at + 1
    assert float(loss) == pytest.approx(total, rel=1e-6)
    loss.backward()
    assert value_T.grad is not None
    assert value_T.grad.any()
    assert stats["critic/loss"].mean() > 0


def test_kl_in_the_loss_leaves_rewards_alone(groups) -> None:
    groups = with_values(groups)
    free, in_loss = build(kl=0.0).advantages(groups), build(kl=0.5, kl_in="loss").advantages(groups)
    in_reward = build(kl=0.5).advantages(groups)
    for a, b, c in zip(free.rows, in_loss.rows, in_reward.rows, strict=True):
        np.testing.assert_array_equal(a.advantage_T, b.advantage_T)
        assert b.ref_logp_T is not None
        assert not np.array_equal(a.return_T, c.return_T)


def test_values_must_be_there(groups, new_logps, update) -> None:
    with pytest.raises(ValueError, match="values"):
        update(build(), build().advantages(with_values(groups)))


# --- controllers -----------------------------------------------------------------------------------------------


@given(st.floats(1e-3, 2), st.floats(-5, 50), st.floats(0.1, 20), st.integers(1, 512), st.integers(100, 20000))
def test_the_adaptive_coefficient_is_zieglers(coefficient, kl, target, samples, horizon) -> None:
    error = min(max(kl / target - 1, -0.2), 0.2)
    got = adapted(coefficient, kl, target, samples, horizon)
    assert got == pytest.approx(coefficient * (1 + error * samples / horizon), rel=1e-12)
    assert (got > coefficient) == (error > 0 and got != coefficient)


def test_the_coefficient_follows_the_divergence_and_stays_without_a_target(groups) -> None:
    groups = with_values(groups)
    mean = float(np.mean([(g.annotations["logp"][i] - g.annotations["ref_logp"][i]).sum() for g, i in graded(groups)]))
    steered = build(kl=0.2, kl_target=0.01, kl_horizon=100)
    batch = steered.advantages(groups)
    assert batch.stats["kl/completion"] == pytest.approx(mean, rel=1e-5)
    assert batch.stats["kl_coefficient"] == 0.2  # the one that this step was made with
    assert steered.coefficient == pytest.approx(0.2 * (1 + 8 * float(np.clip(mean / 0.01 - 1, -0.2, 0.2)) / 100))
    fixed = build(kl=0.2)
    fixed.advantages(groups)
    assert fixed.coefficient == 0.2


@given(st.lists(st.lists(numbers, min_size=1, max_size=8), min_size=1, max_size=5))
def test_moments_are_those_of_fading_steps(steps: list[list[float]]) -> None:
    moments = Moments()
    for step in steps:
        moments = moments.with_step(np.array(step))
    weights = np.array([0.9 ** (len(steps) - 1 - i) for i in range(len(steps))])
    weights /= weights.sum()
    mean = sum(w * np.mean(s) for w, s in zip(weights, steps, strict=True))
    square = sum(w * np.mean(np.square(s)) for w, s in zip(weights, steps, strict=True))
    assert moments.mean == pytest.approx(mean, abs=1e-9)
    assert moments.deviation == pytest.approx(math.sqrt(max(square - mean**2, 1e-4)), rel=1e-6)
    values = np.array([-1.0, 0.5, 7.0])
    np.testing.assert_allclose(moments.unscaled(moments.scaled(values)), values, rtol=1e-9)


def test_with_whitened_values_the_critic_learns_returns_of_mean_0_and_deviation_1(groups) -> None:
    """The first step: values, at the scale before any step, count as they are; the targets are scaled."""
    groups = with_values(groups)
    plain, scaled = build().advantages(groups), build(whiten_values=True).advantages(groups)
    targets = np.concatenate([row.return_T for row in scaled.rows]).astype(float)
    assert targets.mean() == pytest.approx(0, abs=1e-6)
    assert targets.std() == pytest.approx(1, rel=1e-5)
    for a, b in zip(plain.rows, scaled.rows, strict=True):
        np.testing.assert_array_equal(a.advantage_T, b.advantage_T)


def test_a_saved_state_goes_on_as_it_would_have(groups) -> None:
    groups = with_values(groups)
    options = {"kl_target": 0.5, "kl_horizon": 50, "whiten_values": True}
    first, again = build(**options), build(**options)
    first.advantages(groups)
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for a, b in zip(first.advantages(groups).rows, again.advantages(groups).rows, strict=True):
        np.testing.assert_array_equal(a.advantage_T, b.advantage_T)
        np.testing.assert_array_equal(a.return_T, b.return_T)
    assert first.state_dict() == again.state_dict()


def test_explained_variance_is_1_for_a_critic_that_foretells_and_0_for_one_that_knows_nothing(make_group) -> None:
    group = make_group("a", [1.0, 0.0, 1.0], [2, 3, 2])
    knowing = tuple(np.full(n, r) for n, r in zip((2, 3, 2), (1.0, 0.0, 1.0), strict=True))
    nothing = tuple(np.full(n, 0.5) for n in (2, 3, 2))
    for values, expected in ((knowing, 1.0), (nothing, 0.0)):
        one = replace(group, annotations={**group.annotations, "values": values})
        assert build(kl=0.0, lam=1.0).advantages([one]).stats["critic/explained_variance"] == pytest.approx(expected)


def test_needs_values_and_what_else_is_used() -> None:
    assert build(kl=0.0, epochs=1).needs == {"values"}
    assert build(kl=0.0).needs == {"values", "logp"}
    assert build(epochs=1).needs == {"values", "logp", "ref_logp"}


def test_defaults_are_trls() -> None:
    ppo = build()
    assert (ppo.epochs, ppo.clip_low, ppo.clip_high, ppo.value_clip) == (4, 0.2, 0.2, 0.2)
    assert (ppo.vf_coef, ppo.gamma, ppo.lam, ppo.kl_horizon) == (0.1, 1.0, 0.95, 10_000)
