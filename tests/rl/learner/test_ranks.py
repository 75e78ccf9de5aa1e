"""Ranks that share an update take the step that one process takes; their checkpoints fit any number of ranks."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from underdog.kernels import packing
from underdog.parts import RunError, find
from underdog.records import Batch, Group, Problem, Row, Sample, Verdict, Version
from underdog.rl.learner.group import LearnerGroup
from underdog.rl.learner.learner import Learner
from underdog.rl.learner.options import LearnerOptions
from underdog.rl.learner.ranks import Ranks
from underdog.rollouts.workers import cluster

pytest.importorskip("ray")
pytestmark = pytest.mark.slow
ADAPTERS = {"lora": {"name": "lora", "r": 4, "alpha": 8, "dropout": 0.0}, "full": {"name": "full"}}
VALUES = frozenset({"values"})


@pytest.fixture(scope="module")
def one_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    logs = tmp_path_factory.mktemp("logs")
    cluster.connect(logs)
    yield logs
    cluster.disconnect()


@pytest.fixture(scope="module")
def pairs(tiny_shape: str, one_ray: Path) -> Iterator[Callable[[str], tuple[Learner, LearnerGroup]]]:
    """A learner alone and two ranks of the same, both as they were when new."""
    made: dict[str, tuple[Learner, LearnerGroup, Any]] = {}

    def pair(adapter: str) -> tuple[Learner, LearnerGroup]:
        if adapter not in made:
            options = {"lr": 1e-2, "adapter": ADAPTERS[adapter], "tokens": 40, "max_grad_norm": None, "critic": "own"}
            parsed = LearnerOptions.model_validate({**options, "ranks": 2})
            settings: dict[str, Any] = {"seed": 0, "steps": 9, "log": lambda text: None, "values": adapter == "lora"}
            alone = Learner(tiny_shape, parsed, device="cpu", **settings)
            fresh = copy.deepcopy(alone.state_dict())
            made[adapter] = (alone, LearnerGroup(tiny_shape, parsed, one_ray, **settings), fresh)
        alone, shared, fresh = made[adapter]
        for learner in (alone, shared):
            learner.load_state_dict(fresh)
        return alone, shared

    yield pair
    for _, shared, _ in made.values():
        shared.close()


def reinforce(outputs: Any, batch: Any) -> Any:
    return -(batch.weight_T * batch.advantage_T * outputs.logp_T).sum(), {"twice": 2 * outputs.logp_T.detach()}


def with_values(outputs: Any, batch: Any) -> Any:
    loss, stats = reinforce(outputs, batch)
    return loss + (batch.weight_T * (outputs.value_T - 1).square()).sum(), stats


def batch_of(seed: int = 0, rows: int = 9, **options: Any) -> Batch:
    """Uneven rows: at 40 tokens a micro-batch their number is odd, so that a second rank's last one is empty."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(rows):
        length = int(draw.integers(2, 16))
        advantage_T, logp_T = draw.normal(size=length), draw.uniform(-4, -3, size=length)
        tokens_T = draw.integers(3, 30, length)
        prompt = draw.integers(3, 30, int(draw.integers(2, 9)))
        made.append(
            Row(prompt, tokens_T, advantage_T.astype(np.float32), 1 / 64, engine_logp_T=logp_T.astype(np.float32))
        )
    return Batch(tuple(made), **options)


def group_of(batch: Batch) -> Group:
    """The batch's rows as one problem's samples."""
    samples = tuple(
        Sample("p", i, Version(1, ""), 0, r.prompt_ids, r.tokens_T, r.engine_logp_T, "", "eos")
        for i, r in enumerate(batch.rows)
    )
    return Group(Problem("p", "?"), samples, tuple(Verdict("right") for _ in samples))


def moments(learner: Any) -> dict[str, torch.Tensor]:
    """The optimizer's first moments: after one step 0.1 times the gradients, summed over all micro-batches."""
    tensors = learner.state_dict()["tensors"]
    return {name: tensor for name, tensor in tensors.items() if name.endswith("exp_avg")}


def test_micro_batches_are_dealt_out_once_each_and_every_rank_passes_as_often() -> None:
    for world in (1, 2, 3):
        dealt = [Ranks(rank, world).deal(list("abcde")) for rank in range(world)]
        assert len({len(own) for own in dealt}) == 1
        assert sorted((n, x) for own in dealt for n, x in own if x is not None) == list(enumerate("abcde"))


