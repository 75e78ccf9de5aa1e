"""Right answers that the policy finds less likely earn more: Rewarding the Unlikely, arXiv 2506.02355."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ...parts import RunError
from ...records import Group
from ..base import Shaping


class Unlikeliness(Shaping):
    """r_i = R_i (1 - beta (G - rank_i) / G) for right samples, rank 0 the likeliest of the G graded ones.

    Samples are ranked by their length-normalised log-probability under the learner before the update. Wrong ones keep
    their reward and occupy ranks; ties stand in the samples' order. A group that is all right or all wrong gets no
    signal, although other rewards may vary in it: all its graded samples get their mean reward, so that methods which
    drop constant groups drop it.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logp"})

    beta: float = Field(default=0.25, ge=0, le=1)
    """Share of the reward that the likeliest sample loses (the paper's beta_rank)."""
    form: Literal["paper", "code"] = "paper"
    """`code` is the published code's, one rank step weaker: (G - 1 - rank) / G, so the least likely loses nothing."""

    def reshape(self, group: Group) -> np.ndarray:
        """rewards_G; NaN where a sample was not graded.

        Raises:
            RunError: the group lacks the annotation `logp`.
        """
        assert group.raw_G is not None
        graded_G, right_G = group.graded_G, group.right_G
        reshaped_G = group.raw_G.copy()
        if not graded_G.any():
            return reshaped_G
        if right_G[graded_G].all() or not right_G.any():
            reshaped_G[graded_G] = group.raw_G[graded_G].mean()
            return reshaped_G
        if "logp" not in group.annotations:
            raise RunError("the shaping 'unlikeliness' needs the learner's log-probs, and this group carries none")
        mean_G = np.array([_mean(logp_T) for logp_T in group.annotations["logp"]])
        graded = np.flatnonzero(graded_G)
        reshaped_G[graded] *= np.where(right_G[graded], self.factors(mean_G[graded]), 1.0)
        return reshaped_G

    def factors(self, mean_logp_G: np.ndarray) -> np.ndarray:
        """The factor of each sample, were it right, from its mean token log-probability; leading axes are groups."""
        size = mean_logp_G.shape[-1]
        rank_G = np.empty(mean_logp_G.shape)
        order_G = np.argsort(-mean_logp_G, axis=-1, kind="stable")
        np.put_along_axis(rank_G, order_G, np.broadcast_to(np.arange(size, dtype=rank_G.dtype), rank_G.shape), axis=-1)
        below_G = size - rank_G if self.form == "paper" else size - 1 - rank_G
        return 1.0 - self.beta * below_G / size


def _mean(logp_T: np.ndarray) -> float:
    return float(np.mean(logp_T, dtype=np.float64)) if len(logp_T) else 0.0
