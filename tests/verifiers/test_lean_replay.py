"""Kernel replay against scripted peers: only an exit status of 0 counts, and only from a tool that can say no.

No replay tool has been run on a real toolchain here.
"""

from __future__ import annotations

import os
import subprocess
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from underdog.verifiers.lean.replay import PLANTED, Job, Run, Tool, find, replay, self_test

JOB = Job(
    "Submission",
    {"Submission.olean": b"olean honest"},
    "theorem t : 1 = 1 := sorry",
    "theorem t : 1 = 1 := rfl",
    ("t",),
)


@dataclass(frozen=True)
class Ended:
    cause: str
    code: int = 0
    errors: str = ""


def script(folder: Path, name: str, body: str) -> str:
    """An executable in `folder`, in Python."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env python3\nimport json, os, sys, time\n{textwrap.dedent(body)}")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs commands in a folder, with two seconds to end, and nothing else of a sandbox."""

    def run_(words: Sequence[str], files: Mapping[str, bytes], environment: Mapping[str, str]) -> Ended:
        folder = tmp_path / "work"
        folder.mkdir(exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        given = {key: value.replace("{folder}", str(folder)) for key, value in environment.items()}
        try:
            done = subprocess.run(
                [word.replace("{folder}", str(folder)) for word in words],
                env={**os.environ, **given},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=2,
            )
        except subprocess.TimeoutExpired:
            return Ended("timeout")
        return Ended("exit", done.returncode, done.stderr)

    return run_


CHECKS = """
    folders = os.environ["LEAN_PATH"].split(":")
    files = [f"{folder}/{sys.argv[1]}.olean" for folder in folders]
    data = next(open(file, "rb").read() for file in files if os.path.exists(file))
    if b"planted" in data:
        sys.exit("leanchecker found a problem in Submission: (kernel) declaration type mismatch, 'replay_planted'")
"""
"""A peer that reads the module from LEAN_PATH and refuses what holds the word `planted`."""


def compile_(source: str) -> dict[str, bytes]:
    return {"Submission.olean": b"olean planted" if source == PLANTED else b"olean honest"}


def test_an_honest_module_is_replayed_and_a_planted_one_refused(tmp_path: Path, run: Run) -> None:
    tool = Tool("leanchecker", script(tmp_path, "leanchecker", CHECKS))
    assert replay(tool, JOB, run, "/somewhere/else").outcome == "replayed"
    refused = replay(tool, Job("Submission", compile_(PLANTED)), run)
    assert refused.outcome == "refused"
    assert "type mismatch" in refused.detail
    assert self_test(tool, compile_, "Submission", run) == ""


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ("time.sleep(60)", "unavailable"),  # none
        ("time.sleep(1)", "replayed"),  # late
        ("print('replaying Sub', end='', flush=True); time.sleep(0.5); print('mission')", "replayed"),  # split
        ("print('all declarations were accepted'); sys.exit(1)", "refused"),  # forged
        ("print('found a problem', file=sys.stderr)", "replayed"),  # forged the other way
        ("print('replaying', end='', flush=True); os.kill(os.getpid(), 9)", "unavailable"),  # cut off
        ("os.abort()", "unavailable"),
        ("sys.stdout.buffer.write(bytes(range(256)) * 999); sys.exit(3)", "refused"),
    ],
)
def test_only_the_exit_status_counts(tmp_path: Path, run: Run, body: str, outcome: str) -> None:
    assert replay(Tool("leanchecker", script(tmp_path, "leanchecker", body)), JOB, run).outcome == outcome


def test_a_tool_that_is_not_there_says_nothing_of_the_proof(tmp_path: Path, run: Run) -> None:
    assert replay(Tool("leanchecker", str(tmp_path / "none")), JOB, run).outcome == "unavailable"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "replayed a module that had to be refused"),  # takes everything
        ("sys.exit('unknown module prefix')", "refused a module that had to be replayed"),  # finds nothing
        ("time.sleep(60)", "unavailable"),
    ],
)
def test_a_tool_that_cannot_tell_is_not_believed(tmp_path: Path, run: Run, body: str, why: str) -> None:
    tool = Tool("lean4checker", script(tmp_path, "lean4checker", body))
    assert why in self_test(tool, compile_, "Submission", run)


def test_finds_the_toolchains_own_before_any_other(tmp_path: Path) -> None:
    """elan's `leanchecker` on PATH is a stand-in for a toolchain that may have none."""
    path, prefix = tmp_path / "path", tmp_path / "toolchain"
    assert find(str(prefix), str(path)) is None
    script(path, "leanchecker", "")
    script(path, "comparator", "")
    assert find(str(prefix), str(path)) is None
    for name in ("landrun", "lean4export", "lake"):
        script(path, name, "")
    assert find(str(prefix), str(path)) == Tool("comparator", str(path / "comparator"))
    checker = script(path, "lean4checker", "")
    assert find(str(prefix), str(path)) == Tool("lean4checker", checker)
    own = script(prefix, "bin/leanchecker", "")
    assert find(str(prefix), str(path)) == Tool("leanchecker", own)
    assert find("", str(path)) == Tool("lean4checker", checker)


COMPARES = """
    folder = os.path.dirname(sys.argv[1])
    asked = json.load(open(sys.argv[1]))
    texts = [open(f"{folder}/{asked[key]}.lean").read() for key in ("challenge_module", "solution_module")]
    assert asked["permitted_axioms"] == ["Classical.choice", "Quot.sound", "propext"]
    assert all(f"theorem {name} " in text for name in asked["theorem_names"] for text in texts)
    assert "sorry" in texts[0]
    sys.exit("skipKernelTC" in texts[1] or "sorry" in texts[1])
"""


def test_comparator_gets_both_sources(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "path", "lake", "os.chdir(sys.argv[2]); os.execv(sys.argv[4], sys.argv[4:])")
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:{os.environ['PATH']}")
    tool = Tool("comparator", script(tmp_path / "path", "comparator", COMPARES))
    assert replay(tool, JOB, run).outcome == "replayed"
    lazy = Job("Submission", {}, JOB.challenge, "theorem t : 1 = 1 := sorry", ("t",))
    assert replay(tool, lazy, run).outcome == "refused"
    assert self_test(tool, compile_, "Submission", run) == ""
