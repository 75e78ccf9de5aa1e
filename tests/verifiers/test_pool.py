"""The pool: what a submission does to its own process is its own fault, what happens to it from outside is ours."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from underdog.verifiers.pool import Limits, Pool

JUDGE = """
import os, signal, subprocess, sys, time

def judge(request, submission):
    do = request["do"]
    if do == "bad gold":
        return "could_not_grade", "gold"
    if do == "crashing gold":
        raise ValueError("gold")
    if do == "endless gold":
        time.sleep(600)
    submission()
    if do == "echo":
        time.sleep(request.get("sleep", 0))
        return "right", request["word"]
    if do == "sleep":
        time.sleep(600)
    if do == "spin":
        while True:
            pass
    if do == "eat":
        return "right", str(len(bytearray(10**11)))
    if do == "raise":
        raise RecursionError
    if do == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if do == "exit":
        os._exit(0)
    if do == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "chatter":
        os.write(1, b'{"outcome": "right", "reason": "forged", "detail": "", "last": false}\\n')
        print('{"outcome": "right", "reason": "forged", "detail": "", "last": false}', flush=True)
        return "wrong", "honest"
    if do == "nonsense":
        return "splendid", "no such outcome"
    if do == "child":
        return "wrong", str(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)
    if do == "write":
        with open(request["file"], "w") as file:
            file.write("x")
    if do == "wait":  # an empty file can be made, nothing can be written
        open(request["seen"], "w").close()
        while not os.path.exists(request["go"]):
            time.sleep(0.01)
        return "right", "waited"
    if do == "crowd":  # how many are judged at the same time; the first to come here dies once
        mine = os.path.join(request["folder"], str(os.getpid()))
        open(mine, "w").close()
        try:
            time.sleep(0.3)
            if request.get("victim"):
                try:
                    os.unlink(request["victim"])
                except FileNotFoundError:
                    return "right", str(len(os.listdir(request["folder"])))
                os.unlink(mine)
                os.kill(os.getpid(), signal.SIGKILL)
            return "right", "bystander"
        finally:
            os.unlink(mine)
    raise AssertionError(do)
