"""The loop of a worker process: one JSON object a line in, one verdict a line out, under resource limits.

The parent starts it, kills it, and believes nothing that it writes beyond the few words of a reply.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

Judge = Callable[[dict[str, Any], Callable[[], None]], tuple[str, str]]
"""Judges one request: outcome and reason. It calls its second argument once what is ours (the gold answer) is read:
from there on a time-out, a crash or exhausted memory is the submission's own."""


def serve(spec: dict[str, Any]) -> None:
    """Answer requests from standard input until it closes.

    `spec`: `judge` (a module that holds a `judge`, see `Judge`); `seconds` and `memory_mib` for one submission.
    """
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever a library prints must not look like a reply

    def send(**reply: Any) -> None:
        replies.write(json.dumps(reply) + "\n")
        replies.flush()

    try:
        judge: Judge = importlib.import_module(spec["judge"]).judge
    except ImportError as error:
        send(missing=str(error))
        return
    _limit(spec["memory_mib"])
    send(ready=True)
    for line in sys.stdin:
        _allow_cpu(spec["seconds"])
        ours = True

        def submission() -> None:
            nonlocal ours
            ours = False
            send(stage="submission")

        fault = detail = ""
        outcome, reason = "could_not_grade", "gold"
        try:
            outcome, reason = judge(json.loads(line), submission)
        except MemoryError:
            fault = "memory"
        except Exception as error:  # a RecursionError, say: the submission has broken the library that read it
            fault, detail = "crash", type(error).__name__
        if fault:
            outcome, reason = ("could_not_grade", "gold") if ours else ("wrong", fault)
        last = fault == "memory" or _peak_mib() > spec["memory_mib"] / 2
        send(outcome=outcome, reason=reason, detail=detail, last=last)
        if last:  # what this submission left behind must not be held against the next one
            return


def _limit(memory_mib: int) -> None:
    size = memory_mib * 2**20
    for kind, limit in ((resource.RLIMIT_AS, size), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        try:
            resource.setrlimit(kind, (limit, limit))
        except (OSError, ValueError):  # macOS refuses RLIMIT_AS; the time limits still hold
            continue


def _allow_cpu(seconds: float) -> None:
    """A processor-time limit, which also ends a worker whose parent is gone."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = int(usage.ru_utime + usage.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _peak_mib() -> float:
    """The largest memory that this process held: getrusage alone would count its parent's too, from before exec."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**10
    except (FileNotFoundError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
