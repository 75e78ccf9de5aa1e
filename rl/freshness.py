"""The proof that rollouts came from the policy being trained: three checks, since each sees what the others cannot.

(a) *held*: after each publication every worker reads the tensors back from inside its engine; their digest must be the
    policy's own, taken here. Sees an old adapter, a wrong scaling, a half-done refresh, however little it differs.
(b) *agree*: the learner computes the log-probs of a few sampled tokens again. Sees whatever the engine computes wrongly
    with the right tensors, as far as it is larger than rounding.
(c) *served*: every sample says under which adapter it ran and how much of its prompt came from a prefix cache. Sees an
    adapter that is held and ignored, and a cache that outlived its version.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..parts import RunError
from ..records import Policy, Request, Sample, Version
from ..rollouts.base import Engine, Receipt

if TYPE_CHECKING:
    from .learner.group import LearnerGroup
    from .learner.learner import Learner

SPOT_SAMPLES = 2
"""Samples of each worker that the learner computes again: its shortest, which cost least."""
SPOT_TOKENS = 512
"""Tokens of prompt and completion, for one worker, beyond which the second one is left out."""
BOUNDS = {"float32": 1e-3, "bfloat16": 1.0}
"""Largest gap of a token's log-probs, nats. Healthy engines stay below 1e-4 and 0.3 (measured)."""


class Proven:
    """An engine, each publication and each sample of which is checked: (a) and (c)."""

    def __init__(self, engine: Engine) -> None:
        """`turn` is held by whoever must not see a publication in between."""
        self.engine = engine
        self.turn = threading.RLock()
        self._holders: dict[str, _Holder] = {}
        self._mended = 0

    @property
    def faults(self) -> Mapping[str, int]:
        """What went wrong with workers and was mended, by kind, so far."""
        return self.engine.faults

    def publish(self, policy: Policy) -> Version:
        """Publish, once nothing that needs the version before is under way, and have every worker prove it.

        Raises:
            RunError: a worker holds other tensors than the policy's.
        """
        with self.turn:
            version = self.engine.publish(policy)
            self._take(self.engine.receipts())
            return version

    def receipts(self) -> list[Receipt]:
        """The engine's own."""
        return self.engine.receipts()

    def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        """Samples, each of which ran as the published version.

        Raises:
            RunError: a sample ran under another adapter, or on a cache that another version filled.
        """
        answered = self.engine.generate(requests)
        if sum(self.faults.values()) != self._mended:
            self._take(self.engine.receipts())  # a worker was replaced on the way: it must prove itself too
        for samples in answered:
            for sample in samples:
                if (holder := self._holders.get(sample.served.worker)) is not None:
                    holder.check(sample)
        return answered

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()

    def _take(self, receipts: Iterable[Receipt]) -> None:
        """Check (a), and begin the account of (c) anew for every worker whose receipt changed."""
        holders = {}
        self._mended = sum(self.faults.values())
        for receipt in receipts:
            check_held(receipt)
            known = self._holders.get(receipt.worker)
            holders[receipt.worker] = known if known and known.receipt == receipt else _Holder(receipt)
        self._holders = holders


def check_held(receipt: Receipt) -> None:
    """Check (a).

    Raises:
        RunError: the tensors inside the engine are not the version's.
    """
    if receipt.held != receipt.expected:
        raise RunError(
            f"{_who(receipt.worker)} holds tensors {receipt.held[:12]} where version {receipt.version.number} is "
            f"{receipt.expected[:12]}: it serves an older adapter, or scales or merges it wrongly (check a: held)"
        )


@dataclass
class _Holder:
    """One worker's version, and the prompts that it has computed under it."""

    receipt: Receipt
    prompts: list[bytes] = field(default_factory=list)

    def check(self, sample: Sample) -> None:
        """Check (c) of one sample, in the order in which the worker was asked."""
        served, version = sample.served, self.receipt.version
        if served.adapter != self.receipt.adapter:
            ran = "no adapter" if served.adapter is None else f"adapter {served.adapter}"
            raise RunError(
                f"{_who(served.worker)} ran a request under {ran} where version {version.number} is adapter "
                f"{self.receipt.adapter}: the rollouts are not the policy being trained (check c: served)"
            )
        prompt = np.asarray(sample.prompt_ids, dtype=">i4").tobytes()
        shared = prompt[: 4 * served.cached]
        place = bisect.bisect_left(self.prompts, shared)
        if served.cached and not (place < len(self.prompts) and self.prompts[place].startswith(shared)):
            raise RunError(
                f"{_who(served.worker)} took {served.cached} tokens from a prefix cache, of a prompt that version "
                f"{version.number} had never met: another version filled that cache (check c: stale cache)"
            )
        place = bisect.bisect_left(self.prompts, prompt)
        if place == len(self.prompts) or self.prompts[place] != prompt:
            self.prompts.insert(place, prompt)


def check_agreement(samples: Sequence[Sample], learner: Learner | LearnerGroup, bound: float) -> dict[str, float]:
    """Check (b) on a few samples of every worker: `freshness/gap`, `freshness/kl` (k3), `freshness/tokens`.

    Raises:
        RunError: the largest gap between the engine's log-probs and the learner's is above `bound` nats.
    """
    chosen = _spot(samples)
    if not chosen:
        return {"freshness/tokens": 0.0}
    own = np.concatenate(learner.logps(chosen)).astype(np.float64)
    gap_T = own - np.concatenate([s.logp_T for s in chosen if s.logp_T is not None])
    largest = float(np.abs(gap_T).max())
    if not largest <= bound:
        raise RunError(
            f"a token's log-prob differs by {largest:.3g} between engine and learner, over the bound of {bound:g} "
            "(rollouts.max_gap): most likely the engine serves another policy (an adapter ignored, stale or scaled "
            "wrongly), or other arithmetic than the learner's (check b: agree)"
        )
    kl = float((np.expm1(gap_T) - gap_T).mean())
    return {"freshness/gap": largest, "freshness/kl": kl, "freshness/tokens": float(len(gap_T))}


def _spot(samples: Sequence[Sample]) -> list[Sample]:
    """The shortest samples of each worker, in a fixed order."""
    chosen: list[Sample] = []
    by_worker: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.logp_T is not None:
            by_worker.setdefault(sample.served.worker, []).append(sample)
    for worker in sorted(by_worker):
        own = sorted(by_worker[worker], key=lambda s: (len(s.prompt_ids) + len(s.tokens_T), s.problem_id, s.index))
        first, *others = own[:SPOT_SAMPLES]
        size = len(first.prompt_ids) + len(first.tokens_T)
        chosen += [first, *(s for s in others if size + len(s.prompt_ids) + len(s.tokens_T) <= SPOT_TOKENS)]
    return chosen


def _who(worker: str) -> str:
    return worker or "the engine"
