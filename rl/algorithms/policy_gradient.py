"""What the policy-gradient algorithms share. Each of them fills in a few lines: see `grpo.py` first.

Scored groups become rows in `advantages`, and rows become a loss in `loss`; a method says

- `final_rewards`: what it adds to a group's rewards,
- `group_advantages` or `token_advantages`: how rewards become advantages,
- `per` and `resamples`: by what the loss is divided, and which samples count there,
- `surrogate`: the loss of a token, and `spread`, where that is not its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from ...parts import RunError, UserError
from ...records import Batch, Group, Row
from .advantages import Per, group_relative, is_constant, token_weight
from .base import Algorithm, MicroBatch, Outputs
from .losses import (
    Estimator,
    Mismatch,
    clipped_surrogate,
    inverted_hinge,
    kl_estimate,
    likelihood_ratio,
    mismatch_weight,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Scored:
    """A group and its final rewards_G float64, NaN where a sample could not be graded: it counts nowhere."""

    group: Group
    rewards_G: np.ndarray

    @property
    def graded(self) -> np.ndarray:
        """Indices of the samples that count."""
        return np.flatnonzero(~np.isnan(self.rewards_G))


class PolicyGradientBase(Algorithm):
    """A clipped surrogate of the policy gradient, one advantage a token."""

    clip_low: float = Field(0.2, ge=0, le=1)
    """The ratio new/old is clipped below 1 − clip_low; 1 for no lower bound."""
    clip_high: float = Field(0.2, ge=0)
    """The ratio new/old is clipped above 1 + clip_high."""
    negative: Literal["surrogate", "hinge"] = "surrogate"
    """What lowers a token of negative advantage: the clipped surrogate, or LoKU's bounded inverted hinge."""
    kl: float = Field(0.0, ge=0)
    """Coefficient of the KL divergence from the reference policy; 0 for none and no reference pass."""
    epochs: int = Field(1, ge=1)
    """Passes over a step's completions."""
    minibatch: int | None = Field(None, ge=1)
    """Completions that make one optimizer step; none: all of them make one."""
    mismatch: Mismatch = "truncate"
    """What is done about tokens less likely to the engine than to the learner: none, truncate or mask."""
    mismatch_cap: float = Field(2.0, ge=1)
    """The ratio learner/engine of a token's probabilities above which it is truncated or masked."""

    per: ClassVar[Per] = "token"
    """What the loss of a token is divided by."""
    resamples: ClassVar[bool] = False
    """Dynamic sampling: constant groups are replaced by fresh draws, and count nowhere."""

    @property
    def several_updates(self) -> bool:
        """Whether a batch may make several optimizer steps, so that the old policy is not the new one."""
        return self.epochs > 1 or self.minibatch is not None

    @property
    def needs(self) -> frozenset[str]:
        """`logp` when a batch makes several updates, `ref_logp` when there is a KL term, `rivals` for the hinge."""
        rivals = ["rivals"] * (self.negative == "hinge")
        return frozenset(["logp"] * self.several_updates + ["ref_logp"] * (self.kl > 0) + rivals)

    def enough(self, groups: Sequence[Group], wanted: int) -> bool:
        """With dynamic sampling, whether `wanted` groups carry a signal; one draw is enough without it."""
        return not self.resamples or sum(map(is_informative, groups)) >= wanted

    def advantages(self, groups: Sequence[Group]) -> Batch:
        """One row a graded sample of every group that is not dropped.

        Raises:
            UserError: the method needs `max_tokens` and has none.
            RunError: a reward is infinite.
        """
        scored = [Scored(group, self.final_rewards(group)) for group in groups]
        graded = [one for one in scored if one.graded.size]
        used = [one for one in graded if not self.drops(one)]
        counting = used if self.resamples else graded
        lengths_N = np.array([n for one in counting for n in one.group.lengths_G[one.graded]], dtype=np.int64)
        places = [(one.group, i) for one in used for i in one.graded]
        rows = [
            self.row(group, i, advantage_T, lengths_N)
            for (group, i), advantage_T in zip(places, self.token_advantages(used), strict=True)
        ]
        stats = {
            "groups/used": float(len(used)),
            "groups/dropped_constant": float(len(graded) - len(used)),
            "groups/dropped_ungraded": float(len(scored) - len(graded)),
        }
        rows, absent = _all_or_no_engine_logp(rows)
        if self.mismatch != "none":
            stats["sampling/absent_fraction"] = absent
        return Batch(tuple(rows), self.epochs, self.minibatch, stats)

    def final_rewards(self, group: Group) -> np.ndarray:
        """rewards_G float64 that make the advantages, NaN where a sample could not be graded."""
        return graded_rewards(group)

    def drops(self, scored: Scored) -> bool:
        """Whether a group takes no part in the update."""
        return is_constant(scored.rewards_G) or (self.resamples and not is_informative(scored.group))

    def group_advantages(self, rewards_G: np.ndarray) -> np.ndarray:
        """advantages_G of one group's final rewards, NaN where they are: GRPO's."""
        return group_relative(rewards_G)

    def token_advantages(self, used: Sequence[Scored]) -> list[np.ndarray]:
        """The advantages [T] of each graded sample, group after group: the same at all of its tokens."""
        pairs = [(one, self.group_advantages(one.rewards_G)) for one in used]
        return [np.full(one.group.lengths_G[i], values_G[i]) for one, values_G in pairs for i in one.graded]

    def divisor(self) -> int | None:
        """The constant in the divisor, tokens, where `per` is `constant`."""
        return None

    def loss(self, outputs: Outputs, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The surrogate, corrected for what the engine's probabilities differ by where they are known.

        The hinge stands in the place of each token of negative advantage, whatever its ratio new/old: its gradient in
        the token's logit is in proportion to p(y) by itself, as the ratio's is, and is not clipped. Where a batch makes
        several updates, all of them lower such a token; none counts as clipped. The correction, whose weights are of
        the old policy over the engine's, holds for it as for the surrogate.
        """
        loss_T, stats = self.surrogate(outputs.logp_T, batch)
        if self.negative == "hinge":
            if outputs.rival_logp_T is None:
                raise ValueError("the hinge needs the rivals' log-probabilities: update with `needs`")
            down_T = batch.advantage_T < 0
            hinge_T = -batch.advantage_T * inverted_hinge(outputs.logp_T, outputs.rival_logp_T)
            loss_T = self.spread(hinge_T, batch).where(down_T, loss_T)
            stats = {name: values_T.masked_fill(down_T, 0.0) for name, values_T in stats.items()}
        if self.mismatch != "none" and batch.engine_logp_T is not None:
            weight_T, seen = mismatch_weight(batch.old_logp_T, batch.engine_logp_T, self.mismatch, self.mismatch_cap)
            loss_T, stats = loss_T * weight_T, {**stats, **seen}
        return (batch.weight_T * loss_T).sum(), stats

    def surrogate(self, logp_T: Tensor, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of each token and statistics, [T]: PPO's, a ratio a token."""
        ratio_T = likelihood_ratio(logp_T - batch.old_logp_T)
        return clipped_surrogate(ratio_T, batch.advantage_T, self.clip_low, self.clip_high)

    def spread(self, hinge_T: Tensor, batch: MicroBatch) -> Tensor:
        """The hinges of tokens [T] as the weights take them: each at its own token, where weights are for tokens."""
        return hinge_T

    def row(self, group: Group, i: int, advantage_T: np.ndarray, lengths_N: np.ndarray) -> Row:
        """What the learner takes of the group's sample `i`, when completions of `lengths_N` tokens count."""
        sample = group.samples[i]
        old = group.annotations["logp"] if self.several_updates else group.annotations.get("old_logp")
        return Row(
            prompt_ids=sample.prompt_ids,
            tokens_T=sample.tokens_T,
            advantage_T=advantage_T.astype(np.float32),
            weight=token_weight(self.per, len(sample.tokens_T), lengths_N, self.divisor()),
            old_logp_T=None if old is None else old[i],
            engine_logp_T=sample.logp_T,
            ref_logp_T=group.annotations["ref_logp"][i] if "ref_logp" in self.needs else None,
        )


class LossKL(PolicyGradientBase):
    """The KL term is a part of the loss, at the policy as it is being trained; GRPO and what came of it."""

    kl_estimator: Estimator = "k3"
    """k2 descends KL(policy ‖ reference), k3 KL(reference ‖ policy), k1 in expectation nothing."""
    kl_cap: float | None = Field(None, gt=0)
    """A token's estimate is cut off at plus and minus this, nats, with no gradient beyond (veRL: 10); none: never."""

    def drops(self, scored: Scored) -> bool:
        """A constant group, unless its samples have a KL gradient left.

        Without a KL term a constant group's gradient is exactly zero: it is left out, and only saves time.
        With one, the sources (DeepSeekMath, TRL) hold every sample to the reference, so it stays, its
        advantages zero; those with dynamic sampling put another group in its place.
        """
        return super().drops(scored) and (self.resamples or not self.kl)

    def loss(self, outputs: Outputs, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The surrogate plus `kl` times the estimated divergence from the reference, itself not corrected."""
        loss, stats = super().loss(outputs, batch)
        if not self.kl:
            return loss, stats
        if batch.ref_logp_T is None:
            raise ValueError("a KL term needs the reference's log-probabilities: annotate with `needs`")
        kl_T = kl_estimate(outputs.logp_T, batch.ref_logp_T, self.kl_estimator)
        if self.kl_cap is not None:
            kl_T = kl_T.clamp(-self.kl_cap, self.kl_cap)
        return loss + self.kl * (batch.weight_T * kl_T).sum(), {**stats, "kl": kl_T.detach().float()}


class RewardKL(PolicyGradientBase):
    """The KL term, k1, is taken from the reward, and so fixed before the update; RLOO, REINFORCE++."""

    @property
    def needs(self) -> frozenset[str]:
        """With a KL term the policy's own log-probs too, however many updates a batch makes."""
        return super().needs | frozenset(["logp"] * (self.kl > 0))

    def advantages(self, groups: Sequence[Group]) -> Batch:
        """Rows, and the mean log(policy/reference) of the graded samples' tokens as `kl`."""
        batch = super().advantages(groups)
        if not self.kl:
            return batch
        seen = [self.penalties(g)[i] for g in groups for i in np.flatnonzero(g.graded_G)]
        kl_T = np.concatenate([np.zeros(0), *seen])
        return replace(batch, stats={**batch.stats, "kl": float(kl_T.mean()) if kl_T.size else 0.0})

    def penalties(self, group: Group) -> list[np.ndarray]:
        """log(policy/reference) of each sample's tokens, float64 [T]; zeros without a KL term."""
        if not self.kl:
            return [np.zeros(n) for n in group.lengths_G]
        pairs = zip(group.annotations["logp"], group.annotations["ref_logp"], strict=True)
        return [np.asarray(logp_T, np.float64) - np.asarray(ref_T, np.float64) for logp_T, ref_T in pairs]


def graded_rewards(group: Group) -> np.ndarray:
    """rewards_G float64, NaN where a sample could not be graded.

    Raises:
        ValueError: the group was not scored.
        RunError: a reward is infinite.
    """
    if group.rewards_G is None:
        raise ValueError(f"the group of problem {group.problem.id!r} has no rewards: score it first")
    rewards_G = np.where(group.graded_G, np.asarray(group.rewards_G, dtype=np.float64), np.nan)
    if np.isinf(rewards_G).any():
        raise RunError(f"a reward of problem {group.problem.id!r} is infinite; make the reward finite")
    return rewards_G


def is_informative(group: Group) -> bool:
    """Whether graded samples differ: in their rewards once the group is scored, before in their verdicts."""
    if group.rewards_G is not None:
        return not is_constant(graded_rewards(group))
    return np.unique(group.right_G[group.graded_G]).size > 1


def known(max_tokens: int | None, use: str) -> int:
    """`max_tokens`, which the configuration takes from `rollouts.max_tokens` where a recipe says nothing.

    Raises:
        UserError: it is none.
    """
    if max_tokens is None:
        raise UserError(f"set algorithm.max_tokens to the most tokens that a completion may have: {use} needs it")
    return max_tokens


def _all_or_no_engine_logp(rows: list[Row]) -> tuple[list[Row], float]:
    """The rows with the engine's log-probs in all or in none, and the fraction without.

    Some rows corrected and others not would make the loss depend on how rows are packed.
    """
    absent = sum(row.engine_logp_T is None for row in rows)
    if 0 < absent < len(rows):
        rows = [replace(row, engine_logp_T=None) for row in rows]
    return rows, absent / max(len(rows), 1)