"""


@pytest.fixture
def make_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "scripted_judge.py").write_text(JUDGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    pools: list[Pool] = []

    def make(workers: int = 1, seconds: float = 20.0, judge: str = "scripted_judge") -> Pool:
        pools.append(Pool(judge, workers, Limits(seconds, 512)))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def said(pool: Pool, **request: object) -> tuple[str, str]:
    (verdict,) = pool.map([request])
    return verdict.outcome, verdict.reason


def echoes(count: int) -> list[dict[str, object]]:
    return [{"do": "echo", "word": str(i), "sleep": 0.05 * (i % 3)} for i in range(count)]


@pytest.mark.parametrize(
    ("do", "outcome", "reason"),
    [
        ("eat", "wrong", "memory"),
        ("raise", "wrong", "crash"),
        ("segfault", "wrong", "crash"),
        ("exit", "wrong", "crash"),
        ("kill", "wrong", "crash"),
        ("nonsense", "wrong", "crash"),
        ("chatter", "wrong", "honest"),
        ("bad gold", "could_not_grade", "gold"),
        ("crashing gold", "could_not_grade", "gold"),
    ],
)
def test_each_end_has_its_outcome_and_the_pool_goes_on(make_pool, do: str, outcome: str, reason: str):
    pool = make_pool()
    assert said(pool, do=do) == (outcome, reason)
    assert said(pool, do="echo", word="after") == ("right", "after")


@pytest.mark.parametrize(
    ("do", "expected"),
    [("sleep", ("wrong", "timeout")), ("spin", ("wrong", "timeout")), ("endless gold", ("could_not_grade", "gold"))],
)
def test_what_does_not_end_is_killed(make_pool, do: str, expected: tuple[str, str]):
    pool = make_pool(seconds=0.5)
    assert said(pool, do=do) == expected
    assert said(pool, do="echo", word="after") == ("right", "after")


def test_verdicts_come_in_the_order_of_the_requests(make_pool):
    verdicts = make_pool(workers=3).map(echoes(20))
    assert [verdict.reason for verdict in verdicts] == [str(i) for i in range(20)]


def test_several_threads_share_the_workers(make_pool):
    pool = make_pool(workers=2)
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda _: [v.reason for v in pool.map(echoes(8))], range(4)))
    assert results == [[str(i) for i in range(8)]] * 4
    assert len(pool._alive) <= 3  # the two, and a spare one


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline, f"{file} never appeared"
        time.sleep(0.01)


def kill_all(pool: Pool, number: int) -> None:
    for worker in list(pool._alive):
        os.kill(worker._process.pid, number)


def test_a_worker_killed_from_outside_is_tried_again(make_pool, tmp_path: Path):
    pool, seen, go = make_pool(), tmp_path / "seen", tmp_path / "go"
    with ThreadPoolExecutor(1) as thread:
        verdict = thread.submit(said, pool, do="wait", seen=str(seen), go=str(go))
        wait_for(seen)
        (worker,) = pool._alive
        seen.unlink()
        os.kill(worker._process.pid, signal.SIGKILL)
        wait_for(seen)
        go.touch()
        assert verdict.result() == ("right", "waited")


def test_a_second_death_is_the_submissions_own(make_pool, tmp_path: Path):
    pool, seen = make_pool(), tmp_path / "seen"
    with ThreadPoolExecutor(1) as thread:
        verdict = thread.submit(said, pool, do="wait", seen=str(seen), go=str(tmp_path / "never"))
        for _ in range(2):
            wait_for(seen)
            seen.unlink()
            kill_all(pool, signal.SIGTERM)
        assert verdict.result() == ("wrong", "crash")
    assert said(pool, do="echo", word="after") == ("right", "after")


def test_the_second_try_is_alone(make_pool, tmp_path: Path):
    folder, victim = tmp_path / "running", tmp_path / "victim"
    folder.mkdir()
    victim.touch()
    crowd = {"do": "crowd", "folder": str(folder)}
    requests = [crowd, {**crowd, "victim": str(victim)}, *[crowd] * 6]
    verdicts = make_pool(workers=3).map(requests)
    assert [v.reason for v in verdicts] == ["bystander", "1", *["bystander"] * 6]
    assert not victim.exists()


def test_a_worker_that_dies_idle_costs_no_verdict(make_pool):
    pool = make_pool()
    for word in ("one", "two", "three"):
        assert said(pool, do="echo", word=word) == ("right", word)
        kill_all(pool, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def await_death(pid: int) -> None:
    deadline = time.monotonic() + 60
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} lives on"
        time.sleep(0.02)


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")


@linux
def test_what_a_worker_started_dies_with_it(make_pool):
    pool = make_pool()
    child = int(said(pool, do="child")[1])
    assert is_alive(child)
    pool.close()
    await_death(child)
    assert said(pool, do="echo", word="again") == ("right", "again")


@linux
def test_a_worker_is_not_blamed_for_its_parents_memory(make_pool):
    ballast = bytearray(b"x") * 2**30  # a training process is larger than a worker may be
    pool = make_pool()
    assert said(pool, do="echo", word="one") == ("right", "one")
    (first,) = pool._alive
    assert said(pool, do="echo", word="two") == ("right", "two")
    assert list(pool._alive) == [first]
    assert len(ballast) == 2**30


@linux
def test_a_worker_cannot_write_files(make_pool, tmp_path: Path):
    file = tmp_path / "written"
    assert said(make_pool(), do="write", file=str(file)) == ("wrong", "crash")
    assert file.stat().st_size == 0


@linux
@pytest.mark.slow
@pytest.mark.parametrize("do", ["echo", "sleep"])
def test_workers_do_not_outlive_a_parent_that_is_killed(tmp_path: Path, do: str):
    (tmp_path / "scripted_judge.py").write_text(JUDGE.replace("time.sleep(600)", "sum(iter(int, 1))"))
    code = f"""
import os, signal, sys, threading, time
sys.path.insert(0, {str(tmp_path)!r})
from underdog.verifiers.pool import Limits, Pool
pool = Pool("scripted_judge", 1, Limits(0.5, 512))
pool.map([{{"do": "echo", "word": ""}}])
(worker,) = pool._alive
print(worker._process.pid, flush=True)
if {do!r} == "sleep":
    threading.Thread(target=pool.map, args=([{{"do": "sleep"}}],), daemon=True).start()
    time.sleep(0.3)
os.kill(os.getpid(), signal.SIGKILL)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    await_death(int(out.stdout))


def test_a_missing_tool_is_our_fault(make_pool, tmp_path: Path):
    (tmp_path / "needy_judge.py").write_text("import no_such_package")
    (verdict,) = make_pool(judge="needy_judge").map([{}])
    assert (verdict.outcome, verdict.reason) == ("could_not_grade", "no_worker")
    assert "no_such_package" in verdict.detail


def test_a_pool_travels_as_its_options(make_pool):
    pool = make_pool(workers=2)
    assert said(pool, do="echo", word="here") == ("right", "here")
    for twin in (copy.deepcopy(pool), pickle.loads(pickle.dumps(pool))):
        assert twin == pool
        assert not twin._alive
    assert Pool("scripted_judge", 3, Limits(20.0, 512)) != pool


def test_closing_while_others_judge_leaves_nobody_waiting(make_pool):
    pool = make_pool(workers=2)
    done = []
    thread = threading.Thread(target=lambda: done.extend(pool.map(echoes(10))))
    thread.start()
    time.sleep(0.2)
    pool.close()
    thread.join(60)
    assert len(done) == 10
