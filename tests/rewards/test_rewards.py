"""Each reward says what its paper says, and what it says of a sample does not hang on where the sample stands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from underdog.parts import find, names
from underdog.rewards.base import Reward

BOUNDS = {
    "accuracy": (0, 1),
    "format": (0, 1),
    "tag_count": (0, 1),
    "reasoning_steps": (0, 1),
    "cosine": (-0.5, 1),
    "length": (-0.5, 0.5),
    "repetition": (-1, 0),
    "nlu_paper": (-2.5, 2.5),
    "nlu_code": (-3, 2.5),
}


def make(name: str, **options: Any) -> Reward:
    return find("reward", name)(**options)


def test_every_reward_is_bounded_below():
    assert set(names("reward")) == set(BOUNDS)


def test_accuracy(make_group):
    np.testing.assert_array_equal(make("accuracy").score(make_group("+-+")), [1, 0, 1])


@pytest.mark.parametrize(
    ("text", "form", "tags"),
    [
        ("<think>\nwhy\n</think>\nso", 1, 1),
        ("why\n</think>\nso", 1, 0.5),
        ("<think>\nwhy</think>\nso", 0, 0.5),
        ("<think>\nwhy\n</think> so", 0, 0.5),
        ("<think> why\n</think>\n", 1, 0.5),
        ("<think>\n\n</think>\n\n</think>\n", 0, 0.5),
        ("<think>\n<think>\n\n</think>\n", 1, 0.5),
        ("\n</think>\n<answer>no</answer", 1, 0.5),
        ("nothing", 0, 0),
        ("", 0, 0),
    ],
)
def test_format_and_tag_count(make_group, text: str, form: float, tags: float):
    group = make_group("-", [text])
    assert make("format").score(group) == [form]
    assert make("tag_count").score(group) == [tags]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("why\n</think>\n<answer>\n7\n</answer>\n", 1),
        ("why\n</think>\n\n<answer>7</answer>", 1),
        ("why\n</think>\nso 7", 0),
        ("why\n</think>\n<answer>7</answer> or so", 0),
        ("why\n</think>\n<answer>7</answer><answer>8</answer>", 0),
        ("why\n</think>\n<answer></answer>", 0),
        ("why\n</think>\n<answer>7", 0),
        ("<answer>7</answer>\n</think>\n", 0),
        ("why</think>\n<answer>7</answer>", 0),
    ],
)
def test_format_with_answer_tags(make_group, text: str, form: float):
    assert make("format", answer_tags=True).score(make_group("-", [text])) == [form]


def test_reasoning_steps_as_their_code_has_them(make_group):
    """A number counts where the whole text starts, and nowhere else."""
    group = make_group("---", ["1. a\n2. b\n3. c", "a\n2. b", "First, a\n- b\n2. c"])
    np.testing.assert_allclose(make("reasoning_steps", every_line=False).score(group), [1 / 3, 0, 2 / 3])


@pytest.mark.parametrize(
    ("text", "markers"),
    [
        ("", 0),
        ("Step 1: a. Step 2: b.", 2),
        ("1. a\n2. b\n3. c\n4. d", 4),
        ("so 1. is no line start", 0),
        ("a\n- b\n* c", 2),
        ("- the first line has no bullet", 0),
        ("First, a. Second, b. Next, c. Finally, d.", 4),
        ("first, Second comes", 0),
        ("Step one:", 0),
    ],
)
def test_reasoning_steps(make_group, text: str, markers: int):
    assert make("reasoning_steps").score(make_group("-", [text])) == [min(1, markers / 3)]
    assert make("reasoning_steps", enough=4).score(make_group("-", [text])) == [min(1, markers / 4)]


@pytest.mark.parametrize(
    ("length", "right", "wrong"), [(0, 1.0, 0.0), (1792, 0.75, -0.25), (3584, 0.5, -0.5), (7168, 1.0, 0.0)]
)
def test_cosine_as_published(make_group, length: int, right: float, wrong: float):
    reward = make("cosine", unit="characters", clamp=False)
    group = make_group("+-", ["x" * length] * 2, [1, 1])
    np.testing.assert_allclose(reward.score(group), [right, wrong], atol=1e-12)


def test_cosine_stays_low_beyond_its_limit(make_group):
    reward = make("cosine", max_len=100)
    np.testing.assert_allclose(
        reward.score(make_group("++++---", lengths=[50, 100, 150, 200, 50, 100, 200])),
        [0.75, 0.5, 0.5, 0.5, -0.25, -0.5, -0.5],
        atol=1e-12,
    )


@given(st.lists(st.integers(0, 5000), min_size=2, max_size=8))
def test_cosine_falls_with_length(make_group, lengths: list[int]):
    lengths = sorted(lengths)
    for mark in "+-":
        rewards_G = make("cosine").score(make_group(mark * len(lengths), lengths=lengths))
        assert (np.diff(rewards_G) <= 1e-12).all()


def test_length_prefers_the_short_and_never_pays_the_wrong(make_group):
    score = make("length").score
    np.testing.assert_allclose(score(make_group("+++", lengths=[10, 20, 30])), [0.5, 0, -0.5])
    np.testing.assert_allclose(score(make_group("---", lengths=[10, 20, 30])), [0, 0, -0.5])
    np.testing.assert_array_equal(score(make_group("+-", lengths=[10, 10])), [0, 0])
    texts = ["x" * 10, "x" * 30]
    by_characters = make("length", unit="characters").score(make_group("++", texts, [9, 1]))
    np.testing.assert_allclose(by_characters, [0.5, -0.5])


def test_length_looks_at_graded_samples_only(make_group):
    rewards_G = make("length").score(make_group("?++?", lengths=[1, 10, 20, 99]))
    np.testing.assert_allclose(rewards_G[1:3], [0.5, -0.5])
    assert np.isfinite(make("length").score(make_group("??"))).all()


@pytest.mark.parametrize(
    ("text", "penalty"),
    [
        ("a b c d e", 0),
        ("a b", 0),
        ("", 0),
        ("a a a a", -1 / 2),
        ("A b C a B c", -1 / 4),
        ("so so so so so so so so so so so so", -9 / 10),
    ],
)
def test_repetition(make_group, text: str, penalty: float):
    np.testing.assert_allclose(make("repetition").score(make_group("+", [text])), [penalty])


WORDS = st.sampled_from(["a", "b", "Step 1:", "First,", "\n</think>\n", "<think>\n", "\n- ", "\n2. ", " "])
SAMPLES = st.lists(
    st.tuples(st.sampled_from("+-?"), st.lists(WORDS, max_size=12).map("".join), st.integers(0, 9000)),
    min_size=1,
    max_size=8,
)


@pytest.mark.parametrize("name", sorted(BOUNDS))
@given(samples=SAMPLES, data=st.data())
def test_bounded_and_the_same_wherever_a_sample_stands(make_group, name: str, samples: list, data: st.DataObject):
    def scored(samples: list) -> np.ndarray:
        marks, texts, lengths = zip(*samples, strict=True)
        return make(name).score(make_group("".join(marks), texts, lengths))

    rewards_G = scored(samples)
    low, high = BOUNDS[name]
    assert rewards_G.dtype == np.float64
    assert ((low - 1e-12 <= rewards_G) & (rewards_G <= high + 1e-12)).all()
    order = data.draw(st.permutations(range(len(samples))))
    np.testing.assert_allclose(scored([samples[i] for i in order]), rewards_G[list(order)], atol=1e-12)
