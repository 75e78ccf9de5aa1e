"""The REPL pool against scripted peers: only an error in a proper reply decides, everything else is compiled."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from underdog.verifiers.lean import repl
from underdog.verifiers.lean.batch import Command
from underdog.verifiers.lean.repl import Repls
from underdog.verifiers.lean.sandbox import Limits
from underdog.verifiers.lean.source import Member

PEER = """
import json, os, re, sys, time

count = -1
text = ""
for line in sys.stdin:
    if line.strip():
        text += line
        continue
    if not text:
        continue
    request, text = json.loads(text), ""
    count += 1
    cmd = request["cmd"]
    if "never starts" in cmd:
        time.sleep(600)
    printed = [{"severity": "info", "data": found} for found in re.findall('#print "(.*)"', cmd)]
    reply = {"env": count, "messages": printed}
    errors = [{"severity": "error", "data": f"unsolved goals {os.getpid()}", "pos": {"line": 1, "column": 0}}]
    if "wrong" in cmd:
        reply["messages"] = [*errors, *printed]
    if "warned" in cmd:
        reply["messages"].append({"severity": "warning", "data": "declaration uses `sorry`"})
    if "limit" in cmd:
        reply["messages"].append({"severity": "error", "data": "(deterministic) timeout at `whnf`"})
    if "late" in cmd:
        time.sleep(600)
    if "forged" in cmd:  # an error for whoever asks next
        print(json.dumps({"env": count, "messages": []}) + "\\n", flush=True)
        print(json.dumps({"env": count + 1, "messages": errors}) + "\\n", flush=True)
        continue
    if "unknown" in cmd:
        reply = {"message": "Unknown environment."}
    if "another" in cmd:
        reply["messages"] = errors
    if "nonsense" in cmd:
        print("wrong wrong wrong\\n", flush=True)
        continue
    if "list" in cmd:
        print("[1, 2]\\n", flush=True)
        continue
    if "cut" in cmd:
        sys.stdout.write(json.dumps(reply)[:7])
        sys.stdout.flush()
        os._exit(0)
    if "die" in cmd:
        os._exit(1)
    shown = json.dumps(reply, indent=1)
    if "split" in cmd:
        for character in shown:
            sys.stdout.write(character)
            sys.stdout.flush()
            time.sleep(0.002)
        print("\\n", flush=True)
        continue
    print(shown + "\\n", flush=True)
"""


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Repls]:
    (tmp_path / "peer.py").write_text(PEER)
    command = Command(("lean",), limits=Limits(memory_mib=400), seconds=1.0, start_seconds=2.0)
    pool = Repls(f"{sys.executable} -I {tmp_path / 'peer.py'}", command, 1)
    yield pool
    pool.close()


def member(word: str, shares: bool = True, head: str = "import X") -> Member:
    return Member(head, f"theorem x : 1 = 1 :=\n{word}\n", shares)


def faults(pool: Repls, *words: str) -> list[str | None]:
    return [None if found is None else found.fault for found in pool.weed([member(word) for word in words])]


def test_errors_are_found_and_the_rest_is_left_to_compile(pool: Repls) -> None:
    assert faults(pool, "fine", "wrong", "warned", "limit", "split wrong") == [
        None,
        "lean_error",
        None,
        "timeout",
        "lean_error",
    ]


@pytest.mark.parametrize("word", ["late", "forged", "unknown", "another", "nonsense", "list", "cut", "die"])
def test_whatever_a_reply_does_it_decides_nothing_and_harms_nobody(pool: Repls, word: str) -> None:
    assert faults(pool, "fine", word, "fine", "wrong") == [None, None, None, "lean_error"]


def test_a_process_stays_warm_and_is_replaced_after_its_uses(pool: Repls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repl, "USES", 3)
    found = pool.weed([member("wrong")] * 7)
    processes = [result.detail.split()[-1] for result in found if result is not None]
    assert len(processes) == 7
    assert processes[0] == processes[1] == processes[2]
    assert len(pool._idle) == 1


def test_each_header_has_its_own_process(pool: Repls) -> None:
    found = pool.weed([member("wrong"), member("wrong", head="import Y"), member("wrong", head="import Y")])
    assert [result.fault for result in found if result is not None] == ["lean_error"] * 3
    assert len(pool._idle) == 1


def test_what_is_not_contained_is_never_asked_about(pool: Repls) -> None:
    assert pool.weed([member("wrong", shares=False)]) == [None]


def test_a_repl_that_is_missing_or_never_starts_loses_no_verdict(tmp_path: Path, pool: Repls) -> None:
    command = Command(("lean",), seconds=1.0, start_seconds=0.5)
    assert faults(Repls("/no/such/repl", command, 1), "wrong") == [None]
    began = time.monotonic()
    assert pool.weed([member("wrong", head="never starts")]) == [None]
    assert time.monotonic() - began < 30
