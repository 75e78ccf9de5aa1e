"""The Ray that workers run in: the cluster of RAY_ADDRESS, or one of this process's own, on this machine.

One of our own has no dashboard, reports no usage, prints nothing here, and keeps its files in a short folder below
/tmp (or RAY_TMPDIR): socket paths may have 107 characters. `guard` ends it whatever happens to this process.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...parts import UserError

MARK = "UNDERDOG_RAY"
"""Environment variable of all processes of a Ray of our own."""
STORE_SHARE, STORE_LEAST, STORE_MOST = 0.25, 128 * 2**20, 8 * 2**30
"""Of the free memory, what published policies may take at once, in bytes; what does not fit goes to disk."""
LEAVING_SECONDS = 20.0


@dataclass
class _Session:
    """What `connect` opened, and how many use it."""

    guard: subprocess.Popen[bytes] | None
    """Of a Ray of our own; None for a cluster that we joined."""
    users: int = 0


_session: _Session | None = None
_theirs = 0
"""Users of a Ray that this process had open before us."""


def connect(logs: Path) -> None:
    """Join the cluster of RAY_ADDRESS, else start a Ray of our own; once a process, however often it is called.

    Ray's own logs end in `logs`/ray when the Ray is ours, a folder a session; a cluster keeps its own.

    Raises:
        UserError: there is no cluster at RAY_ADDRESS, or it cannot be joined.
    """
    global _session, _theirs
    import ray

    if _session is None and ray.is_initialized():
        _theirs += 1
        return
    if _session is None:
        address = os.environ.get("RAY_ADDRESS", "local")
        with _own_handlers():
            _session = _start(logs) if address == "local" else _join(address)
        _hush()
        atexit.register(_end)
    _session.users += 1


def disconnect() -> None:
    """Leave; the last one to leave ends a Ray of our own and waits until nothing is left of it."""
    global _theirs
    if _session is None:
        _theirs = max(_theirs - 1, 0)
        return
    _session.users -= 1
    if _session.users == 0:
        _end()


def is_ours() -> bool:
    """Whether this process started the Ray that it is connected to, so that it has this machine and no other."""
    return _session is not None and _session.guard is not None


def _end() -> None:
    global _session
    session, _session = _session, None
    atexit.unregister(_end)
    if session is None:
        return
    import ray

    try:
        ray.shutdown()
    finally:
        if session.guard is not None:
            session.guard.communicate(timeout=LEAVING_SECONDS)


def _join(address: str) -> _Session:
    import ray
    from ray import exceptions

    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError, exceptions.RayError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"the Ray cluster at {address} cannot be joined ({reason}); start it (ray start --head), correct "
            "RAY_ADDRESS, or unset it to work on this machine alone"
        ) from None
    return _Session(None)


def _start(logs: Path) -> _Session:
    import psutil
    import ray

    temp = Path(tempfile.mkdtemp(prefix="underdog-", dir=os.environ.get("RAY_TMPDIR", "/tmp")))
    mark = secrets.token_hex(16)
    command = [sys.executable, "-P", str(Path(__file__).with_name("guard.py")), mark, str(temp), str(logs / "ray")]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    # A token of this process's own: Ray would leave one in the home folder.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    store = min(max(int(STORE_SHARE * psutil.virtual_memory().available), STORE_LEAST), STORE_MOST)
    os.environ[MARK] = mark
    try:
        with _quiet():
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
                object_store_memory=store,
                _temp_dir=str(temp),
            )
    except BaseException:
        ray.shutdown()
        guard.communicate(timeout=LEAVING_SECONDS)
        raise
    finally:
        del os.environ[MARK]
    return _Session(guard)


@contextlib.contextmanager
def _own_handlers() -> Iterator[None]:
    """Ray takes SIGTERM for itself and exits with the state unsaved; the handler that was there stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _hush() -> None:
    """Ray prints to stdout that a worker died, which we log ourselves; stdout belongs to what a command gives."""
    from ray._private import worker

    logger = logging.getLogger("ray")
    worker.print_to_stdstream = lambda data, ignore_prefix: logger.info("%s", "\n".join(data["lines"]))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what Ray says of its defaults while it starts."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
