"""Seconds by stage of a step: `with clock("generate"): …`, logged as time/<stage>, and when each block ran."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Span(NamedTuple):
    """One block of work: when it began and ended, in seconds since the clock was made."""

    stage: str
    lane: str
    """`main`, or `ahead` for what another thread than the clock's maker does meanwhile."""
    start: float
    end: float


class Clock:
    """Adds up the seconds spent in each stage since the last `take`. Threads may share it."""

    def __init__(self) -> None:
        self.made = self.started = time.perf_counter()
        self._home = threading.current_thread()
        self._spans: list[Span] = []
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time one block as part of `stage`."""
        start = time.perf_counter() - self.made
        try:
            yield
        finally:
            lane = "main" if threading.current_thread() is self._home else "ahead"
            with self._lock:
                self._spans.append(Span(stage, lane, start, time.perf_counter() - self.made))

    def take(self) -> tuple[dict[str, float], list[Span]]:
        """time/<stage> and time/step since the last take, memory/peak_mib of the process; and the blocks.

        A block in the background counts in the step in which it ends, so stages may add up to more than the step.
        """
        now = time.perf_counter()
        with self._lock:
            spans, self._spans = self._spans, []
        metrics: dict[str, float] = {}
        for span in spans:
            metrics[f"time/{span.stage}"] = metrics.get(f"time/{span.stage}", 0.0) + span.end - span.start
        metrics["time/step"] = now - self.started
        metrics["memory/peak_mib"] = peak_mib()
        self.started = now
        return metrics, spans


def peak_mib() -> float:
    """The process's largest resident memory so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
