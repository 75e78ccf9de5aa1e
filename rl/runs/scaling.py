"""How long a step takes by its stage times, and when more workers stop helping.

With w workers a step generates for g seconds, of which a share f would be there however many workers share the requests
(a batch takes as many decoding steps as its longest completion has tokens). With N workers that is

    G(N) = g (f + (1 - f) w / N).

Strictly on policy everything happens in turn; one update off, generation and verification run beside the learner:

    T = p + G(N) + v + l          or          T = p + max(G(N) + v, l),

with p, v and l the seconds of publishing, verifying and of all that the learner's process does besides. No step is
shorter than the work of all processes divided by the cores they share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OVERLAPPED = ("generate", "verify")
"""Stages that run beside the learner when samples may be one update old."""
WORTH = 0.05
"""Share of a step that another worker must save to be worth it."""


@dataclass(frozen=True)
class StageTimes:
    """Seconds a step, as measured with `workers` workers."""

    publish: float
    generate: float
    verify: float
    learn: float
    workers: int = 1

    @classmethod
    def of(cls, metrics: Sequence[Mapping[str, float]], workers: int, overlapped: bool) -> StageTimes:
        """The mean over steps of a run's metrics; `overlapped`: samples were generated beside the learner."""

        timed = [row for row in metrics if "time/step" in row]  # an evaluation of the base has none

        def mean(name: str) -> float:
            return sum(row.get(f"time/{name}", 0.0) for row in timed) / max(len(timed), 1)

        beside = ("wait",) if overlapped else OVERLAPPED
        learn = mean("step") - mean("publish") - sum(map(mean, beside))
        return cls(mean("publish"), mean("generate"), mean("verify"), max(learn, 0.0), workers)


def step_seconds(
    times: StageTimes, workers: int, *, overlapped: bool, fixed: float = 0.0, cores: int | None = None
) -> float:
    """Seconds a step with `workers` workers of one thread each.

    `fixed` is the share f of generation that more workers do not shorten; `cores` bounds what may run at once (None:
    every process has its own).
    """
    generate = times.generate * (fixed + (1 - fixed) * times.workers / workers)
    beside = generate + times.verify
    turns = max(beside, times.learn) if overlapped else beside + times.learn
    if cores is None:
        return times.publish + turns
    work = workers * generate + times.verify + times.learn
    at_once = 1 + workers if overlapped else workers
    return times.publish + (max(turns, work / cores) if at_once > cores else turns)


def enough_workers(times: StageTimes, *, overlapped: bool, fixed: float = 0.0, most: int = 64) -> int:
    """The number of workers beyond which doubling them saves less than `WORTH` of a step."""
    workers = 1
    while workers < most:
        now = step_seconds(times, workers, overlapped=overlapped, fixed=fixed)
        if now - step_seconds(times, 2 * workers, overlapped=overlapped, fixed=fixed) < WORTH * now:
            break
        workers *= 2
    return workers