def test_a_loaded_state_reaches_every_parameter_after_a_pass_without_gradients(pairs: Any) -> None:
    one, two = pairs("full")
    for learner in (one, two):
        learner.update(batch_of(), reinforce, 1)
    trained = copy.deepcopy(one.state_dict())
    _, two = pairs("full")  # as when new
    group = group_of(batch_of(5))
    two.annotate([group], frozenset(["logp"]))
    two.load_state_dict(trained)
    one.load_state_dict(trained)
    alone, shared = (learner.annotate([group], frozenset(["logp"]))[0].annotations["logp"] for learner in (one, two))
    for a, b in zip(alone, shared, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_two_ranks_have_the_gradients_of_one(adapter: str, pairs: Any) -> None:
    batch = batch_of()
    parts = packing.split([r.prompt_ids for r in batch.rows], [r.tokens_T for r in batch.rows], 40)
    assert len(parts) % 2 == 1, "the last micro-batch must be empty on one rank"
    one, two = pairs(adapter)
    stats = [learner.update(batch, reinforce, 1) for learner in (one, two)]
    alone, shared = moments(one), moments(two)
    assert alone.keys() == shared.keys()
    for name, tensor in alone.items():
        gap = (tensor - shared[name]).norm() / tensor.norm().clamp(min=1e-12)
        assert gap <= 1e-5, f"{name}: {gap}"
    assert stats[0].keys() == stats[1].keys()
    for name, value in stats[0].items():
        assert stats[1][name] == pytest.approx(value, rel=1e-4, abs=1e-7), name


def test_several_updates_and_a_resume_on_another_number_of_ranks(pairs: Any) -> None:
    one, two = pairs("lora")
    options = {"epochs": 2, "minibatch": 4}
    for step in (1, 2):
        for learner in (one, two):
            learner.update(batch_of(step, **options), reinforce, step)
    of_one, of_two = copy.deepcopy(one.state_dict()), two.state_dict()
    same(of_one["tensors"], of_two["tensors"])
    digests = one.policy.digest(), two.policy.digest()
    one.load_state_dict(of_two)
    two.load_state_dict(of_one)
    assert (two.policy.digest(), one.policy.digest()) == digests
    for learner in (one, two):
        learner.update(batch_of(3, **options), reinforce, 3)
        assert learner.policy.number == 3
    same(one.state_dict()["tensors"], two.state_dict()["tensors"])


def test_a_critic_is_shared_by_the_ranks(pairs: Any) -> None:
    """Sharded with the policy: the same gradients, values, and state as on one."""
    one, two = pairs("lora")
    stats = [learner.update(batch_of(), with_values, 1, VALUES) for learner in (one, two)]
    alone, shared = moments(one), moments(two)
    assert any("critic.trunk" in name for name in alone)
    for name, tensor in alone.items():
        assert (tensor - shared[name]).norm() <= 1e-5 * tensor.norm().clamp(min=1e-12), name
    assert stats[1]["grad_norm/critic"] == pytest.approx(stats[0]["grad_norm/critic"], rel=1e-4)
    groups = [group_of(batch_of(5))]
    found = [learner.annotate(groups, VALUES)[0].annotations["values"] for learner in (one, two)]
    for a, b in zip(*found, strict=True):
        assert a.any()
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_rivals_reach_the_gradients_of_the_ranks(pairs: Any) -> None:
    """A trained head, sharded, gets what the hinge's rivals send down: the same as on one."""
    one, two = pairs("full")
    hinged = find("algorithm", "grpo")(kl=0.0, negative="hinge", mismatch="none")
    for learner in (one, two):
        learner.update(batch_of(), hinged.loss, 1, hinged.needs)
    alone, shared = moments(one), moments(two)
    assert alone.keys() == shared.keys()
    for name, tensor in alone.items():
        assert (tensor - shared[name]).norm() <= 1e-5 * tensor.norm().clamp(min=1e-12), name


def same(alone: dict[str, torch.Tensor], shared: dict[str, torch.Tensor]) -> None:
    assert alone.keys() == shared.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(shared[name], tensor, rtol=1e-3, atol=1e-5)


def test_annotations_are_those_of_one(pairs: Any) -> None:
    one, two = pairs("lora")
    for learner in (one, two):
        learner.update(batch_of(), reinforce, 1)
    groups = [group_of(batch_of(5))]
    for name in ("logp", "ref_logp"):
        alone, shared = (learner.annotate(groups, frozenset([name]))[0].annotations[name] for learner in (one, two))
        for a, b in zip(alone, shared, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_rank_that_dies_ends_the_run_with_one_sentence(pairs: Any) -> None:
    _, two = pairs("lora")
    ranks = [p for p in psutil.process_iter(["cmdline"]) if "ray::Rank" in " ".join(p.info["cmdline"] or ())]
    for rank in ranks[::2]:  # one of each pair
        os.kill(rank.pid, signal.SIGKILL)
    with pytest.raises(RunError, match=r"a rank of the learner was lost: its process ended .*--resume"):
        two.update(batch_of(), reinforce, 1)
