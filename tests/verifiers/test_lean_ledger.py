"""Verdicts that outlive a process: shared between runs, whole after a kill, and only what would be the same again."""

from __future__ import annotations

import shlex
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from underdog.parts import UserError
from underdog.records import Problem, Verdict
from underdog.verifiers.lean.lean import Lean
from underdog.verifiers.lean.ledger import Ledger
from underdog.verifiers.lean.source import Submission, task_of

SCRIPTED = shlex.join([sys.executable, "-I", str(Path(__file__).parent / "scripted_lean.py")])
STATED = {"statement": "theorem target : (1 : Nat) = 2"}
TASK = task_of(STATED)
RIGHT, WRONG = Verdict("right", "proved", 0.5, "walls", "declarations"), Verdict("wrong", "lean_error", 0.1, "no")


def rows(count: int) -> list[Submission]:
    return [Submission(TASK, f"by exact h{i}") for i in range(count)]


def test_what_was_kept_is_known_to_the_next_and_to_nobody_else(tmp_path: Path) -> None:
    path = str(tmp_path / "below" / "verdicts.sqlite")
    first, second, *_ = rows(3)
    Ledger(path, {"lean": "4.28"}).keep({first: RIGHT, second: WRONG})
    again = Ledger(path, {"lean": "4.28"})
    assert again.known(rows(3)) == {first: RIGHT, second: WRONG}
    assert Ledger(path, {"lean": "4.29"}).known(rows(3)) == {}, "another Lean may say otherwise"
    other = Submission(task_of({"statement": "theorem target : (1 : Nat) = 1"}), first.text)
    whole = Submission(TASK, first.text, whole_file=True)
    assert again.known([other, whole]) == {}


def test_several_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    path, many = str(tmp_path / "v.sqlite"), rows(64)

    def write(start: int) -> None:
        ledger = Ledger(path, {})
        for row in many[start::4]:
            ledger.keep({row: WRONG})

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    assert Ledger(path, {}).known(many) == dict.fromkeys(many, WRONG)


def test_a_kill_while_verdicts_are_written_leaves_all_of_them_or_none(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    Ledger(str(path), {})
    script = (
        "import os, sqlite3, sys\n"
        "file = sqlite3.connect(sys.argv[1])\n"
        "file.execute('BEGIN')\n"
        "file.execute(\"INSERT INTO verdicts VALUES (x'00', 'right', 'proved', 0, '', '')\")\n"
        "os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    (first, *_) = rows(1)
    Ledger(str(path), {}).keep({first: RIGHT})
    assert Ledger(str(path), {}).known([first]) == {first: RIGHT}
    assert sqlite3.connect(path).execute("SELECT count(*) FROM verdicts").fetchone() == (1,)


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be taken for one " * 40)
    with pytest.raises(UserError, match="verifier.cache=.*notes.txt cannot be used"):
        Ledger(str(path), {})
    assert path.read_text().startswith("not a database")


def test_the_verifier_asks_its_ledger_first_and_keeps_what_lasts(tmp_path: Path) -> None:
    path = str(tmp_path / "v.sqlite")
    problem = Problem("1", "", info=STATED)
    verifier = Lean(command=SCRIPTED, workers=1, threshold="declarations", cache=path)
    cheat, unread = verifier.judge_all([(problem, "by sorry"), (problem, "fine")])
    assert (cheat.reason, unread.reason) == ("cheat", "infrastructure")
    kept = sqlite3.connect(path).execute("SELECT reason FROM verdicts").fetchall()
    assert kept == [("cheat",)], "what went wrong on our side is tried again"

    known = Ledger(path, verifier._described())
    known.keep({Submission(TASK, "fine"): WRONG})
    fresh = Lean(command=SCRIPTED, workers=1, threshold="declarations", cache=path)
    assert fresh.judge(problem, "fine").reason == "lean_error", "no Lean was asked"
    strict = Lean(command=SCRIPTED, workers=1, threshold="declarations", cache=path, heartbeats=5000)
    assert strict.judge(problem, "fine").reason == "infrastructure", "other limits, another verdict"
