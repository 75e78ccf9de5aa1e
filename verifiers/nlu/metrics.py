"""The official metrics of GLUE and SuperGLUE, as fractions. N rows; a predicted class of -1 is an invalid answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from .parsing import normalise

INVALID = -1
INVALID_NUMBER = -1.0
"""What an unreadable number counts as in a correlation: below the scale, whatever was asked (T5, arXiv 1910.10683)."""


def accuracy(gold_N: np.ndarray, predicted_N: np.ndarray) -> float:
    """The share of equal rows."""
    return float(np.mean(gold_N == predicted_N))


def f1(gold_N: np.ndarray, predicted_N: np.ndarray) -> float:
    """F1 of class 1 against class 0; an invalid answer counts as the wrong class (T5), 0 / 0 as 0."""
    return _f1(gold_N == 1, flipped(gold_N, predicted_N) == 1)


def macro_f1(gold_N: np.ndarray, predicted_N: np.ndarray, classes: int) -> float:
    """The mean of the classes' F1, each 0 where it is 0 / 0; an invalid answer is of no class."""
    return float(np.mean([_f1(gold_N == label, predicted_N == label) for label in range(classes)]))


def matthews(gold_N: np.ndarray, predicted_N: np.ndarray) -> float:
    """Matthews' correlation of classes 0 and 1; an invalid answer counts as the wrong class, 0 / 0 as 0."""
    gold, predicted = gold_N == 1, flipped(gold_N, predicted_N) == 1
    # Python's integers: the product of four counts passes 2^63.
    tp, tn = int(np.sum(gold & predicted)), int(np.sum(~gold & ~predicted))
    fp, fn = int(np.sum(~gold & predicted)), int(np.sum(gold & ~predicted))
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / product**0.5 if product else 0.0


def flipped(gold_N: np.ndarray, predicted_N: np.ndarray) -> np.ndarray:
    """predicted_N with each invalid answer replaced by the class, 0 or 1, that is wrong."""
    return np.where(predicted_N == INVALID, 1 - gold_N, predicted_N)


def pearson(x_N: np.ndarray, y_N: np.ndarray) -> float:
    """Pearson's correlation; 0 where one side is constant."""
    if len(x_N) < 2 or np.ptp(x_N) == 0 or np.ptp(y_N) == 0:
        return 0.0
    x_N, y_N = (values - np.mean(values) for values in (np.asarray(x_N, float), np.asarray(y_N, float)))
    correlation = np.dot(x_N / np.linalg.norm(x_N), y_N / np.linalg.norm(y_N))
    return float(np.clip(correlation, -1.0, 1.0))


def spearman(x_N: np.ndarray, y_N: np.ndarray) -> float:
    """Pearson's correlation of the ranks, equal values sharing their mean rank."""
    return pearson(ranks(x_N), ranks(y_N))


def ranks(values_N: np.ndarray) -> np.ndarray:
    """ranks_N float64 from 1 on; equal values share their mean rank."""
    _, which_N, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[which_N]


def group_shares(right_N: np.ndarray, groups: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Of each row, whether its whole group is right, and its share of the group: their mean is the share of groups.

    MultiRC's exact match, over questions.
    """
    _, which_N, sizes = np.unique(np.array(groups), return_inverse=True, return_counts=True)
    whole = np.bincount(which_N, weights=right_N) == sizes
    return whole[which_N].astype(float), 1.0 / sizes[which_N]


def whole_groups(right_N: np.ndarray, groups: Sequence[str]) -> float:
    """The share of groups all of whose rows are right."""
    whole_N, share_N = group_shares(right_N, groups)
    return float(np.average(whole_N, weights=share_N))


def text_em(golds: Sequence[str], predicted: str | None) -> float:
    """1 if the text equals one of the gold ones by `normalise`, else 0; None is an invalid answer."""
    return float(predicted is not None and normalise(predicted) in {normalise(gold) for gold in golds})


def text_f1(golds: Sequence[str], predicted: str | None) -> float:
    """The best F1 between the bags of words of the text and of a gold one, by `normalise`; None is 0."""
    said = [] if predicted is None else normalise(predicted).split()
    best = 0.0
    for gold in golds:
        meant = normalise(gold).split()
        shared = sum((Counter(said) & Counter(meant)).values())
        best = max(best, 2.0 * shared / (len(said) + len(meant)) if shared else 0.0)
    return best


def _f1(gold_N: np.ndarray, predicted_N: np.ndarray) -> float:
    both, either = int(np.sum(gold_N & predicted_N)), int(np.sum(gold_N)) + int(np.sum(predicted_N))
    return 2 * both / either if either else 0.0
