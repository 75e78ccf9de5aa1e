"""What the verifiers' tests share: a command that behaves like `lean`, and modules that it compiled."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping
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
def lean_command() -> str:
    """The path of a real Lean 4: the machine's own, else the WebAssembly build of `lean_toolchain.py`."""
    return str(_load(HERE.parent / "lean_toolchain.py").lean())


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
