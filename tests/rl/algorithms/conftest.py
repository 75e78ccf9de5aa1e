"""Scored groups with known numbers, and a learner's packing, for the tests of the algorithms."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from underdog.records import Batch, Group, Problem, Row, Sample, Verdict, Version
from underdog.rl.algorithms.base import MicroBatch, Outputs


def _group(
    name: str,
    rewards: Sequence[float],
    lengths: Sequence[int],
    *,
    ungraded: Sequence[int] = (),
    engine: bool = True,
    scored: bool = True,
) -> Group:
    """A group with random log-probs; the samples in `ungraded` have reward NaN, right means a positive reward."""
    rng = np.random.default_rng([ord(letter) for letter in name])

    def logps() -> tuple[np.ndarray, ...]:
        return tuple(rng.uniform(-1.5, -0.5, n).astype(np.float32) for n in lengths)

    sampled = logps()
    samples = tuple(
        Sample(
            problem_id=name,
            index=i,
            version=Version(0, "0" * 64),
            seed=i,
            prompt_ids=np.array([1, 2]),
            tokens_T=rng.integers(0, 99, n),
            logp_T=sampled[i] if engine else None,
            text="",
            stop="eos",
        )
        for i, n in enumerate(lengths)
    )
    outcomes = ["could_not_grade" if i in ungraded else "right" if r > 0 else "wrong" for i, r in enumerate(rewards)]
    rewards_G = np.array([np.nan if i in ungraded else r for i, r in enumerate(rewards)])
    return Group(
        problem=Problem(name, "?"),
        samples=samples,
        verdicts=tuple(Verdict(outcome) for outcome in outcomes),  # type: ignore[arg-type]
        annotations={"logp": logps(), "ref_logp": logps()},
        rewards_G=rewards_G if scored else None,
    )


def _pack(rows: Sequence[Row], news: Sequence[torch.Tensor]) -> tuple[Outputs, MicroBatch]:
    """What a learner makes of whole rows: float64, tokens end to end, the detached new log-probs where no old ones."""

    def tensor(arrays: Sequence[np.ndarray | None]) -> torch.Tensor | None:
        kept = [a for a in arrays if a is not None]
        return torch.tensor(np.concatenate(kept), dtype=torch.float64) if len(kept) == len(arrays) else None

    advantage_T = tensor([row.advantage_T for row in rows])
    assert advantage_T is not None
    logp_T = torch.cat(list(news))
    old_T = tensor([row.old_logp_T for row in rows])
    batch = MicroBatch(
        advantage_T=advantage_T,
        weight_T=torch.cat([torch.full((len(r.tokens_T),), r.weight, dtype=torch.float64) for r in rows]),
        old_logp_T=logp_T.detach() if old_T is None else old_T,
        row_T=torch.cat([torch.full((len(r.tokens_T),), i) for i, r in enumerate(rows)]),
        rows=len(rows),
        engine_logp_T=tensor([row.engine_logp_T for row in rows]),
        ref_logp_T=tensor([row.ref_logp_T for row in rows]),
    )
    return Outputs(logp_T, torch.zeros_like(logp_T)), batch


@pytest.fixture(scope="session")
def make_group() -> Callable[..., Group]:
    return _group


@pytest.fixture
def pack() -> Callable[..., tuple[Outputs, MicroBatch]]:
    return _pack


@pytest.fixture
def groups() -> list[Group]:
    """One group with a signal, one constant, one with a sample that could not be graded, one of only those."""
    return [
        _group("mixed", [1.0, 0.0, 0.0, 0.5], [3, 5, 2, 4]),
        _group("constant", [1.0, 1.0], [2, 4]),
        _group("partly", [0.0, 1.0, 0.0], [1, 7, 9], ungraded=[2]),
        _group("ungraded", [1.0, 0.0], [6, 8], ungraded=[0, 1]),
    ]


@pytest.fixture
def new_logps(groups: list[Group]) -> dict[int, torch.Tensor]:
    """New log-probs of every sample as leaves, keyed by the identity of its tokens; far enough off to be clipped."""
    rng = np.random.default_rng(5)
    return {
        id(sample.tokens_T): torch.tensor(
            np.asarray(old_T, np.float64) + rng.normal(0, 0.3, len(old_T)), requires_grad=True
        )
        for group in groups
        for sample, old_T in zip(group.samples, group.annotations["logp"], strict=True)
    }


@pytest.fixture
def update(pack: Callable[..., tuple[Outputs, MicroBatch]], new_logps: dict[int, torch.Tensor]) -> Callable[..., tuple]:
    """(loss, gradient of each sample's log-probs by identity, statistics) of a batch as one micro-batch."""

    def run(algorithm, batch: Batch) -> tuple[float, dict[int, np.ndarray], dict[str, torch.Tensor]]:
        for leaf in new_logps.values():
            leaf.grad = None
        news = [new_logps[id(row.tokens_T)] for row in batch.rows]
        loss, stats = algorithm.loss(*pack(batch.rows, news))
        loss.backward()
        grads = {key: np.zeros(len(v)) if v.grad is None else v.grad.numpy().copy() for key, v in new_logps.items()}
        return loss.item(), grads, stats

    return run
