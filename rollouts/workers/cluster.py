"""The Ray that workers run in: the cluster of RAY_ADDRESS, or one of this process's own, on this machine.

One of our own has no dashboard, reports no usage, prints nothing here, and keeps its files in a short folder below
/tmp (or RAY_TMPDIR): socket paths may have 107 characters. `guard` starts it and ends it, whatever happens to us.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...parts import RunError, UserError

log = logging.getLogger(__name__)

MARK = "UNDERDOG_RAY"
"""Environment variable of all processes of a Ray of our own."""
STORE_SHARE, STORE_LEAST, STORE_MOST = 0.25, 128 * 2**20, 8 * 2**30
"""Of the free memory, what published policies may take at once, in bytes; what does not fit goes to disk."""
LEAVING_SECONDS = 60.0
"""For a Ray of our own to end."""
KNOCKING_SECONDS = 10.0
"""For a cluster to answer at its address."""


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
    if session is not None:
        _leave(session.guard)


def _join(address: str) -> _Session:
    from ray import exceptions

    try:
        _knock(address)
        _init(address)
    except (OSError, RuntimeError, ValueError, exceptions.RayError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"the Ray cluster at {address} cannot be joined ({reason}); start it (ray start --head), correct "
            "RAY_ADDRESS (and set RAY_AUTH_MODE=token for a cluster that asks for a token, as ray start makes them), "
            "or unset it to work on this machine alone"
        ) from None
    return _Session(None)


def _knock(address: str) -> None:
    """Ray itself waits for minutes where nobody answers at host:port.

    Raises:
        OSError: nobody does.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCKING_SECONDS).close()


def _start(logs: Path) -> _Session:
    import psutil
    from ray._private.authentication import authentication_token_setup as tokens

    temp = Path(tempfile.mkdtemp(prefix="underdog-ray-", dir=os.environ.get("RAY_TMPDIR", "/tmp")))
    store = min(max(int(STORE_SHARE * psutil.virtual_memory().available), STORE_LEAST), STORE_MOST)
    # A token for this process and its Ray alone: left to itself, Ray puts one into the home folder.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    mark = secrets.token_hex(16)
    file = Path(__file__).with_name("guard.py")
    guard = subprocess.Popen(
        [sys.executable, "-P", str(file), mark, str(temp), str(logs / "ray"), str(store)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, MARK: mark},
    )
    try:
        assert guard.stdout is not None
        told = json.loads(guard.stdout.readline() or '{"error": "it ended at once"}')
        if "error" in told:
            raise RunError(f"Ray does not start on this machine: {told['error']}")
        tokens._enable_token_auth()
        _init(told["address"])
    except BaseException:
        _leave(guard)
        raise
    return _Session(guard)


def _init(address: str) -> None:
    import ray

    ray.init(address=address, log_to_driver=False, configure_logging=False)


def _leave(guard: subprocess.Popen[bytes] | None) -> None:
    """Disconnect, and where Ray is ours, wait until nothing is left of it."""
    import ray

    try:
        ray.shutdown()
    finally:
        if guard is not None:
            try:
                guard.communicate(timeout=LEAVING_SECONDS)
            except subprocess.TimeoutExpired:
                log.warning("Ray takes longer than %g s to end; process %d sees to it", LEAVING_SECONDS, guard.pid)


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
