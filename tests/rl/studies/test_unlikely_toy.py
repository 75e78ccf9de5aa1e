"""unlikely-toy: the bandit against float64 references and planted truths, and what its analysis makes of trials."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from underdog.records import Group, Problem, Sample, Verdict, Version
from underdog.rewards.shaping.none import NONE
from underdog.rewards.shaping.unlikeliness import Unlikeliness
from underdog.rl.algorithms.dr_grpo import DrGRPO
from underdog.rl.algorithms.grpo import GRPO
from underdog.rl.config import filled
from underdog.rl.studies.analyses.unlikely_toy import UnlikelyToy, crossing
from underdog.rl.studies.experiments.bandit import Bandit, sample
from underdog.rl.studies.experiments.bandit_problems import PASS_N, draw_problems, gains, log_softmax, pass_at, uplift
from underdog.rl.studies.sweep import read_sweep, trials
from underdog.rl.studies.tried import Tried

SMALL: dict[str, Any] = {"topics": 4, "problems": 16, "fresh": 16, "actions": 12, "methods": 4, "batch": 8, "steps": 24}


def bandit(**options: Any) -> Bandit:
    return filled(Bandit, {}, {key.replace("__", "."): value for key, value in options.items()})


# --- problems and measures


@given(st.lists(st.integers(0, 64), min_size=1, max_size=5))
def test_pass_at_n_is_exact(sixtyfourths: list[int]) -> None:
    logp_PA = np.log(np.array([[n / 64, 1 - n / 64] for n in sixtyfourths]) + 1e-300)
    right_PA = np.tile([True, False], (len(sixtyfourths), 1))
    for n, found in zip(PASS_N, pass_at(logp_PA, right_PA), strict=True):
        exact = sum(1 - (1 - Fraction(own, 64)) ** n for own in sixtyfourths) / len(sixtyfourths)
        assert found == pytest.approx(float(exact), rel=1e-12, abs=1e-12)


def test_samples_have_the_policys_frequencies() -> None:
    logp_SA = log_softmax(-np.log(2.0) * np.array([[1.0, 2, 3, 4, 4], [9, 1, 2, 3, 3]]))
    uniform_SG = np.random.default_rng(0).random((2, 200_000))
    for logp_A, action_G in zip(logp_SA, sample(logp_SA, uniform_SG), strict=True):
        share_A = np.bincount(action_G, minlength=5) / len(action_G)
        assert np.abs(share_A - np.exp(logp_A)).max() < 4 * np.sqrt(0.25 / len(action_G))
    assert sample(logp_SA, np.full((2, 1), 1 - 2**-53)).tolist() == [[4], [4]]


def test_the_uplift_is_by_rank_of_the_initial_policy_and_of_right_samples_alone() -> None:
    before_PG = np.log([[0.1, 0.6, 0.3], [0.2, 0.2, 0.5]])  # ranks: 1 2 0 places; 2, then the tie in its order
    after_PG = np.log([[0.2, 0.5, 0.4], [0.1, 0.3, 0.9]])
    right_PG = np.array([[True, True, False], [True, True, False]])
    # rank 0: only 0.6 -> 0.5 is right; rank 1: 0.3 is wrong, 0.2 -> 0.1; rank 2: 0.1 -> 0.2 and 0.2 -> 0.3
    np.testing.assert_array_equal(uplift(before_PG, after_PG, right_PG), [0, 0, 1])
    np.testing.assert_array_equal(uplift(before_PG, after_PG, np.zeros_like(right_PG)), [np.nan] * 3)


def test_gains_are_over_the_problems_that_a_method_solves() -> None:
    before_PA, after_PA = np.zeros((2, 3)), np.log(2.0) * np.array([[1.0, 5, 9], [3.0, 7, 9]])
    right_PA = np.array([[True, False, False], [True, False, False]])
    np.testing.assert_allclose(gains(before_PA, after_PA, right_PA, 2), [2, np.nan])


def test_problems_are_as_they_are_said_to_be() -> None:
    draw = np.random.default_rng(0)
    own = {"topics": 3, "each": 400, "actions": 20, "methods": 5, "works": 0.3, "spread": 8.0, "jitter": 0.5}
    logits_PA, right_PA = draw_problems(draw, **own)
    bits_TEA = (-logits_PA / np.log(2.0)).reshape(3, 400, 20)
    np.testing.assert_allclose(bits_TEA[..., :5].mean(axis=1), np.tile([0, 2, 4, 6, 8], (3, 1)), atol=0.1)
    np.testing.assert_allclose(bits_TEA.std(axis=1), 0.5, atol=0.1)
    assert right_PA[:, :5].any(axis=1).all()
    assert not right_PA[:, 5:].any()
    # by itself with 0.3, or the one that was drawn where none would: (0.7)^5 / 5 more
    np.testing.assert_allclose(right_PA[:, :5].mean(axis=0), 0.3 + 0.7**5 / 5, atol=0.06)


# --- training


def reference(toy: Bandit, seed: int) -> np.ndarray:
    """One seed's table by plain gradient descent in float64, the loss written out from the papers."""
    logits_SPA, right_SPA = toy._drawn([seed])
    trained_P, _ = toy._places()
    logits_PA, right_PA = torch.from_numpy(logits_SPA[0, trained_P]), right_SPA[0, trained_P]
    _, order_SI, uniform_SIG = toy._draws(logits_SPA[:, trained_P], [seed])
    table_TA = torch.zeros((toy.topics, toy.actions), dtype=torch.float64, requires_grad=True)
    for step in range(toy.steps):
        now = slice(step * toy.batch, (step + 1) * toy.batch)
        problems = order_SI[0, now]
        old_BA = (logits_PA[problems] + table_TA[problems // toy.problems]).log_softmax(-1).detach()
        action_BG = torch.from_numpy(sample(old_BA.numpy(), uniform_SIG[0, now]))
        right_BG = torch.from_numpy(np.take_along_axis(right_PA[problems.numpy()], action_BG.numpy(), axis=-1))
        old_BG, ref_BG = old_BA.gather(-1, action_BG), logits_PA[problems].log_softmax(-1).gather(-1, action_BG)
        for _ in range(toy.algorithm.epochs):
            logp_BG = (logits_PA[problems] + table_TA[problems // toy.problems]).log_softmax(-1).gather(-1, action_BG)
            losses = []
            for logp_G, old_G, ref_G, right_G in zip(logp_BG, old_BG, ref_BG, right_BG.double(), strict=True):
                if 0 < right_G.sum() < toy.group:
                    reward_G = right_G
                    if isinstance(toy.shaping, Unlikeliness):
                        rank_G = (old_G[:, None] < old_G[None, :]).sum(1) + torch.tensor(
                            [int((old_G[:i] == old_G[i]).sum()) for i in range(toy.group)]
                        )
                        reward_G = right_G * (1 - toy.shaping.beta * (toy.group - rank_G) / toy.group)
                    advantage_G = (reward_G - reward_G.mean()) / (reward_G.std() + 1e-4)
                    ratio_G = (logp_G - old_G).exp()
                    clipped_G = torch.minimum(ratio_G * advantage_G, ratio_G.clamp(0.8, 1.2) * advantage_G)
                    kl_G = (ref_G - logp_G).exp() - 1 - (ref_G - logp_G)
                    losses.append(-clipped_G + toy.algorithm.kl * kl_G)
            (gradient,) = torch.autograd.grad(torch.cat(losses).mean(), table_TA)
            table_TA = (table_TA - toy.lr * gradient).detach().requires_grad_()
    return table_TA.detach().numpy()


@pytest.mark.parametrize("shaping", ["none", "unlikeliness"])
@pytest.mark.parametrize(("epochs", "lr"), [(1, 1.0), (3, 6.0)])
def test_updates_are_those_of_a_float64_reference(shaping: str, epochs: int, lr: float) -> None:
    options = {"algorithm__kl": 0.1, "algorithm__epochs": epochs, "shaping": shaping, "optimizer": "sgd", "lr": lr}
    toy = bandit(**{**SMALL, "steps": 3}, **options)
    logits_SPA, right_SPA = toy._drawn([3, 5])
    trained_P, _ = toy._places()
    table_STA = toy.train(logits_SPA[:, trained_P], right_SPA[:, trained_P], [3, 5])
    for seed, table_TA in zip([3, 5], table_STA, strict=True):
        expected_TA = reference(toy, seed)
        assert np.abs(expected_TA).max() > 0.05
        np.testing.assert_allclose(table_TA, expected_TA, atol=1e-5 * np.abs(expected_TA).max() + 1e-6)
    if epochs > 1:  # so large a step meets the clip: without it the same training ends elsewhere
        wide = bandit(**{**SMALL, "steps": 3}, **options, algorithm__clip_low=1.0, algorithm__clip_high=9.0)
        other_STA = wide.train(logits_SPA[:, trained_P], right_SPA[:, trained_P], [3, 5])
        assert np.abs(other_STA - table_STA).max() > 0.05


def judged(right_G: np.ndarray, logp_G: np.ndarray) -> Group:
    """The group that a run would make of one-token samples."""
    ids = np.zeros(1, dtype=np.int64)
    samples = tuple(Sample("p", i, Version(0, ""), i, ids, ids, None, "", "eos") for i in range(len(right_G)))
    verdicts = tuple(Verdict("right" if right else "wrong") for right in right_G)
    annotations = {"logp": tuple(logp_G[:, None].astype(np.float32))}
    return Group(Problem("p", "?", "7"), samples, verdicts, annotations, raw_G=right_G.astype(np.float64))


@pytest.mark.parametrize("shaping", [NONE(), Unlikeliness(), Unlikeliness(form="code", beta=0.5)])
@pytest.mark.parametrize("algorithm", [filled(GRPO, {}, {"kl": 0.1}), filled(DrGRPO, {}, {"max_tokens": 1})])
def test_advantages_are_those_of_a_run_on_the_same_groups(shaping: Any, algorithm: Any) -> None:
    draw = np.random.default_rng(0)
    right_SBG = draw.random((2, 6, 8)) < np.array([0.0, 0.1, 0.3, 0.5, 0.9, 1.0])[:, None]
    old_SBG = np.log(draw.integers(1, 5, size=(2, 6, 8)) / 8)
    toy = bandit(group=8).model_copy(update={"shaping": shaping, "algorithm": algorithm})
    logp_SBG = torch.from_numpy(old_SBG)
    batch = toy.batch_of(right_SBG, logp_SBG, logp_SBG)
    found_SBG, weight_SBG = (own.numpy().reshape(2, 6, 8) for own in (batch.advantage_T, batch.weight_T))
    for s, b in np.ndindex(2, 6):
        group = judged(right_SBG[s, b], old_SBG[s, b])
        expected_G = algorithm.group_advantages(shaping.reshape(group))
        np.testing.assert_allclose(found_SBG[s, b], expected_G, rtol=1e-12)
        assert (weight_SBG[s, b] > 0).all() == (0 < right_SBG[s, b].sum() < 8)
    np.testing.assert_allclose(weight_SBG.sum(axis=(1, 2)), 1)


def test_seeds_beside_each_other_do_not_touch() -> None:
    toy = bandit(**SMALL, algorithm__epochs=2)
    together = toy.measure([4, 7])
    for key, value in toy.measure([7]).items():
        assert together[key][1] == pytest.approx(value[0], nan_ok=True, abs=1e-5), key


# --- planted truths


def test_a_policy_that_learns_nothing_stays_as_it_is() -> None:
    found = bandit(**SMALL, lr=1e-30).measure([0, 1])
    assert found["trained"] == found["initial"]
    assert all(share in (0.0, None) for ranks in found["uplift"] for share in ranks)


def bias(**options: Any) -> np.ndarray:
    """The rank bias of each seed."""
    found = bandit(**{**SMALL, "topics": 8, "problems": 32, "steps": 96, **options}).measure(range(12))
    return np.array(UnlikelyToy().bias(found), dtype=float)


def test_without_spread_there_is_no_rank_bias_and_with_it_there_is() -> None:
    spread = bias(actions=24, spread=12, lr=0.1)
    assert spread.mean() > 0.1
    assert spread.mean() > 4 * spread.std(ddof=1) / np.sqrt(len(spread))
    even = bias(actions=24, spread=0, jitter=0, lr=0.1)
    assert abs(even.mean()) < 3 * even.std(ddof=1) / np.sqrt(len(even))
    assert abs(even.mean()) < 0.05


def test_what_works_nowhere_else_is_lost_only_where_rows_are_shared() -> None:
    """In a table each problem keeps its own row, and what is right of it can but gain."""
    table = bandit(**{**SMALL, "topics": 16, "problems": 1, "fresh": 0}, lr=0.1).measure(range(6))
    shared = bandit(**{**SMALL, "topics": 1, "problems": 256, "works": 0.2, "steps": 96}, lr=0.3).measure(range(6))
    change = [np.array(own["trained"]).mean(0) - np.array(own["initial"]).mean(0) for own in (table, shared)]
    assert (change[0] > 0).all()
    assert change[1][0] > 0 > change[1][-1]


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("methods", 65, "methods=65 are more than actions=64"),
        ("algorithm", "ppo", "takes a method of GRPO's family"),
        ("algorithm__minibatch", 8, "takes a method of GRPO's family, without minibatch"),
        ("algorthm__kl", 0.1, "unknown key algorthm.kl; did you mean algorithm.kl?"),
    ],
)
def test_what_the_bandit_cannot_take_is_said(key: str, value: Any, sentence: str) -> None:
    from underdog.parts import UserError

    with pytest.raises(UserError) as refused:
        bandit(**{key: value})
    assert sentence in str(refused.value)


# --- the analysis


def planted(changes: Mapping[str, float], biases: Mapping[str, float], seeds: int) -> dict[tuple[str, str, str], Any]:
    """Trials of the main setting whose pass@1024 and rank bias changed by so much, alike but for a little noise."""
    found = {}
    for arm in changes:
        noise = [0.001 * (i - (seeds - 1) / 2) for i in range(seeds)]
        initial = [[0.1] * 10 + [0.8 + own] for own in noise]
        trained = [[0.3] * 10 + [0.8 + changes[arm] + 2 * own] for own in noise]
        ranks = [[0.5 + biases[arm] + own] * 8 + [None] * 16 + [0.5] * 8 for own in noise]
        found["", "", arm] = {"initial": initial, "trained": trained, "uplift": ranks, "gains": [[1.0] * 8] * seeds}
    return found


def analysed(changes: Mapping[str, float], biases: Mapping[str, float]) -> dict[str, tuple[Any, ...]]:
    study = read_sweep("unlikely-toy", short=True)
    grid = study.grid.model_copy(update={"map": {}, "arms": {arm: {} for arm in changes}, "mapped": None})
    study = type(study)(study.name, study.question, True, grid)
    claims = UnlikelyToy().analyse(Tried(study, planted(changes, biases, len(grid.seeds)))).tables[0]
    return {str(row[0]): row for row in claims.rows}


def test_what_was_planted_is_confirmed_and_refuted() -> None:
    arms: list[str] = ["grpo", "control", "above", "level", "between", "alike", "below"]
    changes = dict(zip(arms, [-0.2, -0.1, 0.05, 0.0, -0.05, -0.1, -0.15], strict=True))
    rows = analysed(changes, dict.fromkeys(arms, 0.0) | {"grpo": 0.25})
    said = {claim: row[1] for claim, row in rows.items()}
    assert said == {
        "grpo's uplift falls with rank": "confirmed",
        "grpo's pass@1024 falls below the initial policy's": "confirmed",
        "control reverses it": "refuted (lessens)",
        "above reverses it": "confirmed (reverses)",
        "level reverses it": "confirmed (undoes)",
        "between reverses it": "refuted (lessens)",
        "alike reverses it": "refuted (no effect)",
        "below reverses it": "refuted (worsens)",
    }
    assert "+15.00 ± 0.00 points against control, +5.00 ± 0.25 against the initial" in rows["above reverses it"][2]
    assert "rank bias −0.250 ± 0.000 against grpo" in rows["control reverses it"][2]
    other = analysed({"grpo": 0.1, "control": 0.05, "more": 0.2}, {"grpo": -0.25, "control": 0.0, "more": 0.0})
    assert [row[1] for row in other.values()] == ["refuted", "refuted", "refuted (worse)", "refuted (better)"]


def test_a_crossing_is_where_a_line_first_reaches_a_level() -> None:
    assert crossing([0.0, 2, 1, 4], [0.0, 10, 20, 30], 1.5) == pytest.approx(7.5)
    assert crossing([0.0, 1], [0.0, 1], 1.0) == 1
    assert crossing([0.0, 1], [0.0, 1], 1.5) is None
    assert crossing([1.0, 2], [0.0, 1], 0.5) is None


def test_the_study_asks_every_arm_of_the_paper_alike(tmp_path: Path) -> None:
    study = read_sweep("unlikely-toy")
    main = {trial.arm: trial.experiment for trial in trials(study, tmp_path) if not trial.axis}
    assert study.grid.seeds == list(range(20))
    paper = {"grpo": (1, 0.02), "high-kl": (1, 0.1), "epochs-2": (2, 0.1), "epochs-3": (3, 0.1)}
    paper |= {"unlikely-1": (1, 0.1), "unlikely-2": (2, 0.1)}
    for arm, (epochs, kl) in paper.items():
        toy = main[arm]
        assert isinstance(toy, Bandit)
        assert (toy.algorithm.epochs, toy.algorithm.kl) == (epochs, kl)
        assert (toy.algorithm.clip_low, toy.algorithm.clip_high, toy.algorithm.kl_estimator) == (0.2, 0.2, "k3")
        assert (toy.group, toy.lr, toy.optimizer) == (32, 0.1, "adamw")
        assert getattr(toy.shaping, "beta", None) == (0.25 if arm.startswith("unlikely") else None)
