"""Batches: each member gets the verdict that it would get alone, whatever the others do, and none is lost."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from underdog.verifiers.lean import batch
from underdog.verifiers.lean.batch import Command, Compiled, compile_all
from underdog.verifiers.lean.sandbox import Limits
from underdog.verifiers.lean.scan import Company
from underdog.verifiers.lean.source import Member

LeanKiller = Callable[..., AbstractContextManager[list[int]]]
LEAN = (sys.executable, "-I", str(Path(__file__).with_name("scripted_lean.py")))
COMMAND = Command(LEAN, limits=Limits(memory_mib=400), seconds=1.0, start_seconds=60.0)
EXPECTED = {
    "fine": "",
    "late": "",
    "shout": "",
    "wrong": "lean_error",
    "limit": "timeout",
    "slow": "timeout",
    "hungry": "out_of_memory",
    "crash": "crash",
    "nomodule": "crash",
    "leak": "lean_error",
}


def member(word: str, shares: bool = True, head: str = "", company: Company = "honest") -> Member:
    return Member(head, f"theorem x : 1 = 1 :=\n{word}\n", shares, company)


def faults(words: list[str], **more: int) -> list[str]:
    found = compile_all([member(word) for word in words], COMMAND, more.get("workers", 2), more.get("batch", 64))
    assert all((result.module is not None) == (result.fault == "") for result in found)
    return [result.fault for result in found]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of members in each process that is started."""
    sizes: list[int] = []
    original = batch._run

    def run(members: list[Member], command: Command) -> batch._Run:
        sizes.append(len(members))
        return original(members, command)

    monkeypatch.setattr(batch, "_run", run)
    return sizes


@pytest.mark.parametrize("word", EXPECTED)
def test_alone(word: str) -> None:
    assert faults([word]) == [EXPECTED[word]]


@settings(max_examples=6)
@given(st.lists(st.sampled_from(["fine", "fine", "wrong", "limit", "crash", "leak", "shout", "nomodule"]), max_size=9))
def test_a_batch_gives_each_what_it_gets_alone(words: list[str]) -> None:
    assert faults(words, workers=1) == [EXPECTED[word] for word in words]


def test_slow_and_hungry_members_harm_nobody() -> None:
    words = ["fine", "slow", "late", "hungry", "wrong", "late"]
    assert faults(words, workers=1) == [EXPECTED[word] for word in words]


def test_honest_members_share_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = counted(monkeypatch)
    assert faults(["fine"] * 50, workers=1) == [""] * 50
    assert sizes == [50]


def test_errors_cost_one_more_process(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = counted(monkeypatch)
    assert faults(["fine", "wrong"] * 20, workers=1) == ["", "lean_error"] * 20
    assert sizes == [40, 20]


def test_what_is_not_contained_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = counted(monkeypatch)
    compile_all([member("fine"), member("fine", shares=False), member("fine")], COMMAND, 1, 64)
    assert sorted(sizes) == [1, 2]


def test_different_headers_do_not_share(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = counted(monkeypatch)
    heads = ["-- a", "-- b", "-- a"]
    assert {result.fault for result in compile_all([member("fine", head=h) for h in heads], COMMAND, 1, 64)} == {""}
    assert sorted(sizes) == [1, 2]


def test_cheats_share_with_cheats_and_searches_with_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = counted(monkeypatch)
    kinds: list[Company] = ["honest", "gaps", "searching", "gaps", "honest", "honest"]
    found = compile_all([member("fine", company=kind) for kind in kinds], COMMAND, 1, 64)
    assert {result.fault for result in found} == {""}
    assert sorted(sizes) == [1, 2, 3]
    files = {kind: {id(r.module) for r, k in zip(found, kinds, strict=True) if k == kind} for kind in kinds}
    assert [len(files[kind]) for kind in ("honest", "gaps", "searching")] == [1, 1, 1]
    assert len(set.union(*files.values())) == 3


def test_namespaces_are_unguessable_and_the_module_is_told() -> None:
    first, second = compile_all([member("fine"), member("fine")], COMMAND, 1, 64)
    assert first.namespace != second.namespace
    assert len(first.namespace) > 16
    assert first.module == {"Submission.olean": b"module"}
    assert first.isolation is not None


def test_a_header_that_does_not_compile_is_told() -> None:
    found = compile_all([member("fine", head="wrong")] * 3, COMMAND, 1, 64)
    assert [result.fault for result in found] == ["lean_error"] * 3


def test_lean_that_is_missing_or_never_starts() -> None:
    missing = Command(("/no/such/lean",))
    never = Command((sys.executable, "-c", "import time; time.sleep(600)"), start_seconds=0.3)
    assert [r.fault for r in compile_all([member("fine")] * 2, missing, 1, 64)] == ["infrastructure"] * 2
    assert [r.fault for r in compile_all([member("fine")] * 2, never, 1, 64)] == ["timeout"] * 2


def test_a_full_temporary_folder_loses_no_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(**_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    found = compile_all([member("fine")] * 3, COMMAND, 2, 64)
    assert [result.fault for result in found] == ["infrastructure"] * 3
    assert all("no process could be started" in result.detail for result in found)
    monkeypatch.undo()
    # Where only the usual place is full, another serves.
    original = tempfile.mkdtemp

    def half_full(prefix: str, dir: str | None) -> str:
        return original(prefix=prefix, dir=dir) if dir else full()

    monkeypatch.setattr(tempfile, "mkdtemp", half_full)
    assert faults(["fine", "fine"]) == ["", ""]


@pytest.mark.parametrize("victim", ["lean", "keeper"])
def test_kills_from_outside_lose_and_change_no_verdict(victim: str, lean_killer: LeanKiller) -> None:
    """Lean itself, or the process that holds all of its walls, killed three times among 1,000 checks."""
    words = [*["fine", "wrong", "fine", "limit"] * 31, "late"] * 8
    with lean_killer("Submission.lean", [0.0, 0.2, 0.3], keeper=victim == "keeper") as killed:
        assert faults(words, workers=2, batch=250) == [EXPECTED[word] for word in words]
    assert len(killed) == 3


@pytest.mark.parametrize("victim", ["lean", "keeper"])
def test_a_member_whose_process_is_killed_gets_one_more(victim: str, lean_killer: LeanKiller) -> None:
    members = [member("late", shares=False)]
    for ages, fault in (([0.0], ""), ([0.0, 0.0], "crash")):
        with lean_killer("Submission.lean", ages, keeper=victim == "keeper") as killed:
            (result,) = compile_all(members, COMMAND, 1, 1)
        assert (result.fault, len(killed)) == (fault, len(ages))


def test_no_members() -> None:
    found: list[Compiled] = compile_all([], COMMAND, 1, 64)
    assert found == []
