"""From judged groups to numbers: weighted sums, shaping, what a user's reward may not do, and what is logged."""

from __future__ import annotations

import json

import numpy as np
import pytest

from underdog.parts import RunError
from underdog.records import Group, Outcome, Problem, Sample, Verdict, Version
from underdog.rewards.accuracy import Accuracy
from underdog.rewards.format import Format
from underdog.rewards.shaping.none import NONE
from underdog.rewards.shaping.unlikeliness import Unlikeliness
from underdog.rl.own import own_reward
from underdog.rl.scoring import metrics, score

MARKS: dict[str, Outcome] = {"+": "right", "-": "wrong", "?": "could_not_grade"}
TEXTS = {"f": "why\n</think>\nso", "n": "no"}


def group(marks: str, texts: str = "", logp: list[float] | None = None) -> Group:
    ids = np.zeros(2, dtype=np.int64)
    samples = tuple(
        Sample("p", i, Version(0, ""), i, ids, ids, None, TEXTS[text], "eos")
        for i, text in enumerate(texts or "n" * len(marks))
    )
    annotations = {} if logp is None else {"logp": tuple(np.full(2, value) for value in logp)}
    return Group(Problem("p", "?"), samples, tuple(Verdict(MARKS[m]) for m in marks), annotations)


BOTH = {"accuracy": (2.0, Accuracy()), "format": (1.0, Format())}


def test_parts_are_unweighted_and_their_weighted_sum_is_the_reward():
    (scored,) = score([group("+-+?", "ffnf")], BOTH, NONE())
    np.testing.assert_array_equal(scored.parts["accuracy"], [1, 0, 1, np.nan])
    np.testing.assert_array_equal(scored.parts["format"], [1, 1, 0, np.nan])
    np.testing.assert_array_equal(np.asarray(scored.raw_G), [3, 1, 2, np.nan])
    np.testing.assert_array_equal(np.asarray(scored.rewards_G), [3, 1, 2, np.nan])


def test_shaping_reweights_the_finished_sum():
    (scored,) = score([group("+-+", "ffn", [-1, -2, -3])], BOTH, Unlikeliness(beta=0.3))
    np.testing.assert_array_equal(np.asarray(scored.raw_G), [3, 1, 2])
    np.testing.assert_allclose(np.asarray(scored.rewards_G), [3 * 0.7, 1, 2 * 0.9])


def test_a_group_that_is_all_right_is_constant_though_its_format_varies():
    (scored,) = score([group("+++", "fnf", [-1, -2, -3])], BOTH, Unlikeliness())
    assert len(set(np.asarray(scored.rewards_G))) == 1
    assert metrics([scored])["frac_reward_zero_std"] == 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda g: [1.0], r"shape \(1,\).*each of the 2 samples"),
        (lambda g: 1.0, "one number for each of the 2 samples"),
        (lambda g: [1.0, float("nan")], "nan for sample 1"),
        (lambda g: [float("inf"), 0.0], "inf for sample 0"),
        (lambda g: ["good", "bad"], "ValueError"),
        (lambda g: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_what_a_users_reward_may_not_do(function, message: str):
    with pytest.raises(RunError, match=message) as error:
        score([group("+-")], {"mine.py:mine": (1.0, own_reward(function)())}, NONE())
    assert "mine.py:mine" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_users_reward_may_say_anything_of_what_was_not_graded():
    (scored,) = score([group("+?")], {"mine": (1.0, own_reward(lambda g: [2.0, float("nan")])())}, NONE())
    np.testing.assert_array_equal(np.asarray(scored.rewards_G), [2, np.nan])


def test_metrics_follow_trl_and_skip_what_was_not_graded():
    groups = score([group("+-?"), group("++"), group("??"), group("-")], {"accuracy": (2.0, Accuracy())}, NONE())
    logged = metrics(groups)
    rewards = np.array([2.0, 0, 2, 2, 0])
    assert logged == pytest.approx(
        {
            "reward": rewards.mean(),
            "reward_std": rewards.std(ddof=1),
            "frac_reward_zero_std": 2 / 3,
            "rewards/accuracy/mean": 0.6,
            "rewards/accuracy/std": rewards.std(ddof=1) / 2,
        }
    )
    json.dumps(logged)


def test_a_group_is_constant_by_its_range_not_by_a_small_deviation():
    nearly = own_reward(lambda g: [1.0, 1.0 + 1e-12])()
    assert metrics(score([group("++")], {"nearly": (1.0, nearly)}, NONE()))["frac_reward_zero_std"] == 0


def test_nothing_graded_logs_nothing():
    assert metrics(score([group("??")], BOTH, NONE())) == {}
    assert metrics([]) == {}
