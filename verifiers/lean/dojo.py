"""lean-dojo: tactic by tactic on a traced repository; what it calls finished is judged again by our own checker.

lean-dojo 4.20 has no list of allowed axioms (`native_decide` passes), looks for `sorry` in the finished term alone, and
recognises its replies by a prefix on the output that tactics print to as well, so a tactic can forge one. It changes
the working directory of its process and has no clock for a whole session. Hence it runs here in a process of its own,
which can be killed, and `Session.verdict` believes only the text of the tactics. Tracing a repository needs GitHub;
a traced one in `CACHE_DIR` does not. This has been run against a scripted peer and *not yet against a real toolchain*.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from ...records import Verdict
from .lean import Lean
from .source import Submission, Task

MAX_LINE = 1 << 20
"""Bytes of one reply."""

_SERVE = """
import json, os, sys
replies = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
spec = json.loads(sys.argv[1])
def send(**reply):
    replies.write(json.dumps(reply) + "\\n")
    replies.flush()
try:
    from lean_dojo import Dojo, LeanError, LeanGitRepo, ProofFinished, TacticState, Theorem
except ImportError as error:
    send(kind="missing", text=str(error))
    raise SystemExit
repo = LeanGitRepo.from_path(spec["repo"]) if not spec["commit"] else LeanGitRepo(spec["repo"], spec["commit"])
with Dojo(Theorem(repo, spec["file"], spec["theorem"]), timeout=spec["seconds"]) as (dojo, state):
    send(kind="open", text=state.pp)
    for line in sys.stdin:
        found = dojo.run_tac(state, json.loads(line))
        if isinstance(found, TacticState):
            state = found
            send(kind="open", text=found.pp)
        elif isinstance(found, ProofFinished):
            send(kind="finished", text="")
        else:
            send(kind="error", text=str(getattr(found, "error", found)))
"""


class SessionError(Exception):
    """lean-dojo is missing, could not open the theorem, or stopped answering; the message says which."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a tactic led to: `open` with the goals left, `error` with Lean's words, or `finished`, as lean-dojo says."""

    kind: Literal["open", "error", "finished"]
    text: str


class Session:
    """A proof in the making, in a process of its own. Use it as a context manager.

    `repo` is a folder, or an address with its `commit`; `file` and `theorem` say what is to be proved; `seconds` is the
    most that one tactic may take.
    """

    def __init__(self, repo: str, file: str, theorem: str, commit: str = "", seconds: float = 60.0):
        self._spec = {"repo": repo, "commit": commit, "file": file, "theorem": theorem, "seconds": int(seconds) + 1}
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        self.tactics: list[str] = []
        self.start = Step("open", "")

    def __enter__(self) -> Session:
        """Open the theorem.

        Raises:
            SessionError: that is not possible.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, json.dumps(self._spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        try:
            self.start = self._reply(600.0)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End the process and all that it started."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None

    def run(self, tactic: str) -> Step:
        """Run one tactic on the goals left. Only a tactic without an error becomes part of the proof.

        Raises:
            SessionError: no sensible answer within `seconds`; the session is over.
        """
        if self._process is None or self._process.stdin is None:
            raise SessionError("the session is not open")
        try:
            self._process.stdin.write(json.dumps(tactic).encode() + b"\n")
            step = self._reply(self._seconds)
        except (OSError, SessionError) as error:
            self.__exit__()
            raise SessionError(str(error)) from None
        if step.kind != "error":
            self.tactics.append(tactic)
        return step

    def verdict(self, task: Task, verifier: Lean) -> Verdict:
        """Our own verdict on the tactics so far, whatever lean-dojo said of them."""
        proof = "by\n" + "\n".join("  " + tactic.strip().replace("\n", "\n  ") for tactic in self.tactics)
        return verifier.judge_proofs([Submission(task, proof)])[0]

    def _reply(self, seconds: float) -> Step:
        found = self._line(time.monotonic() + seconds)
        kind, text = found.get("kind"), found.get("text")
        if kind == "missing":
            raise SessionError(f"lean-dojo is not installed ({text}): pip install 'underdog-rl[lean]'")
        if kind not in ("open", "error", "finished") or not isinstance(text, str):
            raise SessionError("lean-dojo's process sent something else than a reply")
        return Step(kind, text)

    def _line(self, deadline: float) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise SessionError("lean-dojo did not answer in time")
            chunk = self._process.stdout.read(1 << 16)
            if not chunk:
                raise SessionError("lean-dojo's process has ended")
            self._buffer += chunk
            if len(self._buffer) > MAX_LINE:
                raise SessionError("lean-dojo's process sent something else than a reply")
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise SessionError("lean-dojo's process sent something else than a reply")
        return found
