"""The Lean that is there: how it is called, where its library lies, and whether it can replay."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .batch import MODULE, Command, Compiled, compile_all
from .library import Library, LibraryError
from .module import Module
from .replay import Job, Replayed, Tool, find, replay, self_test
from .sandbox import Confined, Ending, LateError
from .source import Member

REPLAY_SECONDS = 600.0
"""Wall clock for the replay of one module."""
IN_TURN = "-DElab.async=false"
"""One proof after the other, also on one thread: else Lean first begins with all of a file, tells of the first when the
last has begun, and holds the memory of all at once."""
_IN_TURN_SINCE = (4, 20)
"""The first Lean that surely knows that option, and elaborates out of turn without it; older ones refuse to start."""
TO_THE_END = "-DmaxErrors=1000000"
"""Else Lean gives up a file at its hundredth error, with proofs in it that it has not come to."""
_TO_THE_END_SINCE = (4, 25)
"""The first Lean that surely knows that option; older ones refuse to start."""


class UnavailableError(Exception):
    """Lean, a project or a library is missing; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A command that behaves like `lean`, the folders of its libraries, and its replay tool, if it has one that has
    refused a planted false theorem."""

    command: Command
    folders: tuple[Path, ...]
    tool: Tool | None
    doubts: str = ""
    """Why a replay tool that is there is not used."""

    def library(self, module: Module) -> Library:
        """All that a module imports.

        Raises:
            UnavailableError: an imported module is not where it should be.
        """
        try:
            return Library.of([name for name, _ in module.imports], self.folders)
        except LibraryError as error:
            raise UnavailableError(str(error)) from None

    def version(self) -> str:
        """Such as 4.24.0; "" when the command does not say."""
        found = re.search(r"version v?([0-9]+\.[0-9]+(?:\.[0-9]+)?)", _answer(self.command, "--version"))
        return found.group(1) if found else ""

    def replay(self, compiled: Compiled, challenge: str = "", solution: str = "", theorem: str = "") -> Replayed:
        """Give a module's declarations to Lean's kernel once more; the sources are for comparator alone."""
        if self.tool is None or compiled.module is None:
            return Replayed("unavailable", self.doubts or "the toolchain has no replay")
        job = Job(MODULE, compiled.module, challenge, solution, (theorem,) if theorem else ())
        return replay(self.tool, job, self._run, os.pathsep.join(map(str, self.folders)))

    def _run(self, words: Sequence[str], files: Mapping[str, bytes], environment: Mapping[str, str]) -> Ending:
        return _run(words, self.command, files, environment)


def toolchain(command: str, project: str, asked: Command) -> Toolchain:
    """What there is for `command` (as for a shell; empty: `lean` from PATH), within a built Lake `project` if one is
    named; `asked` holds the limits.

    Raises:
        UnavailableError: there is no such command or project, or it does not answer.
    """
    environment = _project_environment(project) if project else {}
    words = shlex.split(command or "lean")
    program = shutil.which(words[0], path=environment.get("PATH")) if words else None
    if program is None:
        raise UnavailableError(f"there is no command {command or 'lean'!r}; install Lean or name one that is there")
    # Found now, from here: inside its walls Lean runs in another folder.
    words[0] = os.path.abspath(program)
    called = Command(tuple(words), environment, asked.limits, asked.seconds, asked.start_seconds, asked.heartbeats)
    prefix, library = (_answer(called, option) for option in ("--print-prefix", "--print-libdir"))
    own = environment.get("LEAN_PATH", os.environ.get("LEAN_PATH", ""))
    folders = tuple(Path(folder) for folder in (*own.split(os.pathsep), library) if folder)
    since = {IN_TURN: _IN_TURN_SINCE, TO_THE_END: _TO_THE_END_SINCE}
    stated = _version_of(Path(library))
    called = replace(called, options=tuple(option for option, version in since.items() if stated >= version))
    tool = find(prefix, environment.get("PATH", os.environ.get("PATH")))
    found = Toolchain(called, folders, tool)
    if tool is None:
        return found
    doubts = self_test(
        tool, lambda source: _compiled(source, called), MODULE, found._run, os.pathsep.join(map(str, folders))
    )
    return Toolchain(called, folders, None, doubts) if doubts else found


def _version_of(library: Path) -> tuple[int, ...]:
    """The version that the library's own modules state, without starting Lean; empty where they state none."""
    try:
        with (library / "Init.olean").open("rb") as file:
            stated = re.match(rb"olean\x02.v?([0-9]+)\.([0-9]+)", file.read(64), re.DOTALL)
    except OSError:
        return ()
    return tuple(map(int, stated.groups())) if stated else ()


def _compiled(source: str, command: Command) -> Mapping[str, bytes]:
    (result,) = compile_all([Member("", source, False)], command, 1, 1)
    return result.module or {}


def _run(
    words: Sequence[str],
    command: Command,
    files: Mapping[str, bytes] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Ending:
    process = Confined(words, command.limits, files, (), {**command.environment, **(environment or {})})
    process.end_input()
    try:
        return process.ending(time.monotonic() + REPLAY_SECONDS)
    except LateError:
        process.close()
        return Ending("timeout")


def _answer(command: Command, option: str) -> str:
    """One line that the command says of itself; "" when it says none."""
    try:
        process = Confined([*command.words, option], command.limits, environment=command.environment)
    except OSError as error:
        raise UnavailableError(f"no process can be started: {error}") from None
    process.end_input()
    try:
        line = process.line(time.monotonic() + command.start_seconds)
    except LateError:
        line = None
    process.close()
    return (line or b"").decode("utf-8", "replace").strip()


def _project_environment(project: str) -> dict[str, str]:
    """What `lake env` sets in a project, so that Lean itself can be called there, from any folder."""
    try:
        folder = Path(project).expanduser()
        found = subprocess.run(["lake", "env"], cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UnavailableError(f"`lake env` in {project} cannot run: {error}") from None
    if found.returncode:
        raise UnavailableError(f"`lake env` in {project} failed: {found.stderr[-300:]}")
    pairs = (line.partition("=") for line in found.stdout.splitlines() if "=" in line)
    return {name: value for name, _, value in pairs if name == "PATH" or name.startswith(("LEAN", "LAKE", "ELAN"))}
