"""The critic: values are its own, learn the returns, resume exactly, and are no part of the policy."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import mse_loss

from underdog.records import Batch, Group, Problem, Row, Sample, Verdict, Version
from underdog.rl.learner.learner import Learner
from underdog.rl.learner.options import LearnerOptions

NEEDS = frozenset({"values"})


@pytest.fixture
def make(tiny_shape):
    def make(critic: Any = "shared", values: bool = True, **options: Any) -> Learner:
        adapter = {"name": "lora", "r": 4, "alpha": 8, "dropout": 0.0}
        options = {"lr": 1e-2, "adapter": adapter, "critic": critic, **options}
        parsed = LearnerOptions.model_validate(options)
        return Learner(tiny_shape, parsed, seed=0, steps=9, device="cpu", log=lambda text: None, values=values)

    return make


def batch_of(seed: int = 0, **options: Any) -> Batch:
    draw = np.random.default_rng(seed)
    rows = []
    for i in range(6):
        n = int(draw.integers(1, 9))
        prompt, tokens = draw.integers(3, 30, 4 + i % 2), draw.integers(3, 30, n)
        returns = draw.normal(size=n).astype(np.float32)
        rows.append(Row(prompt, tokens, np.zeros(n, np.float32), 1 / 20, old_value_T=returns, return_T=returns))
    return Batch(tuple(rows), **options)


def group_of(batch: Batch) -> Group:
    samples = tuple(
        Sample("p", i, Version(0, ""), 0, r.prompt_ids, r.tokens_T, None, "", "eos") for i, r in enumerate(batch.rows)
    )
    return Group(Problem("p", "?"), samples, tuple(Verdict("right") for _ in samples))


def returns_of(batch: Batch) -> np.ndarray:
    return np.concatenate([np.asarray(row.return_T) for row in batch.rows])


def regress(outputs, batch):
    """The value loss alone."""
    return (batch.weight_T * (outputs.value_T - batch.return_T).square()).sum(), {}


def imitate(outputs, batch):
    return -(batch.weight_T * outputs.logp_T).sum(), {}


def values(learner: Learner, batch: Batch) -> np.ndarray:
    (group,) = learner.annotate([group_of(batch)], NEEDS)
    return np.concatenate(group.annotations["values"])


@pytest.mark.parametrize("critic", ["shared", "own"])
def test_values_begin_at_zero_and_learn_the_returns(critic, make) -> None:
    learner, batch = make(critic, lr=3e-2), batch_of()
    returns = returns_of(batch)
    assert not values(learner, batch).any()
    for step in range(1, 25):
        learner.update(batch, regress, step, NEEDS)
    assert np.square(values(learner, batch) - returns).mean() < 0.6 * np.square(returns).mean()


def test_a_value_is_the_head_on_the_state_before_the_token(make) -> None:
    """Against transformers' own forward: the hidden state at the place that predicts the token."""
    learner, batch = make(), batch_of()
    for step in (1, 2):
        learner.update(batch, regress, step, NEEDS)
    critic, base = learner._scorer.critic, learner._base
    assert critic is not None
    (group,) = learner.annotate([group_of(batch)], NEEDS | {"logp"})
    assert set(group.annotations) == {"logp", "values"}
    for row, value_T in zip(batch.rows, group.annotations["values"], strict=True):
        ids = torch.from_numpy(np.concatenate([row.prompt_ids, row.tokens_T]))[None]
        with torch.no_grad():
            hidden = base.model(input_ids=ids).last_hidden_state[0, len(row.prompt_ids) - 1 : -1]
            expected_T = hidden @ critic.weight_1H[0] + critic.bias_1
        np.testing.assert_allclose(value_T, expected_T, rtol=1e-4, atol=1e-5)


def test_what_comes_after_a_token_does_not_change_its_value(make) -> None:
    learner, batch = make(), batch_of()
    learner.update(batch, regress, 1, NEEDS)
    row = max(batch.rows, key=lambda row: len(row.tokens_T))
    other = row.tokens_T.copy()
    other[2:] = (other[2:] + 1) % 29
    pair = Batch((row, Row(row.prompt_ids, other, row.advantage_T, 1.0)))
    first, second = np.split(values(learner, pair), 2)
    np.testing.assert_allclose(first[:3], second[:3], rtol=1e-5, atol=1e-6)
    assert not np.allclose(first[3:], second[3:], atol=1e-6)


