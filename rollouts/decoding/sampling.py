"""Drawing tokens: one uniform number a row and step, from the sample's own seed, through the inverse distribution.

A sample's numbers come from (seed, step) by a counter-based hash, so its tokens do not depend on what else is decoded
beside it. Filters act in the order of transformers: temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...records import Sampling

HEAD = 1024
"""Likeliest tokens that are tried first where top-p needs an order: a full sort of a large vocabulary is slow."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniform(seeds_B: np.ndarray, steps_B: np.ndarray) -> np.ndarray:
    """Float32 in [0, 1), [B], each a function of its seed (uint64) and step alone.

    Two rounds of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): the first
    decorrelates seeds that follow one another, the second runs along the steps.
    """
    with np.errstate(over="ignore"):
        stream = _mix(seeds_B.astype(np.uint64) + _GOLDEN)
        bits = _mix(stream + (steps_B.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    return (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@dataclass(frozen=True)
class Rules:
    """How each row draws, as columns [B, 1]; None where no row departs from the policy itself."""

    temperature: Tensor | None
    top_k: Tensor | None
    top_p: Tensor | None
    min_p: Tensor | None

    @classmethod
    def of(cls, samplings: Sequence[Sampling], device: torch.device) -> Rules:
        """The rules of the rows' samplings."""

        def column(values: list[float], off: float, dtype: torch.dtype = torch.float32) -> Tensor | None:
            if all(value == off for value in values):
                return None
            return torch.tensor(values, dtype=dtype, device=device)[:, None]

        return cls(
            temperature=column([s.temperature for s in samplings], 1.0),
            top_k=column([s.top_k for s in samplings], 0, torch.int64),
            top_p=column([s.top_p for s in samplings], 1.0),
            min_p=column([s.min_p for s in samplings], 0.0),
        )

    def rows(self, start: int, stop: int) -> Rules:
        """The rules of some of the rows."""

        def cut(column: Tensor | None) -> Tensor | None:
            return None if column is None else column[start:stop]

        return Rules(cut(self.temperature), cut(self.top_k), cut(self.top_p), cut(self.min_p))


def draw(logits_BV: Tensor, uniform_B: Tensor, rules: Rules) -> tuple[Tensor, Tensor]:
    """Tokens [B] drawn under `rules`, and their log-probabilities [B] under the policy itself, both from float32."""
    logp_BV = logits_BV.log_softmax(-1)
    probs_BV = _probabilities(logp_BV, rules)
    cdf_BV = probs_BV.cumsum(-1)
    # A hair below the total, so that in float32 too an entry above the point exists, and has a probability.
    point_B1 = uniform_B[:, None] * (cdf_BV[:, -1:] * (1 - 2**-22))
    tokens_B1 = torch.searchsorted(cdf_BV, point_B1, right=True)
    if rules.temperature is not None:
        greedy_B1 = rules.temperature == 0
        tokens_B1 = torch.where(greedy_B1, logits_BV.argmax(-1, keepdim=True), tokens_B1)
    return tokens_B1[:, 0], logp_BV.gather(-1, tokens_B1)[:, 0]


def _probabilities(logp_BV: Tensor, rules: Rules) -> Tensor:
    """What is drawn from, [B, V]: not normalised where a filter took something away."""
    if rules.temperature is None:
        probs_BV = logp_BV.exp()
    else:
        heat_B1 = torch.where(rules.temperature == 0, 1.0, rules.temperature)
        probs_BV = (logp_BV / heat_B1).softmax(-1)
    if rules.top_k is not None:
        probs_BV = _keep_top_k(probs_BV, rules.top_k)
    if rules.top_p is not None:
        probs_BV = _keep_top_p(probs_BV, rules.top_p)
    if rules.min_p is not None:
        probs_BV = probs_BV * (probs_BV >= rules.min_p * probs_BV.amax(-1, keepdim=True))
    return probs_BV


def _keep_top_k(probs_BV: Tensor, top_k_B1: Tensor) -> Tensor:
    """The `top_k` likeliest tokens of each row, and those as likely as the last of them; 0 keeps all."""
    vocab = probs_BV.shape[-1]
    top_k_B1 = torch.where((top_k_B1 <= 0) | (top_k_B1 > vocab), vocab, top_k_B1)
    chosen = (top_k_B1 < vocab)[:, 0].nonzero()[:, 0]
    if not len(chosen):
        return probs_BV
    k_C1 = top_k_B1[chosen]
    best_CK = probs_BV[chosen].topk(int(k_C1.max()), -1).values
    least_C1 = best_CK.gather(-1, k_C1 - 1)
    return probs_BV.index_put((chosen,), probs_BV[chosen] * (probs_BV[chosen] >= least_C1))


def _keep_top_p(probs_BV: Tensor, top_p_B1: Tensor) -> Tensor:
    """The fewest likeliest tokens whose share reaches `top_p`, and those as likely as the last of them."""
    chosen = (top_p_B1 < 1)[:, 0].nonzero()[:, 0]
    if not len(chosen):
        return probs_BV
    probs_CV = probs_BV[chosen]
    target_C1 = top_p_B1[chosen] * probs_CV.sum(-1, keepdim=True)
    ranked = probs_CV.topk(min(HEAD, probs_CV.shape[-1]), -1).values
    if bool((ranked.sum(-1, keepdim=True) < target_C1).any()):
        ranked = probs_CV.sort(-1, descending=True).values
    before = ranked.cumsum(-1) - ranked
    last_C1 = (before < target_C1).sum(-1, keepdim=True).clamp(min=1) - 1
    return probs_BV.index_put((chosen,), probs_CV * (probs_CV >= ranked.gather(-1, last_C1)))
