"""Identical requests are judged once: verdicts remembered by the content of the request, in bounded memory."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from ..records import Verdict

CHANCE = ("timeout", "memory", "crash")
"""Reasons that a busy machine may have caused: true for now, but not to be held against a submission for ever."""


class VerdictCache:
    """The last `size` verdicts; requests that are being judged are waited for, not judged twice. Any thread may ask."""

    def __init__(self, size: int):
        self._size = size
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, Verdict] = OrderedDict()
        self._running: dict[bytes, Future[Verdict]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, request: Mapping[str, Any], judge: Callable[[Mapping[str, Any]], Verdict]) -> Verdict:
        """The verdict on a request: remembered, awaited from another thread, or judged now."""
        if not self._size:
            return judge(request)
        key = hashlib.sha256(json.dumps(request, sort_keys=True).encode("ascii")).digest()
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
            running = self._running.get(key)
            mine: Future[Verdict] = Future()
            if running is None:
                self._running[key] = mine
        if running is not None:
            return running.result()
        try:
            verdict = judge(request)
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(verdict)
            return verdict
        finally:
            self._finish(key, mine)

    def _finish(self, key: bytes, done: Future[Verdict]) -> None:
        with self._lock:
            del self._running[key]
            if done.exception() is not None:
                return
            verdict = done.result()
            if verdict.outcome != "could_not_grade" and verdict.reason not in CHANCE:
                self._known[key] = replace(verdict, seconds=0.0)
                if len(self._known) > self._size:
                    self._known.popitem(last=False)
