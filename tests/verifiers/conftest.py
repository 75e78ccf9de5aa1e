"""What the verifiers' tests share: a command that behaves like `lean`, and modules that it compiled."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent


def _load(path: Path) -> ModuleType:
    """A module beside the tests, which are no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def lean_library(lean_command: str) -> Path:
    """The folder of that Lean's own compiled library."""
    said = subprocess.run([lean_command, "--print-libdir"], check=True, capture_output=True, text=True)
    return Path(said.stdout.strip())


@pytest.fixture(scope="session")
def writer() -> Any:
    """The class that writes compiled modules, see `olean_writer.py`."""
    return _load(HERE / "olean_writer.py").Writer


@pytest.fixture(scope="session")
def compiled(lean_command: str, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """The files of one module that a real Lean compiled: `lean_certificates.lean`, statements, proofs and cheats."""
    folder = tmp_path_factory.mktemp("lean")
    source = folder / "Submission.lean"
    source.write_text((HERE / "lean_certificates.lean").read_text())
    command = [lean_command, "-j1", "-R", str(folder), "-o", str(folder / "Submission.olean"), str(source)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.name: path.read_bytes() for path in folder.glob("*.olean*")}


def _below(root: int) -> dict[int, list[str]]:
    """The command lines of this process's descendants."""
    parents, words = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words[int(folder.name)] = (folder / "cmdline").read_text().split("\0")
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return {pid: words[pid] for pid in found[1:]}


def _kill_each(text: str, ages: Sequence[float], keeper: bool, killed: list[int], done: threading.Event) -> None:
    """Kill, one after the other, commands of ours that a `text` is among the arguments of, each at an age in seconds;
    with `keeper` the process instead that its walls depend on."""
    seen: set[int] = set()
    for age in ages:
        victim, born = 0, 0.0
        while not done.wait(0.02):
            running = _below(os.getpid())
            if victim and victim not in running:
                victim = 0
            for pid, words in running.items() if not victim else ():
                if pid not in seen and any(word.endswith(text) for word in words):
                    victim, born = pid, time.monotonic()
            if victim and time.monotonic() - born >= age:
                walls = [pid for pid, words in running.items() if any(w.endswith("confine.py") for w in words)]
                holds = [pid for pid in walls if victim in _below(pid)]
                seen.add(victim)
                with suppress(ProcessLookupError):
                    os.kill(min(holds) if keeper else victim, signal.SIGKILL)
                    killed.append(victim)
                break


@pytest.fixture
def lean_killer() -> Callable[..., AbstractContextManager[list[int]]]:
    """While it is open, Lean processes of this test are killed from outside, see `_kill_each`; gives those killed."""

    @contextmanager
    def killer(text: str, ages: Sequence[float], keeper: bool = False) -> Iterator[list[int]]:
        killed: list[int] = []
        done = threading.Event()
        thread = threading.Thread(target=_kill_each, args=(text, ages, keeper, killed, done))
        thread.start()
        try:
            yield killed
        finally:
            done.set()
            thread.join()

    return killer
