"""Collect: draw problems, let the engine generate, let the verifier judge, until the algorithm has enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..parts import RunError
from ..records import Group, Request, Sampling, Version, count, derive_seed
from ..rollouts.base import Engine
from ..verifiers.base import Verifier
from .runs.clock import Clock
from .sampling import Prompt, sample_and_judge


class Collection:
    """Draws problems in an order of its own, epoch after epoch, and hands out judged groups.

    Its state is a cursor: the order of an epoch and every sampling seed derive from the run's seed.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        engine: Engine,
        verifier: Verifier,
        sampling: Sampling,
        *,
        live: bool,
        problems: int,
        group: int,
        max_draws: int,
        seed: int,
        clock: Clock,
    ) -> None:
        if not prompts:
            raise RunError("there is no problem to train on: all were held out, too long or duplicates")
        self.prompts, self.engine, self.verifier, self.sampling = prompts, engine, verifier, sampling
        self.problems, self.group, self.max_draws = problems, group, max_draws
        self.live, self.seed, self.clock = live, seed, clock
        self.cursor = 0
        self.stats: dict[str, float] = {}

    def collect(self, step: int, version: Version, until: Callable[[Sequence[Group], int], bool]) -> list[Group]:
        """Judged groups of `version` for this step: one draw, and more while `until` says they are not enough.

        Raises:
            RunError: not one sample could be graded, or the engine served another version.
        """
        groups: list[Group] = []
        drawn: dict[str, int] = {}
        draws = 0
        while draws < self.max_draws and (draws == 0 or not until(groups, self.problems)):
            requests = [self._request(step, prompt, drawn) for prompt in self._draw()]
            groups += sample_and_judge(self.engine, self.verifier, requests, self.clock)
            draws += 1
        self.stats = {"draws": draws, "epoch": self.cursor / len(self.prompts), **tallies(groups)}
        self._check_freshness(groups, version)
        if not any(group.graded_G.any() for group in groups):
            reason = groups[0].verdicts[0].reason if groups and groups[0].verdicts else "no sample"
            raise RunError(f"step {step}: not one sample could be graded ({reason}); check the verifier and the gold")
        return groups

    def state_dict(self) -> dict[str, Any]:
        """The cursor."""
        return {"cursor": self.cursor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved cursor."""
        self.cursor = state["cursor"]

    def _check_freshness(self, groups: Sequence[Group], version: Version) -> None:
        """Count samples that another version served; from an engine that is live there must be none."""
        samples = [sample for group in groups for sample in group.samples]
        stale = [sample for sample in samples if sample.version.digest != version.digest]
        self.stats["rollouts/stale_fraction"] = len(stale) / len(samples)
        if stale and self.live:
            raise RunError(
                f"the engine served version {stale[0].version.number} where version {version.number} was published: "
                "these rollouts are not the policy being trained"
            )

    def _draw(self) -> list[Prompt]:
        """The next `rollouts.problems` problems; each epoch is a new permutation of all."""
        places = range(self.cursor, self.cursor + self.problems)
        self.cursor += self.problems
        size = len(self.prompts)
        orders = {epoch: self._order(epoch) for epoch in {place // size for place in places}}
        return [self.prompts[orders[place // size][place % size]] for place in places]

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng(derive_seed(self.seed, "order", epoch)).permutation(len(self.prompts))

    def _request(self, step: int, prompt: Prompt, drawn: dict[str, int]) -> Request:
        """A problem drawn again within a step continues its sample indices, so that no seed occurs twice."""
        first = drawn.get(prompt.problem.id, 0)
        drawn[prompt.problem.id] = first + self.group
        indices = range(first, first + self.group)
        seeds = tuple(derive_seed(self.seed, step, prompt.problem.id, index) for index in indices)
        return Request(prompt.problem, prompt.ids, seeds, self.sampling)


def tallies(groups: Sequence[Group]) -> dict[str, float]:
    """Lengths, stop reasons and verdicts: every termination is data, as fractions of the samples."""
    samples = [sample for group in groups for sample in group.samples]
    verdicts = [verdict for group in groups for verdict in group.verdicts]
    lengths = np.array([len(sample.tokens_T) for sample in samples])
    clipped = np.array([sample.stop == "length" for sample in samples])
    counts = count([s.stop for s in samples], "stop") | count([v.outcome for v in verdicts], "verify")
    reasons = count([v.reason for v in verdicts if v.outcome != "right" and v.reason], "verify/reason")
    return {
        "completions/mean_length": float(lengths.mean()),
        "completions/max_length": float(lengths.max()),
        "completions/clipped_ratio": float(clipped.mean()),
        "completions/tokens": float(lengths.sum()),
        **{name: number / len(samples) for name, number in (counts | reasons).items()},
    }
