"""Worker processes that judge hostile text: limited in time and memory, killed with their group, replaced.

Requests and replies are JSON lines over pipes; nothing that a worker writes is ever unpickled or evaluated.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast, get_args

from ..records import Outcome, Verdict
from .cache import VerdictCache

START_SECONDS = 120.0
"""For a worker to import its judge, on a machine that has other work to do."""
START_ATTEMPTS = 3
"""Workers tried for one submission while they die before it reaches them."""
MAX_REPLY = 65536
"""Bytes of a reply; a worker that writes more without a line break is taken for crashed."""

AHEAD = 4
"""Requests a worker that `imap` reads ahead of the verdict that it hands out next."""

_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
_BOOT = (
    "import importlib, json, sys; spec = json.loads(sys.argv[1]); sys.path[:] = spec['path']; "
    "importlib.import_module(spec['serve']).serve(spec)"
)


@dataclass(frozen=True)
class Limits:
    """What one submission may use: `seconds` of wall clock, `memory_mib` of address space."""

    seconds: float
    memory_mib: int


class DiedError(Exception):
    """A worker ended before it answered: `reason` timeout, crash or killed; `ours`: before it took the submission."""

    def __init__(self, reason: str, ours: bool = True, seconds: float = 0.0):
        super().__init__(reason)
        self.reason = reason
        self.ours = ours
        self.seconds = seconds


class NotStartedError(Exception):
    """A worker that could not even import its judge."""


class Pool:
    """Judges requests side by side on at most `workers` processes, which start when first needed.

    `judge` names the module whose `judge` the workers run, see `jail.serve.Judge`. Several threads may use one pool;
    they share its workers and the `cache` last verdicts. A pool travels, to a Ray actor say, as its options: the copy
    starts workers of its own.
    """

    def __init__(self, judge: str, workers: int, limits: Limits, cache: int = 0):
        self._judge = judge
        self._workers = workers
        self._limits = limits
        self._cache_size = cache
        self._reset()
        _POOLS.add(self)

    def _reset(self) -> None:
        """As if new. A fork must not speak to the workers of the process that it came from."""
        self._cache = VerdictCache(self._cache_size)
        self._idle: list[_Worker] = []
        self._alive: set[_Worker] = set()
        self._busy = 0
        self._alone = 0
        self._free = threading.Condition()
        self._finalizer = weakref.finalize(self, _kill_all, self._alive, os.getpid())

    def __reduce__(self) -> tuple[Any, ...]:
        return Pool, (self._judge, self._workers, self._limits, self._cache_size)

    def __eq__(self, other: object) -> bool:
        """Pools that would do the same are equal, so that parts which hold them compare by their options."""
        return isinstance(other, Pool) and self.__reduce__() == other.__reduce__()

    __hash__ = object.__hash__

    def map(self, requests: Iterable[Mapping[str, Any]]) -> list[Verdict]:
        """One verdict a request, in order."""
        return list(self.imap(requests))

    def imap(self, requests: Iterable[Mapping[str, Any]]) -> Iterator[Verdict]:
        """One verdict a request, in order, as they are asked for.

        Reads no more than `AHEAD` requests a worker ahead, so the requests may be an endless stream.
        """
        if self._workers == 1:
            yield from map(self._remembered, requests)
            return
        pending: deque[Future[Verdict]] = deque()
        with ThreadPoolExecutor(self._workers, thread_name_prefix="verifier") as threads:
            try:
                for request in requests:
                    pending.append(threads.submit(self._remembered, request))
                    if len(pending) >= AHEAD * self._workers:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    async def amap(self, requests: Iterable[Mapping[str, Any]]) -> list[Verdict]:
        """`map` without blocking the event loop."""
        return await asyncio.to_thread(self.map, requests)

    def close(self) -> None:
        """Kill all workers. The pool may be used again: it starts new ones."""
        with self._free:
            idle, self._idle = self._idle, []
            for worker in self._alive:
                worker.kill()
        for worker in idle:  # the busy ones are dropped by the threads that wait for them
            self._drop(worker)

    def _remembered(self, request: Mapping[str, Any]) -> Verdict:
        return self._cache.get(request, self._verdict)

    def _verdict(self, request: Mapping[str, Any]) -> Verdict:
        """Judge, and once more, alone, when the worker was killed from outside. A submission can kill its own
        process, so a second death of any cause is its own."""
        try:
            try:
                return self._ask(request, alone=False)
            except DiedError as death:
                if death.reason != "killed":
                    if death.ours:
                        return Verdict("could_not_grade", "gold", death.seconds, death.reason)
                    return Verdict("wrong", death.reason, death.seconds)
            try:
                return self._ask(request, alone=True)
            except DiedError as death:
                return Verdict("wrong", "crash", death.seconds, f"killed, then {death.reason}")
        except NotStartedError as error:
            return Verdict("could_not_grade", "no_worker", 0.0, str(error))

    def _ask(self, request: Mapping[str, Any], alone: bool) -> Verdict:
        with self._turn(alone):
            for _ in range(START_ATTEMPTS):
                # The second try gets a new worker: whatever killed the first one may have killed idle ones too.
                worker = self._start() if alone else self._take()
                keep = reached = False
                try:
                    worker.wait_until_ready()
                    worker.send(request)
                    reached = True
                    verdict, keep = worker.reply(self._limits.seconds)
                    return verdict
                except (DiedError, OSError):
                    if reached:
                        raise
                finally:
                    self._give_back(worker, keep)
        raise NotStartedError("workers die before a submission reaches them")

    @contextmanager
    def _turn(self, alone: bool) -> Iterator[None]:
        """A slot among the workers; `alone` waits until no other submission is judged, and holds all others off."""
        with self._free:
            if alone:
                self._alone += 1
                self._free.wait_for(lambda: self._busy == 0)
            else:
                self._free.wait_for(lambda: self._alone == 0 and self._busy < self._workers)
            self._busy += 1
        try:
            yield
        finally:
            with self._free:
                self._busy -= 1
                self._alone -= alone
                self._free.notify_all()

    def _start(self) -> _Worker:
        worker = _Worker(self._judge, self._limits)
        with self._free:
            self._alive.add(worker)
        return worker

    def _give_back(self, worker: _Worker, keep: bool) -> None:
        """Make a worker available again, or replace it. Where there are several, or one has died, there is a spare one
        beyond those that can be busy, so that nobody waits for a replacement's start."""
        if keep and len(self._alive) <= self._workers + 1:
            with self._free:
                self._idle.append(worker)
        else:
            self._drop(worker)
        for _ in range(1 if keep else 2):
            if len(self._alive) <= self._workers and (self._workers > 1 or not keep):
                fresh = self._start()  # makes itself ready while others work
                with self._free:
                    self._idle.append(fresh)

    def _take(self) -> _Worker:
        with self._free:
            ready = next((worker for worker in self._idle if worker.is_ready()), None)
            worker = ready or (self._idle[0] if self._idle else None)
            if worker is not None:
                self._idle.remove(worker)
        return worker or self._start()

    def _drop(self, worker: _Worker) -> None:
        worker.close()
        with self._free:
            self._alive.discard(worker)