@pytest.mark.parametrize(("critic", "moves"), [("shared", True), ("own", False)])
def test_the_value_loss_moves_the_policy_only_where_the_trunk_is_shared(critic, moves, make) -> None:
    learner, batch = make(critic), batch_of()
    for step in (1, 2, 3):
        before = learner.policy.digest()
        learner.update(batch, regress, step, NEEDS)
    assert (learner.policy.digest() != before) == moves


def test_the_policys_own_steps_are_the_same_beside_a_critic_of_its_own(make) -> None:
    """A critic that is far off takes nothing from the policy's clipped step."""
    batch = batch_of()

    def both(outputs, micro):
        return imitate(outputs, micro)[0] + 1e3 * regress(outputs, micro)[0], {}

    alone, beside = make(values=False), make("own")
    for step in (1, 2):
        stats = alone.update(batch, imitate, step)
        others = beside.update(batch, both, step, NEEDS)
        assert others["grad_norm"] == stats["grad_norm"]
        assert others["grad_norm/critic"] > 100
    assert alone.policy.digest() == beside.policy.digest()


def test_the_frozen_base_is_held_once(make) -> None:
    learner = make("own")
    critic = learner._scorer.critic
    assert critic is not None
    policys = {p.data_ptr() for p in learner._base.parameters() if not p.requires_grad}
    frozen = [p for p in critic.parameters() if not p.requires_grad]
    assert len(frozen) > 10
    assert {p.data_ptr() for p in frozen} <= policys
    trained = {p.data_ptr() for p in learner._base.parameters() if p.requires_grad}
    assert not trained & {p.data_ptr() for p in critic.parameters()}


def test_a_rate_of_its_own(make) -> None:
    batch = batch_of()
    slow, quick = make(), make({"name": "shared", "lr": 0.5}, schedule={"name": "linear"})
    slow.update(batch, regress, 1, NEEDS)
    quick.update(batch, regress, 1, NEEDS)
    biases = [float(learner._scorer.critic.bias_1.abs()) for learner in (slow, quick)]  # Adam's first step is the rate
    assert biases == pytest.approx([1e-2, 0.5], rel=1e-3)
    assert [group["lr"] for group in quick._optimizer.param_groups] == [1e-2, 0.5]
    stats = quick.update(batch, regress, 5, NEEDS)
    assert stats["lr"] == pytest.approx(1e-2 * 5 / 9)
    assert [group["lr"] for group in quick._optimizer.param_groups] == pytest.approx([1e-2 * 5 / 9, 0.5 * 5 / 9])


@pytest.mark.parametrize("critic", ["shared", "own"])
def test_a_saved_critic_goes_on_bit_for_bit(critic, make) -> None:
    first, again, batch = make(critic), make(critic), batch_of(epochs=2, minibatch=4)
    first.update(batch, regress, 1, NEEDS)
    state = copy.deepcopy(first.state_dict())
    assert any(name.startswith("parameters/critic.") for name in state["tensors"])
    again.load_state_dict(state)
    for learner in (first, again):
        learner.update(batch_of(1, epochs=2, minibatch=4), regress, 2, NEEDS)
    for name, tensor in first.state_dict()["tensors"].items():
        assert torch.equal(tensor, again.state_dict()["tensors"][name]), name


def test_the_critic_is_no_part_of_the_policy(make) -> None:
    without, beside = make(values=False), make("own")
    assert without.policy.digest() == beside.policy.digest()
    assert [n for n, _ in without.policy.weights()] == [n for n, _ in beside.policy.weights()]
    forms = without.policy.adapter(), beside.policy.adapter()
    assert forms[0] is not None
    assert forms[1] is not None
    assert forms[0][1].keys() == forms[1][1].keys()


def test_full_parameters_and_narrow_weights_have_critics_too(make) -> None:
    batch = batch_of()
    for options in ({"adapter": "full"}, {"dtype": "bfloat16"}):
        learner = make("own", **options)
        returns = returns_of(batch)
        losses = [learner.update(batch, regress, step, NEEDS)["loss"] for step in range(1, 6)]
        assert losses[-1] < losses[0]
        assert values(learner, batch).shape == returns.shape
        assert mse_loss(torch.from_numpy(values(learner, batch)), torch.from_numpy(returns)).isfinite()
