"""Ctrl-C that waits: where an interruption would be lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def uninterrupted() -> Iterator[None]:
    """SIGINT and SIGTERM take effect when the block has ended.

    Python throws away what is raised in a callback of a C library, and a compiler calls back all the time.
    """
    if threading.current_thread() is not threading.main_thread():  # no other may handle signals
        yield
        return
    waiting: list[int] = []
    before: dict[int, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, lambda received, _: waiting.append(received))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in waiting[:1]:
            signal.raise_signal(number)