class _Worker:
    """One process in a session of its own, seen from the parent."""

    def __init__(self, judge: str, limits: Limits):
        spec = {
            "judge": judge,
            "serve": f"{__package__}.jail.serve",
            "path": [entry for entry in sys.path if entry],
            "seconds": limits.seconds,
            "memory_mib": limits.memory_mib,
        }
        self._buffer = b""
        self._ready = False
        self._process = subprocess.Popen(
            # -P keeps a `math.py` in some working directory from standing before Python's own.
            [sys.executable, "-P", "-c", _BOOT, json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            # A fixed hash seed: sympy walks sets, and the same pair must get the same verdict every time.
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )

    def is_ready(self) -> bool:
        """Whether `wait_until_ready` would return at once."""
        return self._ready or bool(self._poll(0.0))

    def wait_until_ready(self) -> None:
        """Wait, if need be, until the worker has said that it is ready.

        Raises:
            NotStartedError: it lacks a package.
            DiedError: it ended, or took longer than `START_SECONDS`.
        """
        if not self._ready:
            line = self._line(time.monotonic() + START_SECONDS)
            if "missing" in line:
                raise NotStartedError(f"a worker lacks a package: {line['missing']}")
            self._ready = True

    def send(self, request: Mapping[str, Any]) -> None:
        """Hand over a request; requests are far smaller than a pipe, so this does not wait.

        Raises:
            OSError: the worker is dead.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode("ascii") + b"\n")

    def reply(self, seconds: float) -> tuple[Verdict, bool]:
        """The verdict on the request just sent, and whether the worker goes on.

        Raises:
            DiedError: there is no verdict, or none that makes sense, within `seconds`.
        """
        start = time.monotonic()
        ours = True
        try:
            line = self._line(start + seconds)
            while line.get("stage") == "submission":
                ours = False
                line = self._line(start + seconds)
            outcome, reason, detail = (line.get(key) for key in ("outcome", "reason", "detail"))
            if outcome not in get_args(Outcome) or not isinstance(reason, str) or not isinstance(detail, str):
                raise DiedError("crash")
            return Verdict(cast(Outcome, outcome), reason, time.monotonic() - start, detail), line.get("last") is False
        except DiedError as death:
            raise DiedError(death.reason, ours, time.monotonic() - start) from None

    def kill(self) -> None:
        """End the worker and all that it may have started."""
        if self._process.returncode is None:  # not reaped, so its id cannot have passed to another group
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        """Kill it and close its pipes; only for the thread that uses it."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _line(self, deadline: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not self._poll(left):
                raise DiedError("timeout")
            chunk = os.read(self._process.stdout.fileno(), 65536)
            if not chunk:
                raise DiedError(self._cause())
            self._buffer += chunk
            if len(self._buffer) > MAX_REPLY:
                raise DiedError("crash")
        text, _, self._buffer = self._buffer.partition(b"\n")
        try:
            line = json.loads(text)
        except ValueError:
            raise DiedError("crash") from None
        if not isinstance(line, dict):
            raise DiedError("crash")
        return line

    def _poll(self, seconds: float) -> list[tuple[int, int]]:
        """Wait until there is something to read, or nothing to come."""
        assert self._process.stdout is not None
        poll = select.poll()
        poll.register(self._process.stdout.fileno(), select.POLLIN | select.POLLHUP)
        return poll.poll(seconds * 1000)

    def _cause(self) -> str:
        """Why a worker whose pipe closed has ended."""
        self.kill()  # an exit status that is already there stays what it is
        code = self._process.returncode
        if code == -signal.SIGXCPU:
            return "timeout"
        return "killed" if -code in _FROM_OUTSIDE else "crash"


_POOLS: weakref.WeakSet[Pool] = weakref.WeakSet()


def _reset_all() -> None:
    for pool in list(_POOLS):
        pool._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)


def _kill_all(workers: set[_Worker], owner: int) -> None:
    if os.getpid() != owner:  # a fork of the owner: the workers are not its own
        return
    while workers:
        workers.pop().kill()
