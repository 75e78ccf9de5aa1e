"""A softmax policy over actions, of which several are right with widely spread initial probabilities. Ours: the toy of
Rewarding the Unlikely (arXiv 2506.02355) is unpublished.

A problem belongs to a topic. Its initial logits are fixed; what is learned is one number a topic and action, added to
the logits of all the topic's problems, so that what is learned on one problem changes the policy on others, as in a
model. With one problem a topic the policy is a table. `bandit_problems.py` says how problems are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from ....parts import RunError
from ....rewards.shaping.none import NONE
from ....rewards.shaping.unlikeliness import Unlikeliness
from ...algorithms.base import MicroBatch, Outputs
from ...algorithms.policy_gradient import LossKL
from ...choices import Choice
from .bandit_problems import draw_problems, gains, log_softmax, pass_at, uplift
from .base import Experiment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from torch.optim import Optimizer

RANKED = 32
"""Samples a problem of which the uplift by rank is made."""


class Bandit(Experiment):
    """Topics of one-token problems, trained by a method of GRPO's family; pass@N is exact."""

    topics: int = Field(default=32, ge=1)
    """Topics: rows of the learned table."""
    problems: int = Field(default=128, ge=1)
    """Training problems of each topic."""
    fresh: int = Field(default=32, ge=0)
    """Problems of each topic, not trained on, on which is measured; 0: on those trained on."""
    actions: int = Field(default=64, ge=2)
    """Actions of the policy."""
    methods: int = Field(default=8, ge=2)
    """Actions of each topic that may be right; at most `actions`."""
    works: float = Field(default=0.5, ge=0, le=1)
    """Chance that a method solves a problem of its topic; at least one does."""
    spread: float = Field(default=14.0, ge=0, le=40)
    """Initial probabilities of a topic's methods go down to 2^−spread of the likeliest one's, bits."""
    jitter: float = Field(default=1.0, ge=0)
    """Standard deviation by which problems of a topic differ in an action's initial log2-probability, bits."""
    batch: int = Field(default=16, ge=1)
    """Problems of a step."""
    group: int = Field(default=32, ge=2)
    """Samples of a problem."""
    steps: int = Field(default=256, ge=1)
    """Steps, of `algorithm.epochs` updates each; problems come in order of random passes."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW with weight decay 0.01, as in the paper; or plain gradient descent."""
    lr: float = Field(default=0.1, gt=0)
    """Learning rate, constant."""
    algorithm: Annotated[Any, Choice("algorithm")] = Field(default="grpo", validate_default=True)
    """A method of GRPO's family: its advantages, its loss, its epochs and its KL coefficient."""
    shaping: Annotated[Any, Choice("shaping")] = Field(default="none", validate_default=True)
    """None, or unlikeliness."""

    @field_validator("algorithm")
    @classmethod
    def _one_update_an_epoch(cls, algorithm: Any) -> Any:
        plain = isinstance(algorithm, LossKL) and algorithm.minibatch is None and algorithm.negative == "surrogate"
        if not plain:
            raise ValueError("the bandit takes a method of GRPO's family, without minibatch and hinge")
        return algorithm

    @field_validator("shaping")
    @classmethod
    def _by_rank(cls, shaping: Any) -> Any:
        if not isinstance(shaping, NONE | Unlikeliness):
            raise ValueError("the bandit takes the shapings none and unlikeliness")
        return shaping

    @model_validator(mode="after")
    def _fits(self) -> Bandit:
        if self.methods > self.actions:
            raise ValueError(f"methods={self.methods} are more than actions={self.actions}")
        return self

    def measure(self, seeds: Sequence[int]) -> dict[str, Any]:
        """Of each seed: pass@N before and after, uplift by rank, gains by method; see `bandit_problems.py`."""
        with _one_thread():
            logits_SPA, right_SPA = self._drawn(seeds)
            trained_P, measured_P = self._places()
            table_STA = self.train(logits_SPA[:, trained_P], right_SPA[:, trained_P], seeds)
        topic_P = measured_P // (self.problems + self.fresh)
        logits_SPA, right_SPA = logits_SPA[:, measured_P], right_SPA[:, measured_P]
        before_SPA, after_SPA = log_softmax(logits_SPA), log_softmax(logits_SPA + table_STA[:, topic_P])
        uniform_SPG = np.stack([_stream(seed, "rank").random((len(measured_P), RANKED)) for seed in seeds])
        sampled_SPG = sample(before_SPA, uniform_SPG)
        chosen = [np.take_along_axis(of_SPA, sampled_SPG, axis=-1) for of_SPA in (before_SPA, after_SPA, right_SPA)]
        return {
            "initial": pass_at(before_SPA, right_SPA).tolist(),
            "trained": pass_at(after_SPA, right_SPA).tolist(),
            "uplift": _listed(uplift(*chosen)),
            "gains": _listed(gains(before_SPA, after_SPA, right_SPA, self.methods)),
        }

    def train(self, logits_SPA: np.ndarray, right_SPA: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
        """What is learned, table_STA float64: S trainings beside each other, none of which touches another.

        Raises:
            RunError: a training diverged.
        """
        import torch

        base_SPA, order_SI, uniform_SIG = self._draws(logits_SPA, seeds)
        table_STA = torch.zeros((len(seeds), self.topics, self.actions), requires_grad=True)
        optimizer = self._optimizer(table_STA)
        of_S1 = torch.arange(len(seeds))[:, None]
        for start in range(0, self.steps * self.batch, self.batch):
            now = slice(start, start + self.batch)
            problem_SB = order_SI[:, now]
            topic_SB = problem_SB // self.problems
            base_SBA = base_SPA[of_S1, problem_SB]
            old_SBA = (base_SBA + table_STA.detach()[of_S1, topic_SB]).log_softmax(-1)
            action_SBG = torch.from_numpy(sample(old_SBA.numpy(), uniform_SIG[:, now]))
            right_SBG = np.take_along_axis(right_SPA[of_S1.numpy(), problem_SB.numpy()], action_SBG.numpy(), axis=-1)
            old_SBG, ref_SBG = old_SBA.gather(-1, action_SBG), base_SBA.log_softmax(-1).gather(-1, action_SBG)
            batch = self.batch_of(right_SBG, old_SBG, ref_SBG)
            for _ in range(self.algorithm.epochs):
                logp_SBA = (base_SBA + table_STA[of_S1, topic_SB]).log_softmax(-1)
                loss, _ = self.algorithm.loss(Outputs(logp_SBA.gather(-1, action_SBG).flatten()), batch)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        if not table_STA.isfinite().all():
            raise RunError(f"the bandit diverged at lr={self.lr:g} with {self.optimizer}; lower lr")
        return table_STA.detach().double().numpy()

    def batch_of(self, right_SBG: np.ndarray, old_SBG: Tensor, ref_SBG: Tensor) -> MicroBatch:
        """Samples of B groups a seed as one-token rows of the method's loss, which is each seed's, summed over seeds.

        Groups all right or all wrong are left out of a seed's mean, its KL term too, as in the published code.
        """
        import torch

        ends = (pick(right_SBG, axis=-1, keepdims=True) for pick in (np.any, np.all))
        mixed_SBG = np.broadcast_to(np.logical_xor(*ends), right_SBG.shape)
        rewards_SBG = right_SBG.astype(np.float64)
        if isinstance(self.shaping, Unlikeliness):
            rewards_SBG *= self.shaping.factors(old_SBG.double().numpy())
        advantage_SBG = np.where(mixed_SBG, self.algorithm.group_advantages(rewards_SBG), 0.0)
        weight_SBG = mixed_SBG / np.maximum(mixed_SBG.sum(axis=(1, 2), keepdims=True), 1)
        return MicroBatch(
            advantage_T=torch.from_numpy(advantage_SBG.ravel()).to(old_SBG.dtype),
            weight_T=torch.from_numpy(weight_SBG.ravel()).to(old_SBG.dtype),
            old_logp_T=old_SBG.flatten(),
            row_T=torch.arange(old_SBG.numel()),
            rows=old_SBG.numel(),
            ref_logp_T=ref_SBG.flatten(),
        )

    def _drawn(self, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """logits_SPA and right_SPA, those for training and the fresh ones of a topic beside each other."""
        own = self.model_dump(include={"topics", "actions", "methods", "works", "spread", "jitter"})
        each = self.problems + self.fresh
        drawn = [draw_problems(_stream(seed, "problems"), each=each, **own) for seed in seeds]
        logits, right = zip(*drawn, strict=True)
        return np.stack(logits), np.stack(right)

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Of all problems, those to train on and those to measure on."""
        place_P = np.arange(self.topics * (self.problems + self.fresh))
        trains_P = place_P % (self.problems + self.fresh) < self.problems
        return place_P[trains_P], place_P[~trains_P] if self.fresh else place_P

    def _draws(self, logits_SPA: np.ndarray, seeds: Sequence[int]) -> tuple[Tensor, Tensor, np.ndarray]:
        """The initial logits, the order of problems and the uniforms of their samples; the same for every arm."""
        import torch

        wanted, orders, uniforms = self.steps * self.batch, [], []
        for seed in seeds:
            draw = _stream(seed, "training")
            passes = -(-wanted // logits_SPA.shape[1])
            orders.append(np.concatenate([draw.permutation(logits_SPA.shape[1]) for _ in range(passes)])[:wanted])
            uniforms.append(draw.random((wanted, self.group)))
        base_SPA = torch.from_numpy(logits_SPA).float()
        return base_SPA, torch.from_numpy(np.stack(orders)), np.stack(uniforms)

    def _optimizer(self, table_STA: Tensor) -> Optimizer:
        import torch

        if self.optimizer == "sgd":
            return torch.optim.SGD([table_STA], lr=self.lr)
        return torch.optim.AdamW([table_STA], lr=self.lr, weight_decay=0.01)


def sample(logp_A: np.ndarray, uniform_G: np.ndarray) -> np.ndarray:
    """Actions [..., G] of policies [..., A], by the inverse of their distribution functions at uniforms [..., G]."""
    import torch

    function_A = np.exp(logp_A.astype(np.float64)).cumsum(axis=-1)
    function_A /= function_A[..., -1:]
    whole = (torch.from_numpy(np.ascontiguousarray(one)) for one in (function_A, uniform_G))
    found_G = torch.searchsorted(*whole, right=True)
    return found_G.clamp(max=logp_A.shape[-1] - 1).numpy()


def _stream(seed: int, use: Literal["problems", "training", "rank"]) -> np.random.Generator:
    """A seed's own random numbers for one use, which no option and no other seed changes."""
    return np.random.default_rng([seed, ("problems", "training", "rank").index(use)])


def _listed(values: np.ndarray) -> list[Any]:
    """As JSON, None for NaN."""
    listed = values.astype(object)
    listed[np.isnan(values)] = None
    return listed.tolist()


@contextmanager
def _one_thread() -> Iterator[None]:
    """torch on one thread, as a study's trainings are: numbers do not depend on the machine's cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
