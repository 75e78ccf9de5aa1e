"""Warm REPLs weed out failing proofs: leanprover-community/repl keeps an imported header, so a proof costs no import.

A REPL is asked for errors and nothing else. An error in a well-formed reply to a member's own request decides it;
silence, nonsense, a crash or a reply out of order decides nothing, and the member is compiled as if there were no REPL.
Members without an error are compiled too, since only a compiled module can be certified. REPLs never free what they
have elaborated: each is replaced after `USES` members. This has been run against scripted peers and *not yet against a
real toolchain*.
"""

from __future__ import annotations

import json
import secrets
import shlex
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .batch import MAX_DETAIL, Command, Compiled, fault_of
from .sandbox import Confined, LateError
from .source import Member

USES = 100
"""Members that one REPL process elaborates before it is replaced."""


class Repls:
    """At most `workers` REPL processes, each warm with the header that it was last asked for."""

    def __init__(self, words: str, command: Command, workers: int):
        parts = shlex.split(words)
        program = shutil.which(parts[0], path=command.environment.get("PATH")) if parts else None
        self._words = [program or words, *parts[1:]]
        self._command = command
        self._workers = workers
        self._idle: list[_Repl] = []
        self._lock = threading.Lock()

    def weed(self, members: Sequence[Member]) -> list[Compiled | None]:
        """For each member what is wrong with it, or None where that is not known. Only those that the scan found
        contained are asked about: others could answer for themselves."""
        with ThreadPoolExecutor(self._workers, thread_name_prefix="repl") as threads:
            return list(threads.map(self._ask, members))

    def close(self) -> None:
        """End all processes; new ones start when needed."""
        with self._lock:
            idle, self._idle = self._idle, []
        for repl in idle:
            repl.close()

    def _ask(self, member: Member) -> Compiled | None:
        if not member.shares:
            return None
        repl = None
        try:
            repl = self._take(member.head)
            found = repl.errors(member.body)
        except (OSError, _NoAnswerError):
            if repl is not None:
                repl.close()
            return None
        if repl.used >= USES:
            repl.close()
        else:
            with self._lock:
                self._idle.append(repl)
        errors, seconds = found
        if not errors:
            return None
        return Compiled(fault_of(errors), errors[0][:MAX_DETAIL], seconds, isolation=repl.isolation)

    def _take(self, head: str) -> _Repl:
        """A REPL that is warm with this header, or else a new one, in place of one that is warm with another."""
        surplus = None
        with self._lock:
            for place, repl in enumerate(self._idle):
                if repl.head == head:
                    return self._idle.pop(place)
            if len(self._idle) >= self._workers:
                surplus = self._idle.pop(0)
        if surplus is not None:
            surplus.close()
        return _Repl(self._words, head, self._command)


class _NoAnswerError(Exception):
    """The REPL did not answer as the protocol says."""


class _Repl:
    """One process. Environment 0 is the header; each member is elaborated on top of that, so none sees another."""

    def __init__(self, words: Sequence[str], head: str, command: Command):
        self.head = head
        self.used = 0
        self._command = command
        self._process = Confined(words, command.limits, environment=command.environment)
        try:
            header = f"{head}\nset_option maxHeartbeats {command.heartbeats}\n"
            if self._request(header, "", {}, command.start_seconds):
                raise _NoAnswerError("the header has errors")
        except BaseException:
            self.close()
            raise

    @property
    def isolation(self) -> Any:
        """What walls the process has."""
        return self._process.isolation

    def errors(self, body: str) -> tuple[list[str], float]:
        """The errors in a text on top of the header, and the seconds that it took.

        Raises:
            _NoAnswerError: none that can be believed within `seconds`.
        """
        began = time.monotonic()
        self.used += 1
        found = self._request(f"namespace Underdog\n{body}\n", "end Underdog\n", {"env": 0}, self._command.seconds)
        return found, time.monotonic() - began

    def close(self) -> None:
        """End it."""
        self._process.close()

    def _request(self, text: str, end: str, on: dict[str, int], seconds: float) -> list[str]:
        """The errors in `text`. The reply has to hold a word that nobody knew before it was asked for."""
        deadline = time.monotonic() + seconds
        word = secrets.token_hex(16)
        request = {"cmd": f'{text}#print "{word}"\n{end}', **on}
        if not self._process.write(json.dumps(request).encode() + b"\n\n", deadline):
            raise _NoAnswerError("it takes no question")
        reply = self._reply(deadline)
        messages = reply.get("messages", [])
        if not isinstance(messages, list):
            raise _NoAnswerError("messages are not a list")
        errors = []
        for message in messages:
            if not isinstance(message, dict) or not isinstance(message.get("data"), str):
                raise _NoAnswerError("a message without text")
            if message.get("severity") == "error":
                errors.append(message["data"])
        if not any(message["data"].strip() == word for message in messages):
            raise _NoAnswerError("a reply to another question")
        return errors

    def _reply(self, deadline: float) -> dict[str, Any]:
        """The next JSON object, which an empty line ends."""
        text = b""
        while True:
            try:
                line = self._process.line(deadline)
            except LateError:
                raise _NoAnswerError("late") from None
            if line is None:
                raise _NoAnswerError("it has ended")
            if line.strip():
                text += line + b"\n"
            elif text:
                break
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            raise _NoAnswerError("not JSON") from None
        if not isinstance(found, dict):
            raise _NoAnswerError("not an object")
        return found
