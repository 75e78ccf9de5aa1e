"""Hostile commands behind walls: started, fed, listened to and killed; `confine.py` is the wall itself."""

from __future__ import annotations

import base64
import json
import os
import select
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

MAX_LINE = 4 << 20
"""Bytes of one line of output; a command that writes a longer one is killed."""
MAX_OUTPUT = 64 << 20
"""Bytes of output in all."""
KEPT_ERRORS = 4096
"""Last bytes of standard error that are kept."""
KILL_SECONDS = 30.0
"""For the processes of a killed command to be gone, on a machine that has other work to do."""
START_SECONDS = 60.0
"""For the wall to take what the command is to work on."""
_PASSED_ON = ("PATH", "HOME", "LANG", "ELAN_HOME", "ELAN_TOOLCHAIN", "NIX_SSL_CERT_FILE")
"""What a command sees of our environment, besides LEAN* and LAKE*: a trainer's holds tokens and passwords."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a command may use: memory of all its processes together, space in its folder, processor time of each of
    its processes (0: no limit)."""

    memory_mib: int = 4096
    folder_mib: int = 256
    cpu_seconds: int = 0


@dataclass(frozen=True, slots=True)
class Isolation:
    """Which walls the kernel granted."""

    namespaces: bool
    """Own user, process, network, mount and IPC namespaces: nothing survives, nothing outside is seen."""
    files: bool
    """All files read-only but a private memory disk."""
    landlock: bool
    """Landlock: no writes, no TCP and no signals outward."""
    seccomp: bool
    """No sockets at all, no tracing of other processes."""

    @property
    def complete(self) -> bool:
        """No writes and no connections outward, and nothing that outlives the command."""
        return self.namespaces and (self.files or self.landlock) and self.seccomp

    def __str__(self) -> str:
        had = [name for name in self.__slots__ if getattr(self, name)]
        lacks = [name for name in self.__slots__ if not getattr(self, name)]
        return f"isolation: {', '.join(had) or 'none'}" + (f"; refused here: {', '.join(lacks)}" if lacks else "")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a command ended: `cause` is exit, memory, processes, output, outside (someone else killed it) or unstarted;
    `code` its exit status, negative for a signal; `files` what it left, by name; `errors` the end of its standard
    error, or why it did not start."""

    cause: str
    code: int = 0
    files: Mapping[str, bytes] | None = None
    errors: str = ""


class LateError(Exception):
    """The command said nothing by the deadline."""


class Confined:
    """A command that runs in a folder of its own, `{folder}` in its arguments and its environment; standard output is
    read line by line.

    `files` are put into the folder first; when the command has ended, files that match a pattern of
    `collect` are handed back. One thread uses it; `kill` may be called from any.

    Raises:
        OSError: no process, pipe or temporary folder could be made.
    """

    def __init__(
        self,
        command: Sequence[str],
        limits: Limits,
        files: Mapping[str, str | bytes] | None = None,
        collect: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ):
        self._lock = threading.Lock()
        self._lines = b""
        self._errors = b""
        self._report = b""
        self._output = 0
        self._cause = ""
        self._ended: Ending | None = None
        self.isolation: Isolation | None = None
        self._folder = _new_folder()
        try:
            self._start(command, limits, files or {}, collect, environment or {})
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def _start(
        self,
        command: Sequence[str],
        limits: Limits,
        files: Mapping[str, str | bytes],
        collect: Sequence[str],
        environment: Mapping[str, str],
    ) -> None:
        within = {name: value.replace("{folder}", self._folder) for name, value in environment.items()}
        spec = {
            "command": [part.replace("{folder}", self._folder) for part in command],
            "folder": self._folder,
            "files": {name: base64.b64encode(_bytes(data)).decode() for name, data in files.items()},
            "collect": list(collect),
            "environment": _environment() | {"TMPDIR": self._folder} | within,
            "memory_mib": limits.memory_mib,
            "folder_mib": limits.folder_mib,
            "cpu_seconds": limits.cpu_seconds,
        }
        report, told = os.pipe()
        held, self._control = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(__file__).with_name("confine.py")), str(told), str(held)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(told, held),
                start_new_session=True,
                cwd="/",
                bufsize=0,
                env={"PATH": os.defpath},
            )
        except BaseException:
            os.close(report)
            os.close(self._control)
            raise
        finally:
            os.close(told)
            os.close(held)
        process = self._process
        assert process.stdout is not None
        assert process.stderr is not None
        self._select = selectors.DefaultSelector()
        self._pipes = {process.stdout.fileno(): "lines", process.stderr.fileno(): "errors", report: "report"}
        self._report_pipe = report
        for descriptor in self._pipes:
            self._select.register(descriptor, selectors.EVENT_READ)
        data = json.dumps(spec).encode()
        self.write(b"%08x" % len(data) + data, time.monotonic() + START_SECONDS)

    @property
    def pid(self) -> int:
        """The process that all others of the command depend on."""
        return self._process.pid

    def write(self, data: bytes, deadline: float) -> bool:
        """Hand bytes to the command's standard input; False when it takes no more, or not by `deadline`."""
        assert self._process.stdin is not None
        try:
            descriptor = self._process.stdin.fileno()
            os.set_blocking(descriptor, False)
            ready = select.poll()
            ready.register(descriptor, select.POLLOUT)
            while data:
                if not ready.poll(max(deadline - time.monotonic(), 0.0) * 1000):
                    return False
                data = data[os.write(descriptor, data) :]
        except (OSError, ValueError):
            return False
        return True

    def end_input(self) -> None:
        """Close the command's standard input."""
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()

    def line(self, deadline: float) -> bytes | None:
        """The next line of standard output, without its end; None when there are no more.

        Raises:
            LateError: none by `deadline`, in seconds of `time.monotonic`.
        """
        while b"\n" not in self._lines:
            if len(self._lines) > MAX_LINE or self._output > MAX_OUTPUT:
                self._cause = "output"
                self.kill()
                return None
            if not self._listen(deadline, "lines"):
                rest, self._lines = self._lines, b""
                return rest or None
        found, _, self._lines = self._lines.partition(b"\n")
        return found

    def ending(self, deadline: float) -> Ending:
        """Wait for the command's end and what it left, then clear up.

        Raises:
            LateError: it is still at it at `deadline`, in seconds of `time.monotonic`.
        """
        while self._listen(deadline, "report"):
            self._lines = b""
        return self._close()

    def kill(self) -> None:
        """End every process of the command."""
        with self._lock:
            control, self._control = self._control, -1
            if control >= 0:
                os.close(control)

    def close(self) -> None:
        """Kill it, wait until all of it is dead, and clear up."""
        self.kill()
        self._close()

    def _listen(self, deadline: float, wanted: str) -> bool:
        """Take what has come in on any pipe; False when the wanted pipe is closed."""
        if wanted not in self._pipes.values():
            return False
        left = deadline - time.monotonic()
        ready = self._select.select(max(left, 0.0))
        if not ready and left <= 0:
            raise LateError
        for key, _ in ready:
            descriptor = key.fd
            name = self._pipes[descriptor]
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                self._select.unregister(descriptor)
                del self._pipes[descriptor]
            elif name == "errors":
                self._errors = (self._errors + chunk)[-KEPT_ERRORS:]
            elif name == "report":
                self._report += chunk
            else:
                self._lines += chunk
                self._output += len(chunk)
        return wanted in self._pipes.values() or (wanted == "lines" and b"\n" in self._lines)

    def _close(self) -> Ending:
        if self._ended is not None:
            return self._ended
        self.kill()
        self.end_input()
        try:
            self._process.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for name in ("report", "errors"):  # everyone who could write is dead: these end at once
            with suppress(LateError):
                while self._listen(time.monotonic() + 1.0, name):
                    self._lines = b""
        self._select.close()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        os.close(self._report_pipe)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._ended = self._read_report()
        return self._ended

    def _read_report(self) -> Ending:
        """The keeper's words; whoever cut them short has killed it."""
        errors = self._errors.decode("utf-8", "replace")
        try:
            had, rest = _object(self._report)
            if "error" in had or "namespaces" not in had:
                return Ending("unstarted", errors=str(had.get("error", errors)))
            self.isolation = Isolation(*(bool(had.get(name)) for name in Isolation.__slots__))
            end, rest = _object(rest)
            cause, code = str(end["end"]), int(end["code"])
            files = {}
            while rest:
                entry, rest = _object(rest)
                size = int(entry["size"])
                if len(rest) < size:
                    break
                files[str(entry["file"])], rest = rest[:size], rest[size:]
        except (ValueError, KeyError, TypeError):
            return Ending(self._cause or "outside", errors=errors)
        return Ending(self._cause or cause, code, files, errors)


