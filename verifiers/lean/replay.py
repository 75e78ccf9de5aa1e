"""Kernel replay: a second process gives every declaration of a compiled module to Lean's kernel once more.

Only this sees a kernel check that was switched off while compiling, or a declaration put in past the kernel. The tools
are `leanchecker`, which comes with Lean from 4.28 on, its forerunner `lean4checker`, and `comparator`, which builds
challenge and solution from their sources and compares them too. They answer by their exit status; what they print is
shown and never believed. A tool counts only after it has refused a planted false theorem (`self_test`).

These tools have been run here against scripted peers only: *not yet on a real toolchain*.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from .library import ALLOWED

HONEST = "theorem replay_honest (a b : Nat) (h : a ≤ b) : a < b + 1 := Nat.lt_succ_of_le h\n"
"""A module that every replay must accept."""
PLANTED = "theorem replay_planted : (1 : Nat) = 2 := by\n  set_option debug.skipKernelTC true in\n  decide +kernel\n"
"""A module that compiles without an error, and that every replay must refuse."""
MAX_DETAIL = 500
"""Characters of a tool's output that are kept."""

_CHECKERS = ("leanchecker", "lean4checker")
_COMPARATOR = "comparator"
_COMPARATOR_NEEDS = ("landrun", "lean4export", "lake")

Outcome = Literal["replayed", "refused", "unavailable"]


@dataclass(frozen=True, slots=True)
class Tool:
    """A replay tool: its kind (`leanchecker`, `lean4checker` or `comparator`) and where it is."""

    kind: str
    path: str


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be replayed: the files of a compiled `module`, and for comparator the sources, both complete files,
    and the full names of the theorems."""

    module: str
    compiled: Mapping[str, bytes]
    challenge: str = ""
    solution: str = ""
    theorems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replayed:
    """`replayed`: the kernel took everything; `refused`: it did not; `unavailable`: the tool gave no answer, which
    says nothing about the proof."""

    outcome: Outcome
    detail: str = ""


class Ended(Protocol):
    """How a command ended, as `sandbox.Ending` says it: `cause` is `exit`, or why it did not end by itself."""

    @property
    def cause(self) -> str: ...
    @property
    def code(self) -> int: ...
    @property
    def errors(self) -> str: ...


Run = Callable[[Sequence[str], Mapping[str, bytes], Mapping[str, str]], Ended]
"""Runs a command with these files in its folder, which `{folder}` in its words and its environment stands for, behind
walls and within limits of its own."""


def find(prefix: str, search: str | None = None) -> Tool | None:
    """The best replay tool: that of the toolchain at `prefix` (`lean --print-prefix`), else one on the path `search`.

    elan puts a `leanchecker` on PATH whether or not the toolchain has one, so that name counts in `prefix` only.
    """
    own = Path(prefix) / "bin" / _CHECKERS[0]
    if prefix and shutil.which(own):
        return Tool(_CHECKERS[0], str(own))
    other = shutil.which(_CHECKERS[1], path=search)
    if other is not None:
        return Tool(_CHECKERS[1], other)
    comparator = shutil.which(_COMPARATOR, path=search)
    if comparator is not None and all(shutil.which(name, path=search) for name in _COMPARATOR_NEEDS):
        return Tool(_COMPARATOR, comparator)
    return None


def replay(tool: Tool, job: Job, run: Run, lean_path: str = "") -> Replayed:
    """Replay a module through Lean's kernel. `lean_path` is where Lean finds what it imports (LEAN_PATH).

    One declaration that the kernel refuses refuses the module: submissions that share one are then replayed apart.
    """
    if tool.kind == _COMPARATOR:
        words, files = _comparison(tool, job)
        environment: Mapping[str, str] = {}
    else:
        words, files = [tool.path, job.module], dict(job.compiled)
        environment = {"LEAN_PATH": f"{{folder}}:{lean_path}" if lean_path else "{folder}"}
    try:
        ended = run(words, files, environment)
    except OSError as error:
        return Replayed("unavailable", f"{tool.kind} could not be started: {error}")
    detail = ended.errors.strip()[-MAX_DETAIL:]
    if ended.cause != "exit":
        return Replayed("unavailable", f"{tool.kind} ended with {ended.cause}")
    if ended.code == 0:
        return Replayed("replayed")
    if ended.code < 0:
        return Replayed("unavailable", f"{tool.kind} was killed by signal {-ended.code}")
    return Replayed("refused", f"{tool.kind}: {detail or f'exit status {ended.code}'}")


def self_test(tool: Tool, compile_: Callable[[str], Mapping[str, bytes]], module: str, run: Run, path: str = "") -> str:
    """Why the tool is not to be believed, or nothing: it has to accept an honest module and refuse a planted one.

    `compile_` compiles a source to the files of `module`. Comparator brings its own build, and is asked about sources.
    """
    for source, wanted in ((HONEST, "replayed"), (PLANTED, "refused")):
        compiled = {} if tool.kind == _COMPARATOR else compile_(source)
        name, _, rest = source.removeprefix("theorem ").partition(" ")
        challenge = f"theorem {name} {rest.partition(':=')[0]}:= sorry\n"
        got = replay(tool, Job(module, compiled, challenge, source, (name,)), run, path)
        if got.outcome != wanted:
            return f"{tool.kind} {got.outcome} a module that had to be {wanted} ({got.detail or 'without a word'})"
    return ""


def _comparison(tool: Tool, job: Job) -> tuple[list[str], dict[str, bytes]]:
    """Comparator's call: a Lake package of two modules, and what is to be compared."""
    configuration = {
        "challenge_module": "Challenge",
        "solution_module": "Solution",
        "theorem_names": list(job.theorems),
        "permitted_axioms": sorted(".".join(map(str, name)) for name in ALLOWED),
        "enable_nanoda": False,
    }
    package = 'name = "replay"\n\n[[lean_lib]]\nname = "Challenge"\n\n[[lean_lib]]\nname = "Solution"\n'
    texts = {
        "lakefile.toml": package,
        "Challenge.lean": job.challenge,
        "Solution.lean": job.solution,
        "comparator.json": json.dumps(configuration),
    }
    words = ["lake", "--dir", "{folder}", "env", tool.path, "{folder}/comparator.json"]
    return words, {name: text.encode() for name, text in texts.items()}
