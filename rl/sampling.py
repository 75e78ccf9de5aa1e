"""Requests to an engine, and what comes back judged: what training and evaluation share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..records import Group, Problem, Request
from ..rollouts.base import Engine
from ..verifiers.base import Verifier
from .runs.clock import Clock


@dataclass(frozen=True)
class Prompt:
    """A problem and its prompt as the model takes it, int32 ids."""

    problem: Problem
    ids: np.ndarray


def sample_and_judge(engine: Engine, verifier: Verifier, requests: Sequence[Request], clock: Clock) -> list[Group]:
    """One judged group a request."""
    with clock("generate"):
        answered = engine.generate(requests)
    with clock("verify"):
        submissions = [(r.problem, s.text) for r, samples in zip(requests, answered, strict=True) for s in samples]
        verdicts = iter(verifier.judge_all(submissions))
    return [
        Group(r.problem, tuple(samples), tuple(next(verdicts) for _ in samples))
        for r, samples in zip(requests, answered, strict=True)
    ]
