"""Sees to it that nothing is left of a Ray of our own: `guard.py MARK TEMP LOGS` waits until its parent is done.

However the parent ends (by SIGKILL too), its end of the pipe to our stdin closes. Ray's processes then have a moment to
leave by themselves (its agents would stay for a minute, workers' children for good); those that do not are killed,
Ray's logs go to LOGS, and TEMP is removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

GRACE = 2.0
"""Seconds in which Ray's processes may leave by themselves."""


def ours(mark: str, temp: Path) -> list[psutil.Process]:
    """Living processes that carry `mark` in their environment, and Ray's agents, which hide it, by their log files."""
    return [process for process in psutil.process_iter() if _is_ours(process, mark, f"{temp}{os.sep}")]


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


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.stdin.read()
    end(sys.argv[1], Path(sys.argv[2]))
    settle(Path(sys.argv[2]), Path(sys.argv[3]))
