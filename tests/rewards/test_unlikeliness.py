"""Rewarding the unlikely: the paper's vectors, both arms, and what must give no signal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from underdog.parts import RunError, find
from underdog.rewards.shaping.unlikeliness import Unlikeliness

# G=8, right at ranks 0, 3, 6 (rank 0 the likeliest): research notes on the paper and on its published code.
VECTORS = {
    "paper": ([0.75, 0.84375, 0.9375], [0.987, 1.200, 1.413]),
    "code": ([0.78125, 0.875, 0.96875], [0.995, 1.200, 1.406]),
}


def eight(make_group, order: list[int]):
    """Right at ranks 0, 3 and 6, the samples standing in `order` of ranks."""
    marks = "".join("+" if rank in (0, 3, 6) else "-" for rank in order)
    raw = [float(mark == "+") for mark in marks]
    lengths = [3 + 7 * (rank % 3) for rank in order]
    return make_group(marks, lengths=lengths, logp=[-0.1 - rank for rank in order], raw=raw)


@pytest.mark.parametrize("form", ["paper", "code"])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5, 6, 7], [5, 3, 0, 7, 6, 1, 2, 4]])
def test_vectors(make_group, form, order: list[int]):
    rewards_G = Unlikeliness(form=form).reshape(eight(make_group, order))
    advantages_G = (rewards_G - rewards_G.mean()) / rewards_G.std(ddof=1)
    rewards, advantages = VECTORS[form]
    at = [order.index(rank) for rank in (0, 3, 6)]
    np.testing.assert_allclose(rewards_G[at], rewards, rtol=1e-12)
    np.testing.assert_allclose(advantages_G[at], advantages, atol=1e-3)
    assert (np.delete(rewards_G, at) == 0).all()


def test_the_likelihood_is_a_mean_over_tokens_not_a_sum(make_group):
    # The long one has the lower sum but the higher mean: it is the likelier and loses more.
    group = make_group("++-", lengths=[100, 2, 2], logp=[-0.1, -1.0, -2.0], raw=[1, 1, 0])
    np.testing.assert_allclose(Unlikeliness().reshape(group), [0.75, 1 - 0.25 * 2 / 3, 0])


def test_ungraded_samples_are_not_ranked_and_not_counted(make_group):
    with_them = make_group("?+-+?", logp=[-9, -1, -2, -3, 0], raw=[np.nan, 1, 0, 1, np.nan])
    without = make_group("+-+", logp=[-1, -2, -3], raw=[1, 0, 1])
    rewards_G = Unlikeliness().reshape(with_them)
    np.testing.assert_array_equal(rewards_G[1:4], Unlikeliness().reshape(without))
    assert np.isnan(rewards_G[[0, 4]]).all()


@pytest.mark.parametrize("marks", ["+++", "---", "+?+", "-??", "??"])
def test_no_signal_where_all_are_right_or_all_are_wrong(make_group, marks: str):
    raw = [np.nan if mark == "?" else 1.0 + 0.1 * i for i, mark in enumerate(marks)]  # other rewards vary
    rewards_G = Unlikeliness().reshape(make_group(marks, logp=[-1.0, -2.0, -3.0][: len(marks)], raw=raw))
    graded = [mark != "?" for mark in marks]
    assert (np.isnan(rewards_G) == ~np.array(graded)).all()
    assert len(set(rewards_G[graded])) <= 1
    if any(graded):
        assert rewards_G[graded][0] == pytest.approx(np.nanmean(raw))


def test_ties_stand_in_the_samples_order(make_group):
    group = make_group("++-", logp=[-1.0, -1.0, -1.0], raw=[1, 1, 0])
    np.testing.assert_allclose(Unlikeliness(beta=0.3).reshape(group), [0.7, 0.8, 0])


@pytest.mark.parametrize("form", ["paper", "code"])
def test_groups_beside_each_other_are_each_by_itself(form):
    shaping, mean_logp_NG = Unlikeliness(form=form), -np.random.default_rng(0).integers(1, 6, size=(20, 7))
    each = [shaping.factors(mean_logp_G) for mean_logp_G in mean_logp_NG]
    np.testing.assert_array_equal(shaping.factors(mean_logp_NG), each)


def test_the_whole_sum_of_right_samples_is_reweighted_and_wrong_ones_keep_theirs(make_group):
    group = make_group("+-", logp=[-1.0, -2.0], raw=[3.0, 1.0])
    np.testing.assert_allclose(Unlikeliness().reshape(group), [2.25, 1.0])


def test_it_says_what_it_needs(make_group):
    assert Unlikeliness.needs == {"logp"}
    with pytest.raises(RunError, match="log-probs"):
        Unlikeliness().reshape(make_group("+-", raw=[1, 0]))


def test_none_leaves_everything_as_it_is(make_group):
    none = find("shaping", "none")()
    assert none.needs == frozenset()
    np.testing.assert_array_equal(none.reshape(make_group("+-?", raw=[1, 0, np.nan])), [1, 0, np.nan])


@given(
    st.lists(st.tuples(st.sampled_from("+-"), st.floats(-20, 0, width=32)), min_size=2, max_size=10),
    st.floats(0, 1),
    st.sampled_from(["paper", "code"]),
    st.data(),
)
def test_the_less_likely_right_answer_never_earns_less(make_group, samples, beta, form, data):
    marks, logp = "".join(s[0] for s in samples), [s[1] for s in samples]
    raw = [float(mark == "+") for mark in marks]
    rewards_G = Unlikeliness(beta=beta, form=form).reshape(make_group(marks, logp=logp, raw=raw))
    assert ((rewards_G >= 0) & (rewards_G <= 1)).all()
    right = [i for i in range(len(marks)) if marks[i] == "+"]
    if 0 < len(right) < len(marks):
        for i in right:
            for j in right:
                if logp[i] < logp[j]:
                    assert rewards_G[i] >= rewards_G[j]
    if len(set(logp)) == len(logp):
        order = data.draw(st.permutations(range(len(marks))))
        shuffled = make_group(
            "".join(marks[i] for i in order), logp=[logp[i] for i in order], raw=[raw[i] for i in order]
        )
        np.testing.assert_allclose(
            Unlikeliness(beta=beta, form=form).reshape(shuffled), rewards_G[list(order)], atol=1e-12
        )
