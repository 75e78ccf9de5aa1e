"""Rewards to advantages: pure functions of one group or one batch, numpy float64.

`rewards_G` holds NaN where a sample could not be graded. Such a sample counts nowhere: not in a mean, a
deviation or a group's size; its advantage is NaN too.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

EPSILON = 1e-4
"""Added to a group's standard deviation, as TRL and Tina do."""

Per = Literal["sequence", "token", "constant"]
"""What a completion's token is divided by: see `token_weight`."""


def is_constant(rewards_G: np.ndarray) -> bool:
    """Whether the graded rewards are all the same: max equals min.

    Never judged by a small standard deviation, which rounding makes non-zero for equal rewards. True for no
    graded sample or one.
    """
    graded = _graded(rewards_G)
    return graded.size == 0 or float(graded.max()) == float(graded.min())


def group_relative(rewards_G: np.ndarray, scale: bool = True) -> np.ndarray:
    """r − mean, over (sample standard deviation + EPSILON) with `scale`; zeros for a constant group.

    GRPO (DeepSeekMath, arXiv 2402.03300, §4.1.2) with `scale`, Dr.GRPO (arXiv 2503.20783, §3.2) without. Leading axes
    are groups, each by itself.
    """
    if np.isnan(rewards_G).any():
        return np.apply_along_axis(_among_graded, -1, rewards_G, scale)
    if not rewards_G.size:
        return rewards_G.copy()
    high, low = (pick(rewards_G, axis=-1, keepdims=True) for pick in (np.max, np.min))
    centred_G = rewards_G - rewards_G.mean(axis=-1, keepdims=True)
    deviation = rewards_G.std(axis=-1, ddof=min(1, rewards_G.shape[-1] - 1), keepdims=True)
    return np.where(high == low, 0.0, centred_G / (deviation + EPSILON) if scale else centred_G)


def leave_one_out(rewards_G: np.ndarray) -> np.ndarray:
    """r − the mean of the group's other graded rewards; zeros for a constant group.

    RLOO (Ahmadian et al. 2024, arXiv 2402.14740, §2.2).
    """
    if is_constant(rewards_G):
        return _zeros(rewards_G)
    graded = _graded(rewards_G)
    return rewards_G - (graded.sum() - rewards_G) / (len(graded) - 1)


def whiten(values_N: np.ndarray) -> np.ndarray:
    """(x − mean) / standard deviation over everything given, N values; zeros where all are the same.

    The global normalisation of REINFORCE++ (arXiv 2501.03262, §3.2), with the variance of its authors'
    code: biased, at least 1e-8.
    """
    if is_constant(values_N):
        return _zeros(values_N)
    return (values_N - values_N.mean()) / np.sqrt(max(float(values_N.var()), 1e-8))


def generalised(rewards_T: np.ndarray, values_T: np.ndarray, gamma: float, lam: float) -> np.ndarray:
    """Generalised advantages of one completion, Σ_l (γλ)^l δ_{t+l} with δ_t = r_t + γ V_{t+1} − V_t.

    GAE (Schulman et al. 2015, arXiv 1506.02438, eq. 16). `values_T` are of the states before each token; nothing comes
    after the last token, so that the value there is 0.
    """
    from scipy.signal import lfilter

    after_T = np.append(values_T[1:], 0.0)
    deltas_T = rewards_T + gamma * after_T - values_T
    return np.asarray(lfilter([1.0], [1.0, -gamma * lam], deltas_T[::-1]))[::-1]


def overlong_penalty(lengths_G: np.ndarray, max_tokens: int, buffer: int) -> np.ndarray:
    """0 up to max_tokens − buffer tokens, then linearly down to −1 at max_tokens and beyond.

    The soft over-length punishment of DAPO (arXiv 2503.14476, eq. 13).
    """
    return np.clip((max_tokens - buffer - lengths_G) / buffer, -1.0, 0.0)


def token_weight(per: Per, length: int, lengths_N: np.ndarray, max_tokens: int | None = None) -> float:
    """The weight in the loss of each token of a completion of `length` tokens, when N completions count.

    - `sequence`: 1/(N·length), a mean over each completion, then over completions (GRPO, GSPO);
    - `token`: 1/(all tokens), a mean over tokens (DAPO, CISPO, REINFORCE++);
    - `constant`: 1/(N·max_tokens), which no length changes (Dr.GRPO).
    """
    if per == "sequence":
        return 1.0 / (len(lengths_N) * max(length, 1))
    if per == "token":
        return 1.0 / max(int(lengths_N.sum()), 1)
    if max_tokens is None:
        raise ValueError("a constant divisor needs max_tokens")
    return 1.0 / (len(lengths_N) * max_tokens)


def _among_graded(rewards_G: np.ndarray, scale: bool) -> np.ndarray:
    """`group_relative` of a group's graded samples; NaN for the others."""
    advantages_G = np.full(len(rewards_G), np.nan)
    graded_G = ~np.isnan(rewards_G)
    advantages_G[graded_G] = group_relative(rewards_G[graded_G], scale)
    return advantages_G


def _graded(rewards_G: np.ndarray) -> np.ndarray:
    return rewards_G[~np.isnan(rewards_G)]


def _zeros(values: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), np.nan, 0.0)
