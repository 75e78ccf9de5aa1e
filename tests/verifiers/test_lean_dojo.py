"""lean-dojo against a scripted peer of its name: whatever it says, our own checker has the last word."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from underdog.records import Verdict
from underdog.verifiers.lean.dojo import Session, SessionError
from underdog.verifiers.lean.lean import Lean
from underdog.verifiers.lean.source import Task

PEER = """
import os, sys, time

class TacticState:
    def __init__(self, pp): self.pp = pp
class ProofFinished: pass
class LeanError:
    def __init__(self, error): self.error = error
class LeanGitRepo:
    def __init__(self, url, commit): pass
    @classmethod
    def from_path(cls, path): return cls(path, "")
class Theorem:
    def __init__(self, repo, file, name): self.name = name
class Dojo:
    def __init__(self, theorem, timeout): self.theorem = theorem
    def __enter__(self):
        if self.theorem.name == "absent": raise RuntimeError("no such theorem")
        return self, TacticState("⊢ 1 = 1")
    def __exit__(self, *_): pass
    def run_tac(self, state, tactic):
        if tactic == "late": time.sleep(600)
        if tactic == "die": os._exit(3)
        if tactic == "forge":
            print('{"kind": "finished", "text": ""}', flush=True)
            return LeanError("unsolved")
        if tactic == "intro": return TacticState("left")
        if tactic == "wrong": return LeanError("tactic failed")
        return ProofFinished()
"""
TASK = Task("foo", "", "", "theorem foo : 1 = 2")


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lean_dojo.py").write_text(PEER)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


class Recorder(Lean):
    """Judges nothing, and shows what it was asked to judge."""

    def judge_proofs(self, rows: Any) -> list[Verdict]:
        return [Verdict("wrong", "lean_error", detail=row.text) for row in rows]


@pytest.mark.usefixtures("peer")
def test_tactics_lead_to_a_proof_that_we_judge_again() -> None:
    with Session("/repo", "F.lean", "foo") as session:
        assert session.start.text == "⊢ 1 = 1"
        assert session.run("intro").kind == "open"
        assert session.run("wrong").text == "tactic failed"
        assert session.run("native_decide").kind == "finished"
        verdict = session.verdict(TASK, Recorder())
    assert verdict.outcome == "wrong"
    assert verdict.detail == "by\n  intro\n  native_decide"


@pytest.mark.usefixtures("peer")
@pytest.mark.parametrize(
    "tactic", ["native_decide", "sorry", "exact sorryAx _ true", "run_tac x", "rfl\n\naxiom x : 1 = 2"]
)
def test_what_lean_dojo_lets_pass_we_refuse(tactic: str) -> None:
    with Session("/repo", "F.lean", "foo") as session:
        assert session.run(tactic).kind == "finished"
        verdict = session.verdict(TASK, Lean())
    assert (verdict.outcome, verdict.reason) == ("wrong", "cheat")


@pytest.mark.usefixtures("peer")
def test_a_tactic_that_prints_cannot_forge_a_reply() -> None:
    with Session("/repo", "F.lean", "foo") as session:
        assert session.run("forge").kind == "error"
        assert session.tactics == []


@pytest.mark.usefixtures("peer")
@pytest.mark.parametrize("tactic", ["late", "die"])
def test_silence_and_death_end_the_session(tactic: str) -> None:
    with Session("/repo", "F.lean", "foo", seconds=1.0) as session:
        with pytest.raises(SessionError):
            session.run(tactic)
        with pytest.raises(SessionError, match="not open"):
            session.run("intro")


@pytest.mark.usefixtures("peer")
def test_a_theorem_that_is_not_there() -> None:
    with pytest.raises(SessionError, match="ended"), Session("/repo", "F.lean", "absent"):
        pass


def test_without_lean_dojo_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lean_dojo.py").write_text("raise ImportError('no lean_dojo')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SessionError, match=r"underdog-rl\[lean\]"), Session("/repo", "F.lean", "foo"):
        pass
