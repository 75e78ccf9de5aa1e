"""Collect: draw problems, let the engine generate, let the verifier judge, until the algorithm has enough.

With `max_staleness` 0 a step's groups come from the version that it publishes. Above 0 they were asked for one step
earlier, of the version before, and generated while the learner was updating: one step off the policy, always exactly
one, so that a run is the same however fast its parts are. A larger bound is met too; it would overlap no more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..parts import RunError
from ..records import Group, Request, Sampling, Version, count, derive_seed
from ..verifiers.base import Verifier
from .freshness import Proven, check_agreement
from .learner.group import LearnerGroup
from .learner.learner import Learner
from .runs.clock import Clock
from .runs.samples import groups_of, sample_rows
from .sampling import Prompt, sample_and_judge

Until = Callable[[Sequence[Group], int], bool]


@dataclass(frozen=True)
class Harvest:
    """The judged groups of one step, all of one version, and what was counted on the way."""

    step: int
    version: Version
    groups: list[Group]
    draws: int
    epoch: float
    """Passes over the problems once they were drawn; the cursor itself may be a step ahead."""
    freshness: dict[str, float] | None = None
    """What the learner's own log-probs said of them, once it was asked."""


class Collection:
    """Draws problems in an order of its own, epoch after epoch, and hands out judged groups.

    Its state is a cursor, and the groups that are ahead: the order of an epoch and every sampling seed derive from the
    run's seed.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        engine: Proven,
        verifier: Verifier,
        sampling: Sampling,
        learner: Learner | LearnerGroup,
        *,
        live: bool,
        problems: int,
        group: int,
        max_draws: int,
        max_staleness: int,
        max_gap: float,
        seed: int,
        clock: Clock,
    ) -> None:
        if not prompts:
            raise RunError("there is no problem to train on: all were held out, too long or duplicates")
        self.prompts, self.engine, self.verifier, self.sampling = prompts, engine, verifier, sampling
        self.learner, self.max_gap = learner, max_gap
        self.problems, self.group, self.max_draws = problems, group, max_draws
        self.live, self.seed, self.clock = live, seed, clock
        self.cursor = 0
        self.stats: dict[str, float] = {}
        self._background = ThreadPoolExecutor(1, "collect") if max_staleness > 0 else None
        self._ahead: Future[Harvest] | None = None
        self._faults: dict[str, int] = {}

    def collect(self, step: int, version: Version, until: Until) -> list[Group]:
        """Judged groups for this step: one draw, and more while `until` says they are not enough.

        Raises:
            RunError: not one sample could be graded, or the samples are not those of the policy.
        """
        if self._ahead is None:
            harvest = self._gather(step, version, until)
        else:
            with self.clock("wait"):
                harvest = self._ahead.result()
        if self._background is not None:
            self._ahead = self._background.submit(self._gather, step + 1, version, until)
        harvest = self._agreeing(harvest)
        if self._background is not None:
            self.learner.remember()  # as those that are ahead come from it
        self.stats = {**self._counted(harvest, version), **(harvest.freshness or {})}
        if not any(group.graded_G.any() for group in harvest.groups):
            first = harvest.groups[0].verdicts if harvest.groups else ()
            reason = first[0].reason if first else "no sample"
            raise RunError(f"step {step}: not one sample could be graded ({reason}); check the verifier and the gold")
        return harvest.groups

    def state_dict(self) -> dict[str, Any]:
        """The cursor, and the groups that are ahead: waited for, and compared with the learner's own log-probs while
        it still knows their version."""
        if self._ahead is None:
            return {"cursor": self.cursor}
        done = self._agreeing(self._ahead.result())
        self._ahead = _done(done)
        ahead = {
            "step": done.step,
            "version": [done.version.number, done.version.digest],
            "draws": done.draws,
            "epoch": done.epoch,
            "freshness": done.freshness,
            "rows": sample_rows(done.step, done.groups),
        }
        return {"cursor": self.cursor, "ahead": ahead}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved cursor, and what was ahead."""
        self.cursor = state["cursor"]
        if (ahead := state.get("ahead")) is not None:
            problems = {prompt.problem.id: prompt.problem for prompt in self.prompts}
            groups = groups_of(ahead["rows"], problems)
            version, counted = Version(*ahead["version"]), (ahead["draws"], ahead["epoch"], ahead["freshness"])
            self._ahead = _done(Harvest(ahead["step"], version, groups, *counted))

    def close(self) -> None:
        """Let go of what is ahead; close its engine first, which ends what is under way."""
        if self._background is not None:
            self._background.shutdown(wait=True, cancel_futures=True)

    def _gather(self, step: int, version: Version, until: Until) -> Harvest:
        """All draws of one step, of one version: no other is published before they are done."""
        groups: list[Group] = []
        drawn: dict[str, int] = {}
        draws = 0
        with self.engine.turn:
            while draws < self.max_draws and (draws == 0 or not until(groups, self.problems)):
                requests = [self._request(step, prompt, drawn) for prompt in self._draw()]
                groups += sample_and_judge(self.engine, self.verifier, requests, self.clock)
                draws += 1
        samples = [sample for group in groups for sample in group.samples]
        wrong = [sample for sample in samples if sample.version.digest != version.digest]
        if wrong and self.live:
            raise RunError(
                f"the engine served version {wrong[0].version.number} where version {version.number} was published: "
                "these rollouts are not the policy being trained"
            )
        return Harvest(step, version, groups, draws, self.cursor / len(self.prompts))

    def _agreeing(self, harvest: Harvest) -> Harvest:
        """Check, once, that engine and learner give the same log-probs (an engine that is not live sampled nothing)."""
        if harvest.freshness is not None or not self.live:
            return harvest
        samples = [sample for group in harvest.groups for sample in group.samples]
        with self.clock("prove"):
            return replace(harvest, freshness=check_agreement(samples, self.learner, self.max_gap))

    def _counted(self, harvest: Harvest, version: Version) -> dict[str, float]:
        samples = [sample for group in harvest.groups for sample in group.samples]
        ages = np.array([version.number - sample.version.number for sample in samples])
        stale = np.array([sample.version.digest != version.digest for sample in samples])
        faults = {kind: number - self._faults.get(kind, 0) for kind, number in self.engine.faults.items()}
        self._faults = dict(self.engine.faults)
        return {
            "draws": harvest.draws,
            "epoch": harvest.epoch,
            "rollouts/stale_fraction": float(stale.mean()),
            "rollouts/staleness": float(ages.mean()),
            **{f"faults/{kind}": float(number) for kind, number in faults.items() if number},
            **tallies(harvest.groups),
        }

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


def _done(harvest: Harvest) -> Future[Harvest]:
    """As if it had just been gathered ahead."""
    future: Future[Harvest] = Future()
    future.set_result(harvest)
    return future


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
