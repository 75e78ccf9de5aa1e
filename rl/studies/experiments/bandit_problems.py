"""The bandit's problems, and what can be said of a policy on them: pure functions of numpy arrays.

Suffixes: S seeds, T topics, P problems, A actions, M methods (the actions that may be right), G samples of a problem,
N numbers of samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...runs.uplift import risen

PASS_N = tuple(2**k for k in range(11))
"""The N of pass@N: 1, 2, 4 … 1024."""


def draw_problems(
    draw: np.random.Generator,
    *,
    topics: int,
    each: int,
    actions: int,
    methods: int,
    works: float,
    spread: float,
    jitter: float,
) -> tuple[np.ndarray, np.ndarray]:
    """`each` problems of every topic, topic after topic: initial logits_PA, float64, and right_PA.

    The first M actions are the topics' methods: the level of the m-th is spread · m/(M − 1) bits; that of each other
    action of a topic is uniform in [0, spread]. In a problem an action's initial probability is in proportion to
    2^−(level + jitter · z), z normal. Each method solves a problem with the chance `works`, by itself; where none
    would, one drawn evenly does.
    """
    level_TA = spread * draw.random((topics, actions))
    level_TA[:, :methods] = np.linspace(0.0, spread, methods)
    problems = topics * each
    bits_PA = np.repeat(level_TA, each, axis=0) + jitter * draw.standard_normal((problems, actions))
    right_PA = np.zeros((problems, actions), dtype=bool)
    right_PA[:, :methods] = draw.random((problems, methods)) < works
    one_P = draw.integers(0, methods, size=problems)
    none_P = np.flatnonzero(~right_PA.any(axis=1))
    right_PA[none_P, one_P[none_P]] = True
    return -np.log(2.0) * bits_PA, right_PA


def log_softmax(logits_A: np.ndarray) -> np.ndarray:
    """Log-probabilities over the last axis."""
    shifted_A = logits_A - logits_A.max(axis=-1, keepdims=True)
    return shifted_A - np.log(np.exp(shifted_A).sum(axis=-1, keepdims=True))


def pass_at(logp_PA: np.ndarray, right_PA: np.ndarray, counts: Sequence[int] = PASS_N) -> np.ndarray:
    """[..., N]: the mean over problems of 1 − (1 − p)^N, p the probability of a right action: exact."""
    wrong_P = np.where(right_PA, 0.0, np.exp(logp_PA)).sum(axis=-1)  # 1 − p would lose a p near 1
    with np.errstate(divide="ignore"):
        log_PN = np.log(np.minimum(wrong_P, 1.0))[..., None] * np.asarray(counts)
    return -np.expm1(log_PN).mean(axis=-2)


def uplift(before_PG: np.ndarray, after_PG: np.ndarray, right_PG: np.ndarray) -> np.ndarray:
    """[..., G]: of the right samples at each rank of likelihood, the share whose log-probability rose.

    `before_PG` and `after_PG` are the initial and the trained policy's log-probabilities of G samples of the initial
    policy; rank 0 is the sample of each problem that the initial policy finds likeliest; ties stand in the samples'
    order. NaN at a rank without a right sample. As in the published code of arXiv 2506.02355.
    """
    risen_PG = risen(before_PG, after_PG, right_PG)
    count_G = np.isfinite(risen_PG).sum(axis=-2)
    return np.where(count_G > 0, np.nansum(risen_PG, axis=-2) / np.maximum(count_G, 1), np.nan)


def gains(before_PA: np.ndarray, after_PA: np.ndarray, right_PA: np.ndarray, methods: int) -> np.ndarray:
    """[..., M]: mean change of each method's log2-probability, over the problems that it solves; NaN where none is."""
    change_PM, right_PM = (after_PA - before_PA)[..., :methods] / np.log(2.0), right_PA[..., :methods]
    count_M = right_PM.sum(axis=-2)
    total_M = np.where(right_PM, change_PM, 0.0).sum(axis=-2)
    return np.where(count_M > 0, total_M / np.maximum(count_M, 1), np.nan)
