"""LoKU's inverted hinge in the place of the negative-advantage term: bounded, vanishing, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from underdog.parts import find
from underdog.records import Batch, Row
from underdog.rl.algorithms.losses import inverted_hinge
from underdog.rl.learner.learner import Learner
from underdog.rl.learner.options import LearnerOptions

POLICY_GRADIENTS = ("grpo", "dr_grpo", "dapo", "rloo", "reinforce_pp", "gspo", "cispo")
logits = st.lists(st.floats(-30, 30, allow_nan=False), min_size=2, max_size=12)


def hinge_of(logits: list[float], chosen: int) -> tuple[float, np.ndarray]:
    """The hinge of one token and its gradient in the logits, through `inverted_hinge`."""
    z_V = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    logp_V = z_V.log_softmax(0)
    others_V = torch.arange(len(logits)) != chosen
    loss = inverted_hinge(logp_V[chosen], logp_V[others_V].max())
    loss.backward()
    assert z_V.grad is not None
    return loss.item(), z_V.grad.numpy()


@given(logits, st.integers(0, 11))
def test_the_hinge_is_in_0_to_2_and_its_gradients_at_most_1(logits, chosen) -> None:
    """Against the formula in float64; descending it never makes the token likelier."""
    chosen %= len(logits)
    loss, gradient_V = hinge_of(logits, chosen)
    p_V = np.exp(np.array(logits) - max(logits))
    p_V /= p_V.sum()
    assert loss == pytest.approx(1 + p_V[chosen] - np.delete(p_V, chosen).max(), abs=1e-12)
    assert 0 <= loss <= 2
    assert np.abs(gradient_V).max() <= 1
    assert gradient_V[chosen] >= 0


def test_the_gradient_vanishes_once_the_token_is_suppressed_where_the_plain_loss_keeps_pushing() -> None:
    likely, gone = [5.0, 4.0, 0.0], [-25.0, 4.0, 0.0]
    assert np.abs(hinge_of(likely, 0)[1]).max() > 0.2
    assert np.abs(hinge_of(gone, 0)[1][0]) < 1e-12
    z_V = torch.tensor(gone, dtype=torch.float64, requires_grad=True)
    z_V.log_softmax(0)[0].backward()  # the loss −A logp with A = −1
    assert z_V.grad is not None
    assert float(z_V.grad[0]) == pytest.approx(1)


@pytest.mark.parametrize("name", POLICY_GRADIENTS)
def test_only_tokens_of_negative_advantage_get_it(name, groups, pack, new_logps) -> None:
    options: dict[str, Any] = {"kl": 0.0, "epochs": 2, **({"max_tokens": 10} if name in ("dr_grpo", "dapo") else {})}
    plain = find("algorithm", name)(mismatch="none", **options)
    hinged = find("algorithm", name)(mismatch="none", negative="hinge", **options)
    assert hinged.needs == plain.needs | {"rivals"}
    batch = hinged.advantages(groups)
    outputs, micro = pack(batch.rows, [new_logps[id(row.tokens_T)] for row in batch.rows])
    rival_logp_T = torch.full_like(outputs.logp_T, -0.7).requires_grad_()
    loss, _ = hinged.loss(outputs._replace(rival_logp_T=rival_logp_T), micro)
    loss_T, _ = plain.surrogate(outputs.logp_T, micro)
    down_T = micro.advantage_T < 0
    hinge_T = -micro.advantage_T * (1 + outputs.logp_T.exp() - np.exp(-0.7))
    expected = (micro.weight_T * torch.where(down_T, hinge_T, loss_T)).sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    loss.backward()
    assert rival_logp_T.grad is not None
    assert torch.equal(rival_logp_T.grad != 0, down_T)


def test_positive_advantages_alone_give_the_surrogate_bit_for_bit(groups, pack, new_logps) -> None:
    plain, hinged = (find("algorithm", "grpo")(kl=0.0, negative=n) for n in ("surrogate", "hinge"))
    rows = [row for row in plain.advantages(groups).rows if (row.advantage_T > 0).all()]
    assert rows
    outputs, micro = pack(rows, [new_logps[id(row.tokens_T)] for row in rows])
    hinge, _ = hinged.loss(outputs._replace(rival_logp_T=torch.zeros_like(outputs.logp_T)), micro)
    assert torch.equal(hinge, plain.loss(outputs, micro)[0])


def test_rivals_must_be_there(groups, update) -> None:
    hinged = find("algorithm", "grpo")(negative="hinge")
    with pytest.raises(ValueError, match="rivals"):
        update(hinged, hinged.advantages(groups))


def pushed_down(shape: str, negative: str, steps: int) -> float:
    """The mean log-prob of wrong samples once a policy was trained on nothing else."""
    options = LearnerOptions.model_validate({"lr": 1e-2, "adapter": "full", "max_grad_norm": None})
    learner = Learner(shape, options, seed=0, steps=steps, device="cpu", log=lambda text: None)
    draw = np.random.default_rng(0)
    rows = tuple(
        Row(draw.integers(3, 30, 4), draw.integers(3, 30, 6), np.full(6, -1, np.float32), 1 / 24) for _ in range(4)
    )
    algorithm = find("algorithm", "grpo")(kl=0.0, negative=negative, clip_low=1.0)
    chosen: list[float] = []

    def loss(outputs, batch):
        chosen.append(float(outputs.logp_T.detach().mean()))
        return algorithm.loss(outputs, batch)

    for step in range(1, steps + 1):
        learner.update(Batch(rows), loss, step, frozenset({"rivals"}))
    return chosen[-1]


@pytest.mark.slow
def test_wrong_samples_alone_drive_the_surrogate_without_end_and_not_the_hinge(tiny_shape) -> None:
    surrogate, hinge = ([pushed_down(tiny_shape, kind, n) for n in (40, 80)] for kind in ("surrogate", "hinge"))
    assert surrogate[1] < surrogate[0] - 30
    assert hinge[1] > hinge[0] - 3
    assert hinge[1] < np.log(1e-3)  # suppressed all the same
