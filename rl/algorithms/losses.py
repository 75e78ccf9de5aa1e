"""Losses a token: pure functions of torch tensors [T], differentiable in the new log-probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Estimator = Literal["k1", "k2", "k3"]
Mismatch = Literal["none", "truncate", "mask"]

LOG_RATIO_LIMIT = 20.0
"""Where a log ratio is cut off, a completion's sum above all: exp would overflow and end the run."""


def kl_estimate(logp_T: Tensor, ref_logp_T: Tensor, estimator: Estimator) -> Tensor:
    """KL(policy ‖ reference) estimated from the policy's own samples, a token (Schulman 2020).

    With d = logp − ref, as a value: k1 = d is unbiased and may be negative; k2 = d²/2 is biased, with a low
    variance; k3 = exp(−d) − 1 + d is unbiased and never negative. As a loss on fresh samples, the expected
    gradient is another matter: k1 gives **none at all**; k2 gives that of KL(policy ‖ reference); k3 gives
    that of the *other* direction, KL(reference ‖ policy).
    """
    d_T = logp_T - ref_logp_T
    if estimator == "k1":
        return d_T
    if estimator == "k2":
        return d_T.square() / 2
    return (-d_T).expm1() + d_T  # expm1: near the reference exp(−d) − 1 + d is all rounding in float32


def likelihood_ratio(log_ratio_T: Tensor) -> Tensor:
    """exp of the log ratio new/old, which is cut off at ±LOG_RATIO_LIMIT."""
    return log_ratio_T.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()


def clipped_surrogate(
    ratio_T: Tensor, advantage_T: Tensor, clip_low: float, clip_high: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """−min(ratio·A, clip(ratio)·A), and which tokens were clipped (PPO, arXiv 1707.06347, eq. 7)."""
    clipped_T = ratio_T.clamp(1 - clip_low, 1 + clip_high)
    loss_T = -(ratio_T * advantage_T).minimum(clipped_T * advantage_T)
    low_T = (ratio_T < 1 - clip_low) & (advantage_T < 0)
    high_T = (ratio_T > 1 + clip_high) & (advantage_T > 0)
    return loss_T, _clip_stats(low_T, high_T)


def inverted_hinge(logp_T: Tensor, rival_logp_T: Tensor) -> Tensor:
    """1 + p(y) − max_{v≠y} p(v), from the log-probs of the token y and of its likeliest rival v.

    LoKU's bounded loss for what is to become unlikely (Cha et al. 2025, arXiv 2408.06621, eq. 4): in [0, 2], with
    gradients in the logits of at most 1. At y the gradient is p(y)(1 − p(y) + p(v)): it vanishes as y does, where that
    of logp nears 1. At v it is −p(v)(1 − p(v) + p(y)): a step also raises the rival, and goes on with that, by at most
    ¼, when y is gone, until v is sure.
    """
    return 1 + logp_T.exp() - rival_logp_T.exp()


def clipped_value_loss(
    value_T: Tensor, old_value_T: Tensor, return_T: Tensor, clip: float | None
) -> tuple[Tensor, Tensor]:
    """½ max((V − R)², (V' − R)²) with V' held within `clip` of the old value, and which tokens V' decided.

    As the authors of PPO do in their code (openai/baselines, ppo2) and TRL after them; without `clip` ½ (V − R)².
    """
    plain_T = (value_T - return_T).square()
    if clip is None:
        return plain_T / 2, plain_T.new_zeros(plain_T.shape)
    near_T = old_value_T + (value_T - old_value_T).clamp(-clip, clip)
    clipped_T = (near_T - return_T).square()
    return plain_T.maximum(clipped_T) / 2, (clipped_T > plain_T).float()


def clipped_weight(
    ratio_T: Tensor, advantage_T: Tensor, logp_T: Tensor, clip_low: float, clip_high: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """−sg(clip(ratio))·A·logp, so that every token keeps a gradient (CISPO, arXiv 2506.13585, eq. 4)."""
    weight_T = ratio_T.clamp(1 - clip_low, 1 + clip_high).detach()
    return -weight_T * advantage_T * logp_T, _clip_stats(ratio_T < 1 - clip_low, ratio_T > 1 + clip_high)


def mismatch_weight(
    old_logp_T: Tensor, engine_logp_T: Tensor, mismatch: Mismatch, cap: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The importance weight of each token, learner's old policy over the engine's, without gradient.

    `truncate`: min(ratio, cap) (TIS, Yao et al. 2025); `mask`: the ratio, but 0 where it exceeds `cap`. A
    small ratio is left alone: it weighs little by itself. `sampling/masked_fraction` is 1 where a token was
    truncated or masked.
    """
    ratio_T = likelihood_ratio(old_logp_T - engine_logp_T).detach()
    over_T = ratio_T > cap
    weight_T = ratio_T.clamp(max=cap) if mismatch == "truncate" else ratio_T.masked_fill(over_T, 0.0)
    stats = {
        "sampling/importance_sampling_ratio": ratio_T.float(),
        "sampling/masked_fraction": over_T.float(),
    }
    return weight_T, stats


def row_sum(values_T: Tensor, row_T: Tensor, rows: int) -> Tensor:
    """Each token's row's sum [T]."""
    return values_T.new_zeros(rows).index_add(0, row_T, values_T)[row_T]


def row_mean(values_T: Tensor, row_T: Tensor, rows: int) -> Tensor:
    """Each token's row's mean [T]."""
    return row_sum(values_T, row_T, rows) / row_sum(values_T.new_ones(values_T.shape), row_T, rows)


def _clip_stats(low_T: Tensor, high_T: Tensor) -> dict[str, Tensor]:
    return {"clip_ratio/low_mean": low_T.float(), "clip_ratio/high_mean": high_T.float()}
