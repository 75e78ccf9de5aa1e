"""The proof of freshness: each fault is caught by the check that is made for it, and healthy engines pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from underdog.parts import RunError
from underdog.records import Problem, Request, Sample, Sampling, Served, Version
from underdog.rl.freshness import Proven, check_agreement
from underdog.rollouts.base import Receipt

V1, V2 = Version(1, "one"), Version(2, "two")


def sample(prompt: Sequence[int], served: Served, version: Version = V1, logp: float = -1.0, index: int = 0) -> Sample:
    tokens_T = np.array([5, 6], dtype=np.int64)
    logp_T = np.full(2, logp, dtype=np.float32)
    return Sample("p", index, version, 0, np.array(prompt, np.int32), tokens_T, logp_T, "", "eos", served)


@dataclass
class Scripted:
    """An engine that says what it is told to say."""

    told: list[Receipt]
    answers: list[Sample]

    faults: Mapping[str, int] = field(default_factory=dict)

    def publish(self, policy: Any) -> Version:
        return policy

    def receipts(self) -> list[Receipt]:
        return self.told

    def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        return [[answer] for answer in self.answers]

    def close(self) -> None:
        pass


def serve(told: list[Receipt], answers: list[Sample]) -> Proven:
    engine = Proven(Scripted(told, answers))
    engine.publish(told[0].version)  # type: ignore[arg-type]
    engine.generate([Request(Problem("p", ""), np.array([1]), (0,), Sampling(4))])
    return engine


def test_a_worker_that_holds_other_tensors_is_named() -> None:
    good, bad = Receipt("worker-0", V1, "h", "h", 1), Receipt("worker-1", V1, "other", "h", 1)
    with pytest.raises(RunError, match=r"worker-1 holds .*check a"):
        Proven(Scripted([good, bad], [])).publish(V1)  # type: ignore[arg-type]


@pytest.mark.parametrize("ran", [None, 7])
def test_a_request_that_ran_under_another_adapter_or_none_is_caught(ran: int | None) -> None:
    with pytest.raises(RunError, match="check c"):
        serve([Receipt("w", V1, "h", "h", 1)], [sample([1, 2], Served("w", ran, 0))])


def test_a_prefix_that_only_another_version_can_have_cached_is_caught() -> None:
    first = [sample([1, 2, 3, 4], Served("w", 1, 0)), sample([1, 2, 3, 4], Served("w", 1, 3))]
    engine = serve([Receipt("w", V1, "h", "h", 1)], first)
    engine.engine.told = [Receipt("w", V2, "g", "g", 2)]  # type: ignore[attr-defined]
    engine.publish(V2)  # type: ignore[arg-type]
    engine.engine.answers = [sample([1, 2, 3, 4], Served("w", 2, 3), V2)]  # type: ignore[attr-defined]
    with pytest.raises(RunError, match="stale cache"):
        engine.generate([])


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=12), st.data())
def test_the_account_of_prefixes_agrees_with_a_plain_search(prompts: list[list[int]], data: Any) -> None:
    answers, seen = [], []
    expected_fault = False
    for prompt in prompts:
        cached = data.draw(st.integers(0, len(prompt)))
        answers.append(sample(prompt, Served("w", 1, cached)))
        if cached and not any(old[:cached] == prompt[:cached] and len(old) >= cached for old in seen):
            expected_fault = True
            break
        seen.append(prompt)
    told = [Receipt("w", V1, "h", "h", 1)]
    if expected_fault:
        with pytest.raises(RunError, match="stale cache"):
            serve(told, answers)
    else:
        serve(told, answers)


def test_a_worker_replaced_on_the_way_must_prove_itself() -> None:
    engine = serve([Receipt("w", V1, "h", "h", 1)], [])
    engine.engine.told = [Receipt("w", V1, "other", "h", 1)]  # type: ignore[attr-defined]
    engine.engine.answers = [sample([1], Served("w", 1, 0))]  # type: ignore[attr-defined]
    engine.generate([])
    engine.engine.faults = {"worker_died": 1}  # type: ignore[attr-defined]
    with pytest.raises(RunError, match="check a"):
        engine.generate([])


class KnowsBetter:
    """A learner whose log-probs are −1 everywhere."""

    def logps(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        return [np.full(len(s.tokens_T), -1.0, np.float32) for s in samples]


def test_a_gap_of_log_probs_past_the_bound_stops() -> None:
    learner: Any = KnowsBetter()
    near = sample([1], Served("w"), logp=-1.0005)
    measured = check_agreement([near], learner, 1e-3)
    assert measured["freshness/gap"] == pytest.approx(5e-4, rel=1e-2)
    with pytest.raises(RunError, match="check b"):
        check_agreement([near, sample([1], Served("v"), logp=-1.002)], learner, 1e-3)
    with pytest.raises(RunError, match="check b"):
        check_agreement([replace(near, logp_T=np.full(2, np.nan, np.float32))], learner, 1e-3)


def test_every_worker_is_asked_and_long_samples_are_spared() -> None:
    learner: Any = KnowsBetter()
    workers = [sample([1] * 300, Served(f"w{i}"), index=j) for i in range(3) for j in range(4)]
    assert check_agreement(workers, learner, 1.0)["freshness/tokens"] == 3 * 2
