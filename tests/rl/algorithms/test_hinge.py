"""LoKU's inverted hinge in the place of the negative-advantage term: bounded, vanishing, and nowhere else."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from underdog.parts import find
from underdog.records import Batch, Row
from underdog.rl.algorithms.losses import inverted_hinge
from underdog.rl.api import train
from underdog.rl.learner.learner import Learner
from underdog.rl.learner.options import LearnerOptions

POLICY_GRADIENTS = ("grpo", "dr_grpo", "dapo", "rloo", "reinforce_pp", "gspo", "cispo")
logits = st.lists(st.floats(-30, 30, allow_nan=False), min_size=2, max_size=12)


def hinge_of(logits: list[float], chosen: int) -> tuple[float, np.ndarray]:
    """The hinge of one token and its gradient in the logits, through `inverted_hinge`."""
    z_V = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    logp_V = z_V.log_softmax(0)
    others_V = torch.arange(len(logits)) != chosen
    loss = inverted_hinge(logp_V[chosen], logp_V[others_V].max(0).values)  # of equals the first, not a mean of them
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
    rival = max((v for v in range(len(logits)) if v != chosen), key=lambda v: logits[v])
    one_V = np.eye(len(logits))
    slope_V = p_V[chosen] * (one_V[chosen] - p_V) - p_V[rival] * (one_V[rival] - p_V)
    np.testing.assert_allclose(gradient_V, slope_V, atol=1e-12)
    assert gradient_V[chosen] == pytest.approx(p_V[chosen] * (1 - p_V[chosen] + p_V[rival]), abs=1e-12)
    assert gradient_V[chosen] >= 0 >= gradient_V[rival]


def test_the_gradient_vanishes_once_the_token_is_suppressed_where_the_plain_loss_keeps_pushing() -> None:
    likely, gone = [5.0, 4.0, 0.0], [-25.0, 4.0, 0.0]
    assert np.abs(hinge_of(likely, 0)[1]).max() > 0.2
    assert np.abs(hinge_of(gone, 0)[1][0]) < 1e-12
    z_V = torch.tensor(gone, dtype=torch.float64, requires_grad=True)
    z_V.log_softmax(0)[0].backward()  # the loss −A logp with A = −1
    assert z_V.grad is not None
    assert float(z_V.grad[0]) == pytest.approx(1)


def test_a_rival_that_is_not_sure_is_raised_also_when_the_token_is_gone() -> None:
    """What does not vanish: p(v)(1 − p(v)) at the rival, ¼ at most."""
    gradient_V = hinge_of([-60.0, 0.0, 0.0], 0)[1]
    np.testing.assert_allclose(gradient_V, [0.0, -0.25, 0.25], atol=1e-12)


def make(name: str, **options: Any) -> Any:
    """The algorithm; without KL term, correction or dynamic limits unless asked for."""
    limits = {"max_tokens": 10} if name in ("dr_grpo", "dapo") else {}
    return find("algorithm", name)(**{"kl": 0.0, "mismatch": "none", **limits, **options})


@pytest.mark.parametrize("name", POLICY_GRADIENTS)
def test_only_tokens_of_negative_advantage_get_it(name, groups, pack, new_logps) -> None:
    """Against the formula, with log-probs far enough from the old ones that the surrogate clips some."""
    plain, hinged = (make(name, negative=negative, epochs=2) for negative in ("surrogate", "hinge"))
    assert hinged.needs == plain.needs | {"rivals"}
    batch = hinged.advantages(groups)
    outputs, micro = pack(batch.rows, [new_logps[id(row.tokens_T)] for row in batch.rows])
    rival_logp_T = torch.full_like(outputs.logp_T, -0.7).requires_grad_()
    loss, stats = hinged.loss(outputs._replace(rival_logp_T=rival_logp_T), micro)
    loss_T, plain_stats = plain.surrogate(outputs.logp_T, micro)
    down_T = micro.advantage_T < 0
    length_T = torch.bincount(micro.row_T)[micro.row_T] if name == "rloo" else 1  # its sums no length divides
    hinge_T = -micro.advantage_T * (1 + outputs.logp_T.exp() - np.exp(-0.7)) * length_T
    expected = (micro.weight_T * torch.where(down_T, hinge_T, loss_T)).sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    loss.backward()
    assert rival_logp_T.grad is not None
    assert torch.equal(rival_logp_T.grad != 0, down_T)
    assert plain_stats.keys() == stats.keys()
    assert all(torch.equal(stats[key], plain_stats[key] * ~down_T) for key in stats)  # what has no clip is not clipped


@pytest.mark.parametrize("name", POLICY_GRADIENTS)
def test_on_fresh_samples_it_is_the_surrogate_at_the_scale_of_the_token(name, make_group, pack) -> None:
    """In the token's logit p(1 − p + p_v) stands where −A logp has 1 − p: in every method by the same measure.

    On completions of several lengths, so that a sum that should be divided by one, or should not, is seen.
    """
    rows = make(name).advantages([make_group("a", [1.0, 0.0, 0.0, 0.5], [3, 5, 2, 8])]).rows
    tokens = sum(len(row.tokens_T) for row in rows)
    z_TV = torch.randn(tokens, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gradients = []
    for negative in ("surrogate", "hinge"):
        logp_TV = z_TV.requires_grad_().log_softmax(-1)
        outputs, micro = pack(rows, logp_TV[:, 0].split([len(row.tokens_T) for row in rows]))
        rival_logp_T = logp_TV[:, 1:].max(-1).values
        loss, _ = make(name, negative=negative).loss(outputs._replace(rival_logp_T=rival_logp_T), micro)
        gradients.append(torch.autograd.grad(loss, z_TV)[0][:, 0])
    p_T, rival_p_T = z_TV.detach().softmax(-1)[:, 0], z_TV.detach().softmax(-1)[:, 1:].max(-1).values
    share_T = torch.where(micro.advantage_T < 0, p_T * (1 - p_T + rival_p_T) / (1 - p_T), 1.0)
    assert (gradients[0] != 0).all()
    torch.testing.assert_close(gradients[1], gradients[0] * share_T, rtol=1e-10, atol=0)


@pytest.mark.parametrize("mismatch", ["truncate", "mask"])
def test_the_engines_mismatch_weighs_hinges_too(mismatch, make_group, pack, new_logps, groups) -> None:
    hinged = make("grpo", negative="hinge", mismatch=mismatch, mismatch_cap=1.2)
    rows = hinged.advantages(groups).rows
    outputs, micro = pack(rows, [new_logps[id(row.tokens_T)] for row in rows])
    rival_logp_T = torch.full_like(outputs.logp_T, -0.7).requires_grad_()
    hinged.loss(outputs._replace(rival_logp_T=rival_logp_T), micro)[0].backward()
    ratio_T = (micro.old_logp_T - micro.engine_logp_T).exp()
    capped_T = ratio_T.clamp(max=1.2) if mismatch == "truncate" else ratio_T * (ratio_T <= 1.2)
    assert ((ratio_T > 1.2) & (micro.advantage_T < 0)).any()
    expected_T = micro.weight_T * capped_T * micro.advantage_T.clamp(max=0) * np.exp(-0.7)
    torch.testing.assert_close(rival_logp_T.grad, expected_T, rtol=1e-10, atol=0)


def test_the_kl_term_is_as_without(groups, pack, new_logps) -> None:
    terms = []
    for negative in ("surrogate", "hinge"):
        rows = make("grpo", negative=negative, kl=0.3).advantages(groups).rows
        outputs, micro = pack(rows, [new_logps[id(row.tokens_T)] for row in rows])
        outputs = outputs._replace(rival_logp_T=torch.full_like(outputs.logp_T, -0.7))
        losses = [make("grpo", negative=negative, kl=kl).loss(outputs, micro)[0] for kl in (0.3, 0.0)]
        terms.append((losses[0] - losses[1]).item())
    assert terms[0] > 0.001
    assert terms[1] == pytest.approx(terms[0], rel=1e-9)


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


def learner_of(shape: str, steps: int, **options: Any) -> Learner:
    settings = LearnerOptions.model_validate({"lr": 1e-2, "adapter": "full", "max_grad_norm": None, **options})
    return Learner(shape, settings, seed=0, steps=steps, device="cpu", log=lambda text: None)


def some_rows(advantage: float) -> tuple[Row, ...]:
    """Four completions of six tokens."""
    draw = np.random.default_rng(0)
    return tuple(
        Row(draw.integers(3, 30, 4), draw.integers(3, 30, 6), np.full(6, advantage, np.float32), 1 / 24)
        for _ in range(4)
    )


def test_right_samples_alone_train_a_model_bit_for_bit_as_without(tiny_shape) -> None:
    """Through the learner and its kernel, head included: the rivals that are read leave no trace."""
    trained = []
    for negative in ("surrogate", "hinge"):
        learner, algorithm = learner_of(tiny_shape, 3), make("grpo", negative=negative)
        for step in (1, 2, 3):
            learner.update(Batch(some_rows(1.0)), algorithm.loss, step, algorithm.needs)
        trained.append(learner.trained())
    assert all(torch.equal(*pair) for pair in zip(*trained, strict=True))


@pytest.mark.slow
def test_a_recipe_trains_with_the_hinge_and_says_so_in_its_metrics(tiny_recipe, tmp_path) -> None:
    """End to end, several updates a batch: the same first samples, another update, and nothing low is clipped."""
    seen = {}
    for negative in ("surrogate", "hinge"):
        algorithm = {"name": "grpo", "kl": 0.01, "negative": negative, "epochs": 3, "clip_low": 0.001}
        overrides: dict[str, Any] = {
            "algorithm": algorithm,
            "learner.lr": 1e-2,
            "eval.problems": 0,
            "eval.every": 0,
            "tracking.every": 0,
        }
        train(str(tiny_recipe), out=str(tmp_path / negative), steps=1, **overrides)
        lines = (tmp_path / negative / "metrics.jsonl").read_text().splitlines()
        seen[negative] = json.loads(lines[-1])
    first, hinged = seen["surrogate"], seen["hinge"]
    assert first["reward"] == hinged["reward"]
    assert first["loss"] != hinged["loss"]
    assert first["clip_ratio/low_mean"] > 0 == hinged["clip_ratio/low_mean"]
    assert np.isfinite(hinged["loss"])
    assert hinged["grad_norm"] > 0


def pushed_down(shape: str, negative: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean log-prob of wrong samples, and their rivals' mean probability, while a policy trains on nothing else."""
    learner, algorithm = learner_of(shape, steps), make("grpo", negative=negative, clip_low=1.0)
    seen: list[tuple[float, float]] = []

    def loss(outputs, batch):
        seen.append((float(outputs.logp_T.detach().mean()), float(outputs.rival_logp_T.detach().exp().mean())))
        return algorithm.loss(outputs, batch)

    for step in range(1, steps + 1):
        learner.update(Batch(some_rows(-1.0)), loss, step, frozenset({"rivals"}))
    logp_N, rival_p_N = np.array(seen).T
    return logp_N, rival_p_N


@pytest.mark.slow
def test_wrong_samples_alone_drive_the_surrogate_without_end_and_not_the_hinge(tiny_shape) -> None:
    """And what the hinge takes from the wrong tokens their rivals get: it bounds the loss, it does not keep entropy."""
    (surrogate_N, _), (hinge_N, rival_p_N) = (pushed_down(tiny_shape, kind, 80) for kind in ("surrogate", "hinge"))
    assert surrogate_N[79] < surrogate_N[39] - 30
    assert hinge_N[79] > hinge_N[39] - 3
    assert hinge_N[79] < np.log(1e-3)  # suppressed all the same
    assert rival_p_N[79] > 0.9
