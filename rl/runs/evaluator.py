"""Measuring a policy on held-out problems: publish, sample, judge, count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...records import Group, Policy, Request, Sampling, Version, derive_seed
from ...rollouts.base import Engine
from ...verifiers.base import Verifier
from ..sampling import Prompt, sample_and_judge
from .clock import Clock
from .evaluation import Tally


class Measured(NamedTuple):
    """What a policy did: its version, the counts, and the judged samples, a group a problem."""

    version: Version
    tally: Tally
    groups: list[Group]

    @property
    def tokens(self) -> int:
        """Of all completions."""
        return sum(int(group.lengths_G.sum()) for group in self.groups)


@dataclass(frozen=True)
class Evaluator:
    """Always the same problems and seeds, so that two policies are compared on equal terms."""

    engine: Engine
    verifier: Verifier
    prompts: Sequence[Prompt]
    sampling: Sampling
    seed: int

    def measure(self, policy: Policy, problems: int, samples: int) -> Measured:
        """How often `policy` is right on the first `problems` held-out problems, from `samples` samples each."""
        version = self.engine.publish(policy)
        requests = [self._request(prompt, samples) for prompt in self.prompts[:problems]]
        groups = sample_and_judge(self.engine, self.verifier, requests, Clock())
        judged = [(group.problem, verdict) for group in groups for verdict in group.verdicts]
        report = self.verifier.report([p for p, _ in judged], [v for _, v in judged])
        return Measured(version, Tally.of(groups, self.verifier.essence, report), groups)

    def _request(self, prompt: Prompt, samples: int) -> Request:
        indices = range(samples)
        seeds = tuple(derive_seed(self.seed, "evaluation", prompt.problem.id, index) for index in indices)
        return Request(prompt.problem, prompt.ids, seeds, self.sampling)
