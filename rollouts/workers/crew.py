"""The actors behind a pool: hired, asked, and replaced when they are at fault."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...parts import RunError
from . import placement
from .actor import Place, Worker
from .faults import FaultError, fault_of
from .options import Resources

log = logging.getLogger(__name__)

CLOSING_SECONDS = 5.0
"""For idle workers to free what they hold; others are killed at once."""
GLANCE_SECONDS = 1.0
"""Between looks at whether the crew was dismissed from another thread."""


@dataclass(frozen=True)
class Call:
    """What one worker is asked, and how its answer is told from rubbish (by raising a FaultError)."""

    method: str
    arguments: tuple[Any, ...] = ()
    check: Callable[[Any], Any] = lambda answer: answer


@dataclass(frozen=True)
class _Asked:
    """A question under way: Ray's reference of the answer, when it is given up, and what is awaited."""

    answer: Any
    deadline: float
    seconds: float
    arriving: bool
    """Whether the worker has yet to say that it is there; only then it is asked."""


@dataclass
class _Hired:
    """One worker as the crew sees it."""

    actor: Any
    place: Place | None = None
    opened: bool = False
    busy: bool = False


class Crew:
    """`workers` actors, each in a place of its own in a placement group; `faults` counts what happened to them.

    One `ask` at a time. `dismiss` may be called from any thread, at any time.
    """

    def __init__(self, parcel: Any, workers: int, one: dict[str, float], resources: Resources, logs: Path) -> None:
        """Start them; each opens the engine of `parcel` when first asked for something.

        Raises:
            UserError: there is no room for them on this machine.
            RunError: there is none in the cluster.
        """
        self.faults: Counter[str] = Counter()
        self._parcel, self._one, self._resources, self._logs = parcel, one, resources, logs
        self._asking, self._dismissed = threading.Lock(), False
        self._group = placement.reserve(workers, one, resources)
        self._hired = [self._hire(i) for i in range(workers)]

    def __len__(self) -> int:
        return len(self._hired)

    @property
    def places(self) -> list[Place | None]:
        """Where each worker runs; None for one that has not arrived yet."""
        return [hired.place for hired in self._hired]

    def ask_all(self, call: Call) -> list[Any]:
        """The same of every worker; see `ask`."""
        answers = self.ask(dict.fromkeys(range(len(self)), call))
        return [answers[i] for i in range(len(self))]

    def ask(self, calls: Mapping[int, Call]) -> dict[int, Any]:
        """Each worker's checked answer; one at fault is replaced, and its call made again, whole.

        Raises:
            UserError, RunError: the engine's own.
            RunError: a call lost its worker too often, no room for another was found, or the crew was dismissed.
        """
        with self._asking:
            answers: dict[int, Any] = {}
            lost: Counter[int] = Counter()
            asked = {i: self._send(i, call) for i, call in calls.items()}
            while asked:
                for i in self._due(asked):
                    question = asked.pop(i)
                    try:
                        answer = self._take(question)
                        if not question.arriving:
                            answers[i] = calls[i].check(answer)
                            self._hired[i].opened, self._hired[i].busy = True, False
                            continue
                        self._hired[i].place = answer
                    except FaultError as fault:
                        lost[i] += 1
                        self._replace(i, fault, lost[i])
                    asked[i] = self._send(i, calls[i])
            return answers

    def dismiss(self) -> None:
        """End them all; an `ask` in flight ends in a RunError."""
        import ray
        from ray.util.placement_group import remove_placement_group

        self._dismissed = True
        leaving = [hired.actor.close.remote() for hired in self._hired if hired.opened and not hired.busy]
        if leaving:
            ray.wait(leaving, num_returns=len(leaving), timeout=CLOSING_SECONDS)
        for hired in self._hired:
            ray.kill(hired.actor)
        remove_placement_group(self._group)
        if self._asking.acquire(timeout=CLOSING_SECONDS):  # whoever asks leaves now; Ray must not go before
            self._asking.release()

    def _send(self, i: int, call: Call) -> _Asked:
        """Ask worker `i`; a fresh one is first asked where it is, since the cluster may need to find room for it."""
        hired, limits = self._hired[i], self._resources
        hired.busy = True
        if hired.place is None:
            return _Asked(hired.actor.ping.remote(), time.monotonic() + limits.start, limits.start, arriving=True)
        seconds = limits.timeout if hired.opened else limits.start + limits.timeout
        answer = getattr(hired.actor, call.method).remote(*call.arguments)
        return _Asked(answer, time.monotonic() + seconds, seconds, arriving=False)

    def _due(self, asked: Mapping[int, _Asked]) -> list[int]:
        """Workers that have answered, or whose time is over; waits until there is one.

        Raises:
            RunError: the crew was dismissed.
        """
        import ray

        of = {question.answer: i for i, question in asked.items()}
        while True:
            left = min(question.deadline for question in asked.values()) - time.monotonic()
            ready, _ = ray.wait(list(of), timeout=min(max(left, 0.0), GLANCE_SECONDS), fetch_local=False)
            if self._dismissed:
                raise RunError("the workers were closed while they worked")
            if ready:
                return [of[answer] for answer in ready]
            late = [i for i, question in asked.items() if question.deadline <= time.monotonic()]
            if late:
                return late

    def _take(self, question: _Asked) -> Any:
        """The answer.

        Raises:
            FaultError: there is none.
            UserError, RunError: the engine's own.
        """
        import ray
        from ray import exceptions

        try:
            return ray.get(question.answer, timeout=max(question.deadline - time.monotonic(), GLANCE_SECONDS))
        except exceptions.GetTimeoutError:
            if question.arriving:
                raise RunError(
                    f"the Ray cluster found no room for a worker within {question.seconds:g} s; lower "
                    "rollouts.workers or rollouts.resources, or raise rollouts.resources.start"
                ) from None
            raise FaultError("worker_hung", f"it gave no answer within {question.seconds:g} s") from None
        except exceptions.RayError as error:
            raise fault_of(error) from None

    def _replace(self, i: int, fault: FaultError, times: int) -> None:
        """A fresh worker in place of one at fault.

        Raises:
            RunError: it has happened too often, or the crew was dismissed.
        """
        import ray

        if self._dismissed:
            raise RunError("the workers were closed while they worked")
        self.faults[fault.kind] += 1
        place = self._hired[i].place
        where = f" (process {place.pid} on {place.host})" if place else ""
        ray.kill(self._hired[i].actor)
        if times > self._resources.replacements:
            raise RunError(
                f"{name(i)} was lost {times} times in a row, at last so: {fault}; see {self._logs / name(i)}.log, "
                "or raise rollouts.resources.replacements"
            )
        log.warning("%s%s is replaced, and serves its share again (%s): %s", name(i), where, fault.kind, fault)
        self._hired[i] = self._hire(i)

    def _hire(self, i: int) -> _Hired:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        options = {
            "num_cpus": self._one["CPU"],
            "num_gpus": self._one.get("GPU", 0),
            "max_restarts": 0,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=i),
        }
        start = ray.remote(Worker).options(**options)
        return _Hired(start.remote(name(i), self._parcel, self._resources.threads, self._logs / f"{name(i)}.log"))


def name(i: int) -> str:
    """Of the worker with the number `i`, as samples and logs carry it."""
    return f"worker-{i}"