def _object(data: bytes) -> tuple[dict[str, Any], bytes]:
    line, _, rest = data.partition(b"\n")
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found, rest


def _bytes(data: str | bytes) -> bytes:
    return data if isinstance(data, bytes) else data.encode()


def _environment() -> dict[str, str]:
    keep = {name: value for name, value in os.environ.items() if name in _PASSED_ON}
    return keep | {name: value for name, value in os.environ.items() if name.startswith(("LEAN", "LAKE"))}


def _new_folder() -> str:
    """An empty folder; where the usual place is full, elsewhere.

    Raises:
        OSError: there is no room anywhere.
    """
    places: list[str | None] = [None, "/dev/shm", str(Path.home() / ".cache")]
    for place in places:
        with suppress(OSError):
            return tempfile.mkdtemp(prefix="underdog-lean-", dir=place)
    raise OSError("no folder could be made in the temporary folder, /dev/shm or ~/.cache")


@cache
def isolation() -> Isolation | None:
    """The walls that commands get on this machine; None where none can be run at all."""
    with suppress(OSError):
        trial = Confined([sys.executable, "-I", "-S", "-c", ""], Limits())
        trial.end_input()
        with suppress(LateError):
            trial.ending(time.monotonic() + KILL_SECONDS)
        trial.close()
        return trial.isolation
    return None
