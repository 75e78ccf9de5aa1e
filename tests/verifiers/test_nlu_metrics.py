"""The official metrics against scikit-learn and scipy, with invalid answers as T5 counts them."""

from __future__ import annotations

import re
import string
import warnings
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from underdog.verifiers.nlu import metrics

sklearn = pytest.importorskip("sklearn.metrics")
stats = pytest.importorskip("scipy.stats")

BINARY = st.lists(st.tuples(st.integers(0, 1), st.integers(-1, 1)), min_size=1, max_size=40)
THREE = st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 2)), min_size=1, max_size=40)
SCORES = st.floats(0, 5).map(lambda x: round(x, 1))
PAIRS = st.lists(st.tuples(SCORES, st.one_of(SCORES, st.just(-1.0))), min_size=3, max_size=40)
WORDS = st.lists(st.sampled_from(["the", "A", "cat", "cats", "U.S.", "New-York", "a.", "''", "an"]), max_size=6)


def columns(rows: list) -> tuple[np.ndarray, np.ndarray]:
    gold, predicted = zip(*rows, strict=True)
    return np.array(gold), np.array(predicted)


def flip(rows: list) -> tuple[list[int], list[int]]:
    """T5's rule, row by row: an invalid prediction is the opposite of its target."""
    return [g for g, _ in rows], [1 - g if p == -1 else p for g, p in rows]


@given(BINARY)
def test_binary_metrics(rows):
    gold, predicted = flip(rows)
    assert metrics.f1(*columns(rows)) == pytest.approx(sklearn.f1_score(gold, predicted, zero_division=0), abs=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes that do not occur
        expected = sklearn.matthews_corrcoef(gold, predicted)
    assert metrics.matthews(*columns(rows)) == pytest.approx(expected, abs=1e-12)


@given(THREE)
def test_metrics_of_three_classes(rows):
    gold, predicted = columns(rows)
    assert metrics.accuracy(gold, predicted) == pytest.approx(sklearn.accuracy_score(gold, predicted))
    expected = sklearn.f1_score(gold, predicted, labels=[0, 1, 2], average="macro", zero_division=0)
    assert metrics.macro_f1(gold, predicted, 3) == pytest.approx(expected, abs=1e-12)


@given(PAIRS)
def test_correlations(rows):
    x, y = columns(rows)
    np.testing.assert_array_equal(metrics.ranks(x), stats.rankdata(x))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert metrics.pearson(x, y) == metrics.spearman(x, y) == 0
    else:
        assert metrics.pearson(x, y) == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-9)
        assert metrics.spearman(x, y) == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-9)


def test_large_random_predictions():
    draw = np.random.default_rng(0)
    gold, predicted = draw.integers(0, 2, 400_000), draw.integers(0, 2, 400_000)
    predicted = np.where(draw.random(len(gold)) < 0.3, gold, predicted)
    assert metrics.matthews(gold, predicted) == pytest.approx(sklearn.matthews_corrcoef(gold, predicted), abs=1e-12)
    assert metrics.f1(gold, predicted) == pytest.approx(sklearn.f1_score(gold, predicted), abs=1e-12)
    x, y = draw.normal(size=2000), draw.normal(size=2000)
    assert metrics.pearson(x, x + y) == pytest.approx(stats.pearsonr(x, x + y)[0], abs=1e-12)
    assert metrics.spearman(x, x + y) == pytest.approx(stats.spearmanr(x, x + y)[0], abs=1e-12)


def test_an_undefined_correlation_is_zero():
    ones, zeros = np.ones(5, dtype=int), np.zeros(5, dtype=int)
    mixed = np.array([0, 1, 0, 1, 1])
    assert metrics.matthews(mixed, ones) == metrics.matthews(mixed, zeros) == metrics.matthews(ones, ones) == 0
    assert metrics.pearson(np.arange(3.0), np.full(3, 0.1)) == 0


def test_an_invalid_answer_is_never_better_than_a_wrong_one():
    gold = np.array([1, 0, 1, 0])
    invalid = np.full(4, metrics.INVALID)
    assert metrics.f1(gold, invalid) == metrics.f1(gold, 1 - gold) == 0
    assert metrics.matthews(gold, invalid) == metrics.matthews(gold, 1 - gold) == -1
    assert metrics.accuracy(gold, invalid) == 0


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), min_size=1, max_size=12))
def test_a_group_is_whole_when_all_its_rows_are_right(rows):
    right, groups = zip(*rows, strict=True)
    expected = np.mean([all(r for r, g in rows if g == group) for group in sorted(set(groups))])
    assert metrics.whole_groups(np.array(right), groups) == pytest.approx(expected)


def squad(text: str) -> list[str]:
    """The official normalisation, step by step: lower case, no punctuation, no articles, single spaces."""
    text = "".join(char for char in text.lower() if char not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


@given(st.lists(WORDS.map(" ".join), min_size=1, max_size=3), WORDS.map(" ".join))
def test_text_metrics(golds, said):
    best = 0.0
    for gold in golds:
        shared = sum((Counter(squad(gold)) & Counter(squad(said))).values())
        if shared:
            precision, recall = shared / len(squad(said)), shared / len(squad(gold))
            best = max(best, 2 * precision * recall / (precision + recall))
    assert metrics.text_f1(golds, said) == pytest.approx(best)
    assert metrics.text_em(golds, said) == float(squad(said) in [squad(gold) for gold in golds])
    assert metrics.text_f1(golds, None) == metrics.text_em(golds, None) == 0
