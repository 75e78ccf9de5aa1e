"""Workers of any engine in Ray actors, as one engine: publish to all, cut requests among them, replace the faulty.

Requests are cut by their order and the number of workers, never by who is free, so that the same batches are decoded
whatever happens; a share whose worker is lost is served again whole, with the same seeds, by a fresh worker that holds
the same version. So its samples are the same to the last bit, and nothing is lost or counted twice.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...parts import RunError
from ...records import Policy, Request, Sample, Version
from ..base import EnginePart, Receipt, Surroundings
from . import cluster, placement
from .actor import Place, Publication, Reply
from .checks import check_samples, check_version
from .crew import Call, Crew
from .faults import FaultError
from .options import Resources
from .snapshot import Snapshot


@dataclass(frozen=True)
class _Held:
    """What all workers hold: where it is, what it must read back as, and how many token ids there are."""

    publication: Publication
    expected: str
    vocab: int

    def check(self, reply: object) -> Reply:
        """See `check_version`."""
        return check_version(reply, self.publication.version)


class WorkerPool:
    """An engine of `workers` processes.

    One call at a time: `publish` waits for what is in flight. `close` may be called from any thread, at any time.
    """

    def __init__(self, part: EnginePart, surroundings: Surroundings, workers: int, resources: Resources) -> None:
        """Start the workers and open their engines.

        Raises:
            UserError: there is no room for them on this machine, or the engine cannot be opened so.
            RunError: there is no room in the cluster, or they die.
        """
        self._part, self._lock = part, threading.Lock()
        self._held: _Held | None = None
        self._crew: Crew | None = None
        logs = (surroundings.folder / "logs").resolve()
        logs.mkdir(parents=True, exist_ok=True)
        cluster.connect(logs)
        self._open = True
        try:
            one = placement.demand(resources)
            parcel = _parcel(part, _travelling(surroundings, "GPU" in one))
            self._crew = Crew(parcel, workers, one, resources, logs)
            self._crew.ask_all(Call("open"))
        except BaseException:
            self.close()
            raise

    @property
    def faults(self) -> Counter[str]:
        """How many workers were replaced, by the kind of fault."""
        return self._at_work().faults

    @property
    def places(self) -> list[Place | None]:
        """Where each worker runs; None for one that has not arrived yet."""
        return self._at_work().places

    def publish(self, policy: Policy) -> Version:
        """Send the policy, unless it is the one held already; returns when all workers hold it.

        Raises:
            UserError: the engine cannot serve such a policy.
            RunError: workers were lost too often.
        """
        with self._lock:
            version = Version(policy.number, policy.digest())
            held = self._held
            if held is None or held.publication.version.digest != version.digest:
                self._held = None  # frees the last snapshot before the next is made
                held = self._taken(policy, version)
            self._held = replace(held, publication=replace(held.publication, version=version))
            self._at_work().ask_all(Call("publish", (self._held.publication,), self._held.check))
            return version

    def receipts(self) -> list[Receipt]:
        """What each worker holds; `expected` is computed here, from the policy that was published.

        Raises:
            RunError: nothing is published, or workers were lost too often.
        """
        with self._lock:
            held = self._need("asking for receipts")
            replies = self._at_work().ask_all(Call("receipts", (held.publication,), held.check))
        return [replace(receipt, expected=held.expected) for reply in replies for receipt in reply.receipts]

    def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        """Samples of the version published last, in the requests' order.

        Raises:
            UserError: the engine's own, on a request.
            RunError: nothing is published, or a share of the requests lost its worker too often.
        """
        with self._lock:
            held, crew = self._need("generating"), self._at_work()
            shares = {i: share for i, share in enumerate(cut(requests, len(crew))) if share}
            answers = crew.ask({i: _generation(held, share) for i, share in shares.items()})
        return [samples for i in sorted(answers) for samples in answers[i]]

    def close(self) -> None:
        """End the workers, and Ray with them where it is ours; a call in flight ends in a RunError."""
        if not self._open:
            return
        self._open = False
        try:
            if self._crew is not None:
                self._crew.dismiss()
        finally:
            cluster.disconnect()

    def _taken(self, policy: Policy, version: Version) -> _Held:
        """The policy in the object store, and what workers must show that they hold of it."""
        import ray

        expected = self._part.expected(policy) if type(self._part).live else ""
        snapshot = ray.put(Snapshot.of(policy, self._part.form(policy)))
        vocab = int(policy.model_config.get_text_config().vocab_size)
        return _Held(Publication(version, snapshot), expected, vocab)

    def _need(self, what: str) -> _Held:
        if self._held is None:
            raise RunError(f"the workers hold no policy; publish one before {what}")
        return self._held

    def _at_work(self) -> Crew:
        assert self._crew is not None
        return self._crew


def cut(requests: Sequence[Request], workers: int) -> list[Sequence[Request]]:
    """Contiguous shares, one a worker, whose sizes differ by one at most; some are empty where there are few."""
    ends = [len(requests) * (i + 1) // workers for i in range(workers)]
    return [requests[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _generation(held: _Held, share: Sequence[Request]) -> Call:
    """Ask for samples; a worker that had to take the version for it shows first that it holds what was sent."""

    def check(answer: object) -> list[list[Sample]]:
        reply = held.check(answer)
        if any(receipt.held != held.expected for receipt in reply.receipts):
            raise FaultError("worker_rubbish", "it holds other tensors than were published")
        return check_samples(reply, share, held.publication.version, held.vocab)

    return Call("generate", (held.publication, share), check)


def _travelling(surroundings: Surroundings, on_gpu: bool) -> Surroundings:
    """As they are in a worker: with the device that it computes on, and paths that do not depend on where it starts."""
    model = surroundings.model
    model = str(Path(model).resolve()) if Path(model).exists() else model
    device = "cuda" if on_gpu else "cpu"
    return replace(surroundings, device=device, folder=surroundings.folder.resolve(), model=model)


def _parcel(part: EnginePart, surroundings: Surroundings) -> Any:
    """Ray's reference of what every worker is opened with. An engine from a user's file travels with its code."""
    import ray
    from ray import cloudpickle

    module = sys.modules[type(part).__module__]
    if module.__name__.startswith("underdog_user_"):
        cloudpickle.register_pickle_by_value(module)
    return ray.put((part, surroundings))
