"""The learner beyond one device: ranks in Ray actors that share each update, and a mirror of what they have learned.

The mirror is a plain learner in this process that takes no update: after each one the ranks' trained tensors are copied
into it, and whatever asks for the policy (engines, exports, the proof of freshness) asks the mirror. So a policy's
digest, its adapter's folder and a checkpoint are the same on any number of ranks.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...parts import RunError, UserError
from ...records import Batch, Group, Policy, Sample
from ...rollouts.workers import cluster
from ...rollouts.workers.faults import fault_of
from ...rollouts.workers.options import Resources
from ...rollouts.workers.placement import demand
from .learner import ANNOTATIONS, Learner, Loss


class LearnerGroup:
    """A `Learner` whose work `options.ranks` processes do, on a GPU each where the cluster has any."""

    def __init__(self, model: str, options: Any, logs: Path, **settings: Any) -> None:
        """Start the ranks; `settings` are the other arguments of `Learner`.

        Raises:
            UserError: the model cannot be had, or there is no room for the ranks.
            RunError: a rank died.
        """
        import ray

        self._mirror = Learner(model, options, **{**settings, "device": "cpu"})
        self._ranks: list[Any] = []
        quiet = {key: value for key, value in settings.items() if key != "log"}
        cluster.connect(logs)
        try:
            one, have = demand(Resources()), ray.cluster_resources()
            for kind, number in one.items():
                if number * options.ranks > have.get(kind, 0):
                    raise UserError(
                        f"learner.ranks={options.ranks} needs {number * options.ranks:g} {kind}s of "
                        f"{have.get(kind, 0):g}; lower it"
                    )
            actor = ray.remote(Rank).options(num_cpus=one["CPU"], num_gpus=one.get("GPU", 0), max_restarts=0)
            self._ranks = [actor.remote(rank, options.ranks) for rank in range(options.ranks)]
            address = self._ask("address")[0]
            self._ask("start", address, model, options, quiet)
        except BaseException:
            self.close()
            raise

    @property
    def policy(self) -> Policy:
        """The mirror's."""
        return self._mirror.policy

    @property
    def device(self) -> str:
        """The mirror's: where an engine in this process computes."""
        return self._mirror.device

    @property
    def tokenizer(self) -> Any:
        """The model's own."""
        return self._mirror.tokenizer

    @property
    def model_config(self) -> Any:
        """The base's transformers configuration."""
        return self._mirror.model_config

    def annotate(self, groups: Sequence[Group], needs: frozenset[str]) -> list[Group]:
        """As `Learner.annotate`, the rows dealt out to the ranks."""
        if not any(name in needs and name not in group.annotations for group in groups for name in ANNOTATIONS):
            return list(groups)
        bare = [replace(group, rewards_G=None, raw_G=None, parts={}) for group in groups]
        scored = self._ask("annotate", bare, needs)[0]
        return [replace(g, annotations=s) for g, s in zip(groups, scored, strict=True)]

    def remember(self) -> None:
        """As `Learner.remember`."""
        self._mirror.remember()

    def logps(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        """As `Learner.logps`, by the mirror."""
        return self._mirror.logps(samples)

    def update(self, batch: Batch, loss: Loss, step: int, needs: frozenset[str] = frozenset()) -> dict[str, float]:
        """As `Learner.update`, shared by the ranks."""
        stats, tensors = self._ask("update", batch, loss, step, needs)[0]
        self._mirror.take(tensors)
        return stats

    def state_dict(self) -> dict[str, Any]:
        """As `Learner.state_dict`: whole tensors, whatever the number of ranks."""
        return self._ask("state")[0]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As `Learner.load_state_dict`; the state may come from another number of ranks."""
        self._ask("load", state)
        self._mirror.load_state_dict(state)

    def base_weights(self) -> Iterator[tuple[str, Any]]:
        """As `Learner.base_weights`, of the mirror."""
        return self._mirror.base_weights()

    def masters(self) -> dict[str, Any]:
        """None: the ranks keep them to themselves."""
        return {}

    def save_adapter(self, folder: Path) -> str:
        """As `Learner.save_adapter`."""
        return self._mirror.save_adapter(folder)

    def save_merged(self, folder: Path) -> None:
        """As `Learner.save_merged`."""
        self._mirror.save_merged(folder)

    def close(self) -> None:
        """End the ranks, and Ray where it is ours."""
        import ray

        for rank in self._ranks:
            ray.kill(rank)
        cluster.disconnect()

    def _ask(self, method: str, *arguments: Any) -> list[Any]:
        """The same of every rank: all of them must take part.

        Raises:
            UserError, RunError: a rank's own.
            RunError: a rank died, on which the others wait in vain.
        """
        import ray
        from ray import exceptions

        shared = [ray.put(argument) for argument in arguments]
        answers = [getattr(rank, method).remote(*shared) for rank in self._ranks]
        waiting = list(answers)
        try:
            while waiting:
                done, waiting = ray.wait(waiting)
                ray.get(done)
            return ray.get(answers)
        except exceptions.RayError as error:
            raise RunError(
                f"a rank of the learner was lost: {fault_of(error)}; the same command with --resume goes on from the "
                "last checkpoint"
            ) from None


class Rank:
    """One process of the group; a Ray actor."""

    def __init__(self, rank: int, world: int) -> None:
        self._rank, self._world = rank, world
        self._learner: Any = None

    def address(self) -> str:
        """Where the ranks can meet on this node."""
        import ray

        with socket.socket() as free:
            free.bind(("", 0))
            return f"tcp://{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def start(self, address: str, model: str, options: Any, settings: dict[str, Any]) -> None:
        """Meet the others and build the sharded learner."""
        import torch

        from .ranks import Ranks

        cuda = torch.cuda.is_available()
        torch.set_num_threads(1)
        torch.distributed.init_process_group(
            "nccl" if cuda else "gloo", init_method=address, rank=self._rank, world_size=self._world
        )
        settings = {**settings, "device": "cuda" if cuda else "cpu", "log": print}
        self._learner = Learner(model, options, ranks=Ranks(self._rank, self._world), **settings)

    def annotate(self, groups: Sequence[Group], needs: frozenset[str]) -> list[Any]:
        """Each group's annotations."""
        return [group.annotations for group in self._learner.annotate(groups, needs)]

    def update(self, batch: Batch, loss: Loss, step: int, needs: frozenset[str]) -> tuple[dict[str, float], Any]:
        """What was measured, and from the first rank the trained tensors."""
        stats = self._learner.update(batch, loss, step, needs)
        tensors = self._learner.trained()
        return stats, tensors if self._rank == 0 else None

    def state(self) -> dict[str, Any] | None:
        """The whole state, from the first rank."""
        state = self._learner.state_dict()
        if self._rank:
            return None
        return {**state, "tensors": {name: tensor.cpu() for name, tensor in state["tensors"].items()}}

    def load(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._learner.load_state_dict(state)
