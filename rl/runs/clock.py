"""Seconds by stage of a step: `with clock("generate"): …`, logged as time/<stage>."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Adds up the seconds spent in each stage since the last `take`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.started = time.perf_counter()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time one block as part of `stage`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def take(self) -> dict[str, float]:
        """time/<stage> and time/step since the last take, and memory/peak_mib of the process."""
        now = time.perf_counter()
        metrics = {f"time/{stage}": seconds for stage, seconds in self.seconds.items()}
        metrics["time/step"] = now - self.started
        metrics["memory/peak_mib"] = peak_mib()
        self.seconds, self.started = {}, now
        return metrics


def peak_mib() -> float:
    """The process's largest resident memory so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
