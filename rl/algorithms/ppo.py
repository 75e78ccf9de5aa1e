"""PPO: a critic's values, generalised advantages, clipped steps (Schulman et al. 2017, arXiv 1707.06347)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, PrivateAttr

from ...records import Batch, Group, Row
from .advantages import generalised, whiten
from .base import MicroBatch, Outputs
from .controllers import Moments, adapted
from .losses import clipped_value_loss, kl_estimate
from .policy_gradient import RewardKL, Scored

if TYPE_CHECKING:
    from torch import Tensor


class PPO(RewardKL):
    """Each token an action: advantages by GAE from the critic's values, several clipped epochs over a step's samples.

    The reward comes with the last token; no group's baseline, no group dropped. Policy and value losses are means over
    the batch's tokens. Defaults are those of TRL's PPOTrainer (0.11), by which the paper on language understanding was
    made (RL4GLUE, arXiv 2410.11020). The critic is `learner.critic`.
    """

    gamma: float = Field(1.0, ge=0, le=1)
    """Discount of rewards, a token."""
    lam: float = Field(0.95, ge=0, le=1)
    """GAE's λ: 1 trusts the returns, 0 the critic."""
    value_clip: float | None = Field(0.2, gt=0)
    """How far a value may move from the old one before its loss stops falling; none: any far."""
    vf_coef: float = Field(0.1, ge=0)
    """Weight of the value loss beside the policy's."""
    whiten_advantages: bool = True
    """Advantages get mean 0 and deviation 1 over all of a step's tokens."""
    whiten_values: bool = False
    """The critic learns returns at mean 0 and deviation 1, by their running moments."""
    kl: float = Field(0.05, ge=0)
    """Coefficient, at first, of a token's divergence from the reference policy; 0 for none and no reference pass."""
    kl_in: Literal["reward", "loss"] = "reward"
    """Where it is paid: from the token's reward (k1, log policy/reference), or in the loss (k3)."""
    kl_target: float | None = Field(None, gt=0)
    """Divergence a completion, nats, to which the coefficient is steered; none: it stays."""
    kl_horizon: int = Field(10_000, ge=1)
    """Completions over which it is steered there."""
    epochs: int = Field(4, ge=1)
    """Passes over a step's completions."""

    _coefficient: float | None = PrivateAttr(None)
    _moments: Moments = PrivateAttr(default_factory=Moments)

    @property
    def coefficient(self) -> float:
        """The KL coefficient as it stands."""
        return self.kl if self._coefficient is None else self._coefficient

    @property
    def needs(self) -> frozenset[str]:
        """The critic's `values` too."""
        return super().needs | {"values"}

    def drops(self, scored: Scored) -> bool:
        """Never: the critic is the baseline."""
        return False

    def token_advantages(self, used: Sequence[Scored]) -> list[np.ndarray]:
        """GAE's of each graded sample, as they are."""
        return [self._generalised(one, i) for one in used for i in one.graded]

    def row(self, group: Group, i: int, advantage_T: np.ndarray, lengths_N: np.ndarray) -> Row:
        """With the critic's value and the return that it is to learn, which is advantage + value."""
        value_T = self._values(group, i)
        row = super().row(group, i, advantage_T, lengths_N)
        return replace(row, old_value_T=value_T, return_T=advantage_T + value_T)

    def advantages(self, groups: Sequence[Group]) -> Batch:
        """One row a graded sample, advantages whitened over all of them; the controllers take note of the step."""
        batch = super().advantages(groups)
        if not batch.rows:
            return batch
        coefficient = self.coefficient
        stats = {**batch.stats, **self._learned(batch.rows), "kl_coefficient": coefficient}
        if self.kl and self.kl_target is not None:
            paid = [self.penalties(group)[i].sum() for group in groups for i in np.flatnonzero(group.graded_G)]
            divergence = float(np.mean(paid))
            self._coefficient = adapted(coefficient, divergence, self.kl_target, len(batch.rows), self.kl_horizon)
            stats["kl/completion"] = divergence
        return replace(batch, rows=self._whitened(batch.rows), stats=stats)

    def loss(self, outputs: Outputs, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The clipped surrogate, plus `vf_coef` times the value loss, plus the KL term where it is paid in the loss."""
        loss, stats = super().loss(outputs, batch)
        if outputs.value_T is None or batch.old_value_T is None or batch.return_T is None:
            raise ValueError("PPO needs the critic's values: annotate with `needs`")
        value_loss_T, clipped_T = clipped_value_loss(
            outputs.value_T, batch.old_value_T, batch.return_T, self.value_clip
        )
        loss = loss + self.vf_coef * (batch.weight_T * value_loss_T).sum()
        stats = {**stats, "critic/loss": value_loss_T.detach(), "critic/clip_ratio": clipped_T}
        if self.kl and self.kl_in == "loss":
            assert batch.ref_logp_T is not None
            kl_T = kl_estimate(outputs.logp_T, batch.ref_logp_T, "k3")
            loss = loss + self.coefficient * (batch.weight_T * kl_T).sum()
        return loss, stats

    def state_dict(self) -> dict[str, Any]:
        """The coefficient and the returns' moments."""
        return {"kl_coefficient": self.coefficient, "returns": asdict(self._moments)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._coefficient, self._moments = state["kl_coefficient"], Moments(**state["returns"])

    def _values(self, group: Group, i: int) -> np.ndarray:
        """The critic's values of a sample's states, float64 [T], in the rewards' own scale."""
        value_T = np.asarray(group.annotations["values"][i], np.float64)
        return self._moments.unscaled(value_T) if self.whiten_values else value_T

    def _generalised(self, one: Scored, i: int) -> np.ndarray:
        paid_T = self.coefficient * self.penalties(one.group)[i] if self.kl_in == "reward" else 0.0
        rewards_T = np.zeros(one.group.lengths_G[i]) - paid_T
        rewards_T[-1:] += one.rewards_G[i]
        return generalised(rewards_T, self._values(one.group, i), self.gamma, self.lam)

    def _whitened(self, rows: Sequence[Row]) -> tuple[Row, ...]:
        """Rows as the learner takes them: advantages and, if so asked, values and returns at a scale of 1."""
        if self.whiten_values:
            self._moments = self._moments.with_step(_joined(row.return_T for row in rows))
        advantage_N = _joined(row.advantage_T for row in rows)
        advantage_N = whiten(advantage_N) if self.whiten_advantages else advantage_N
        ends = np.cumsum([len(row.tokens_T) for row in rows])[:-1]
        return tuple(
            replace(
                row,
                advantage_T=advantage_T.astype(np.float32),
                old_value_T=self._as_learned(row.old_value_T),
                return_T=self._as_learned(row.return_T),
            )
            for row, advantage_T in zip(rows, np.split(advantage_N, ends), strict=True)
        )

    def _as_learned(self, values_T: np.ndarray | None) -> np.ndarray:
        assert values_T is not None
        return (self._moments.scaled(values_T) if self.whiten_values else values_T).astype(np.float32)

    def _learned(self, rows: Sequence[Row]) -> dict[str, float]:
        """How well the critic foretold the returns: token means, and the share of their variance that it explains."""
        value_N = _joined(row.old_value_T for row in rows)
        return_N = _joined(row.return_T for row in rows)
        spread = float(return_N.var())
        explained = 1 - float((return_N - value_N).var()) / spread if spread > 0 else 0.0
        return {
            "critic/value": float(value_N.mean()),
            "critic/return": float(return_N.mean()),
            "critic/explained_variance": explained,
        }


def _joined(arrays: Iterable[np.ndarray | None]) -> np.ndarray:
    """float64, end to end."""
    return np.concatenate([np.zeros(0), *(values_T for values_T in arrays if values_T is not None)])
