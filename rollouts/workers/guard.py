"""Keeps a Ray of a run's own: starts it, says where it is, and leaves nothing of it when the run is done or dead.

It runs in a session of its own, so that what a terminal or a batch system sends to the run's processes does not reach
Ray before the run has said good-bye to it. However the run ends (by SIGKILL too), its end of the pipe to our stdin
closes. Ray's processes then have a moment to leave by themselves (its agents would stay for a minute, workers' children
for good); those that do not are killed, Ray's logs go to the run's, and the folder that it worked in is removed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

GRACE = 2.0
"""Seconds in which Ray's processes may leave by themselves."""


def ours(mark: str, temp: Path) -> list[psutil.Process]:
    """Living processes that carry `mark` in their environment, and Ray's agents, which hide it, by their log files."""
    below = f"{temp}{os.sep}"
    return [
        process for process in psutil.process_iter() if process.pid != os.getpid() and _is_ours(process, mark, below)
    ]


def _is_ours(process: psutil.Process, mark: str, below: str) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if mark in process.environ().values():
            return True
        return process.name().startswith("ray::") and any(f.path.startswith(below) for f in process.open_files())
    except psutil.Error:  # gone, or another user's
        return False


def end(mark: str, temp: Path) -> None:
    """Wait for all that is ours to leave, then kill what is left."""
    deadline = time.monotonic() + GRACE
    while (left := ours(mark, temp)) and time.monotonic() < deadline:
        time.sleep(0.1)
    while left:
        _kill(left)
        left = ours(mark, temp)


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
            process.wait(1.0)


def settle(temp: Path, logs: Path) -> None:
    """Move each session's logs below `logs`, where its parent is still there, and remove `temp`."""
    for session in temp.glob("session_2*"):
        if logs.parent.is_dir() and not session.is_symlink() and (session / "logs").is_dir():
            logs.mkdir(exist_ok=True)
            with contextlib.suppress(OSError):  # a full disk, say: the run's own files matter more
                shutil.move(session / "logs", logs / session.name)
    shutil.rmtree(temp, ignore_errors=True)


def start(temp: Path, store: int) -> str:
    """Start Ray with its files in `temp` and `store` bytes for objects; its address. No dashboard, no usage report."""
    import ray
    from ray._private import worker

    logging.getLogger("ray").setLevel(logging.ERROR)
    worker.print_to_stdstream = lambda data, ignore_prefix: None  # who listens to our stdout expects the address alone
    context: Any = ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        object_store_memory=store,
        _temp_dir=str(temp),
    )
    return context.address_info["address"]


def main(mark: str, temp: Path, logs: Path, store: int) -> None:
    """Start, tell, wait, end."""
    _deaf()
    try:
        answer: dict[str, Any] = {"address": start(temp, store)}
    except Exception as error:  # whatever it is, the run has to hear it
        answer = {"error": f"{type(error).__name__}: {error}"}
    _deaf()  # Ray has put its own handler in place
    print(json.dumps(answer), flush=True)
    sys.stdin.read()
    import ray

    ray.shutdown()
    end(mark, temp)
    settle(temp, logs)


def _deaf() -> None:
    """Signals to a whole job are for the run to answer. A handler, since Ray's processes would inherit SIG_IGN."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: None)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
