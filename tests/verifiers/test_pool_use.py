"""How the pool is used: from threads, asyncio and Ray, on endless streams, with a cache, on a bad day."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from underdog.parts import RunError
from underdog.records import Problem, Verdict
from underdog.verifiers.cache import VerdictCache
from underdog.verifiers.math.math import Math
from underdog.verifiers.pool import AHEAD, Limits, Pool
from underdog.verifiers.validate import validate

JUDGE = """
import os, time

def judge(request, submission):
    if "gold" in request:
        return "could_not_grade", "gold"
    submission()
    with open(request["log"], "w"):  # an empty file can be made, nothing can be written
        pass
    os.link(request["log"], request["log"] + "." + str(time.monotonic_ns()))
    time.sleep(request.get("sleep", 0))
    return "right", request["word"]
"""
FAST = """
import time

def judge(request, submission):
    submission()
    if request["word"] == "memory":
        return "right", str(len(bytearray(10**11)))
    time.sleep(0.003)
    return "right", request["word"]
"""


@pytest.fixture
def make_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "logging_judge.py").write_text(JUDGE)
    (tmp_path / "fast_judge.py").write_text(FAST)
    monkeypatch.syspath_prepend(str(tmp_path))
    pools: list[Pool] = []

    def make(judge: str = "fast_judge", workers: int = 2, cache: int = 0) -> Pool:
        pools.append(Pool(judge, workers, Limits(20.0, 512), cache))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def words(count: int) -> list[dict[str, str]]:
    return [{"word": str(i)} for i in range(count)]


# -- streams, threads, asyncio, Ray --


def test_an_endless_stream_is_read_no_further_than_needed(make_pool):
    read: list[int] = []

    def endless() -> Iterator[dict[str, str]]:
        for i in itertools.count():
            read.append(i)
            yield {"word": str(i)}

    verdicts = make_pool(workers=2).imap(endless())
    assert [next(verdicts).reason for _ in range(10)] == [str(i) for i in range(10)]
    assert len(read) <= 10 + 2 * AHEAD
    verdicts.close()


def test_the_event_loop_goes_on_while_verdicts_are_made(make_pool):
    async def use() -> tuple[list[str], int]:
        pool, ticks = make_pool(), 0
        judging = asyncio.gather(*(pool.amap(words(100)) for _ in range(3)))
        while not judging.done():
            await asyncio.sleep(0.002)
            ticks += 1
        return [v.reason for v in itertools.chain(*judging.result())], ticks

    reasons, ticks = asyncio.run(use())
    assert reasons == [str(i) for i in range(100)] * 3
    assert ticks > 10


def test_a_verifier_is_awaited():
    async def use() -> list[Verdict]:
        return await Math(numbers_only=True).ajudge_all([(Problem("p", "?", "7"), r"\boxed{7}")])

    assert [v.outcome for v in asyncio.run(use())] == ["right"]


def test_threads_share_one_verifier():
    verifier = Math(workers=2)
    pairs = [(Problem("p", "?", rf"{k}\tan^2(x)+{k}"), rf"\boxed{{{k}\sec^2(x)}}") for k in range(2, 10)]
    try:
        with ThreadPoolExecutor(4) as threads:
            results = list(threads.map(lambda _: [v.outcome for v in verifier.judge_all(pairs)], range(4)))
    finally:
        verifier.close()
    assert results == [["right"] * 8] * 4


def test_a_verifier_travels_and_works_where_it_arrives():
    verifier = Math(workers=1)
    copy = pickle.loads(pickle.dumps(verifier))
    assert copy == verifier
    try:
        assert copy.judge(Problem("p", "?", r"\tan^2(x)+1"), r"\boxed{\sec^2(x)}").reason == "equivalent"
    finally:
        copy.close()


@pytest.mark.slow
def test_in_a_ray_actor():
    ray = pytest.importorskip("ray")

    @ray.remote
    class Judge:
        def __init__(self, verifier: Math) -> None:
            self.verifier = verifier

        def judge(self, gold: str, answer: str) -> str:
            return self.verifier.judge(Problem("p", "?", gold), rf"\boxed{{{answer}}}").reason

        def close(self) -> None:
            self.verifier.close()

    ray.init(num_cpus=1, include_dashboard=False)
    try:
        actor = Judge.remote(Math(workers=1))
        assert ray.get(actor.judge.remote(r"\tan^2(x)+1", r"\sec^2(x)")) == "equivalent"
        ray.get(actor.close.remote())
    finally:
        ray.shutdown()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="forks")
def test_a_fork_starts_workers_of_its_own(make_pool):
    pool = make_pool(workers=1)
    assert pool.map(words(1))[0].reason == "0"
    (worker,) = pool._alive
    if (child := os.fork()) == 0:
        judged = pool.map(words(3))
        own = all(other._process.pid != worker._process.pid for other in pool._alive)
        pool.close()
        os._exit(0 if own and [v.reason for v in judged] == ["0", "1", "2"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pool.map(words(3))[2].reason == "2"
    assert list(pool._alive) == [worker]


# -- the cache --


def judged(log: Path) -> int:
    return len(list(log.parent.glob(f"{log.name}.*")))


@pytest.mark.parametrize(("cache", "times"), [(100, 1), (0, 12)])
def test_identical_requests_are_judged_once(make_pool, tmp_path: Path, cache: int, times: int):
    pool, log = make_pool("logging_judge", cache=cache), tmp_path / "log"
    request = {"word": "yes", "log": str(log), "sleep": 0.02}
    verdicts = pool.map([request] * 8) + pool.map([dict(reversed(request.items()))] * 4)
    assert {v.reason for v in verdicts} == {"yes"}
    assert judged(log) == times


def test_the_cache_is_bounded_and_forgets_the_oldest():
    cache, asked = VerdictCache(2), []

    def judge(request: Mapping[str, Any]) -> Verdict:
        asked.append(request["word"])
        return Verdict("right", request["word"], seconds=1.0)

    for word in ("a", "b", "a", "c", "a", "b"):
        assert cache.get({"word": word}, judge).reason == word
    assert asked == ["a", "b", "c", "b"]
    assert len(cache) == 2
    assert cache.get({"word": "b"}, judge).seconds == 0


@pytest.mark.parametrize(
    "verdict",
    [
        Verdict("could_not_grade", "gold"),
        Verdict("wrong", "timeout"),
        Verdict("wrong", "memory"),
        Verdict("wrong", "crash"),
    ],
)
def test_what_a_bad_day_may_have_caused_is_not_remembered(verdict: Verdict):
    cache, asked = VerdictCache(10), []

    def judge(request: Mapping[str, Any]) -> Verdict:
        asked.append(request)
        return verdict

    for _ in range(3):
        assert cache.get({"word": "x"}, judge) == verdict
    assert len(asked) == 3


def test_a_judge_that_raises_raises_for_all_who_wait():
    cache, started, go = VerdictCache(10), threading.Event(), threading.Event()

    def judge(_: Mapping[str, Any]) -> Verdict:
        started.set()
        go.wait(20)
        raise OSError("broken")

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(cache.get, {}, judge)
        started.wait(20)
        second = threads.submit(cache.get, {}, judge)
        time.sleep(0.05)
        go.set()
        assert isinstance(first.exception(), OSError)
        assert isinstance(second.exception(), OSError)
    assert cache.get({}, lambda _: Verdict("right")).outcome == "right"


# -- bad days: no verdict is lost --


def test_workers_killed_by_hand_in_the_middle_of_a_thousand_checks(make_pool):
    pool, verdicts = make_pool(workers=2), []
    for verdict in pool.imap(words(1000)):
        verdicts.append(verdict)
        if len(verdicts) in (200, 500, 800):
            os.kill(next(iter(pool._alive))._process.pid, signal.SIGKILL)
    assert [(v.outcome, v.reason) for v in verdicts] == [("right", str(i)) for i in range(1000)]


def test_exhausted_memory_loses_no_other_verdict(make_pool):
    requests = words(100)
    for index in (10, 11, 50, 99):
        requests[index] = {"word": "memory"}
    verdicts = make_pool(workers=2).map(requests)
    for index, verdict in enumerate(verdicts):
        expected = ("wrong", "memory") if index in (10, 11, 50, 99) else ("right", str(index))
        assert (verdict.outcome, verdict.reason) == expected


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root on Linux")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "underdog-test", disk], capture_output=True)
    if done.returncode:
        pytest.skip(f"a small file system could not be mounted: {done.stderr.decode().strip()}")
    try:
        with pytest.raises(OSError, match="space"):
            (disk / "ballast").write_bytes(b"x" * 2**17)
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.slow
def test_a_full_temporary_folder_loses_no_verdict(full_disk: Path):
    code = (
        "from underdog.records import Problem\nfrom underdog.verifiers.math.math import Math\n"
        "verifier = Math(workers=2)\n"
        r"pairs = [(Problem('p', '?', rf'{k}\tan^2(x)+{k}'), rf'\boxed{{{k}\sec^2(x)}}') for k in range(2, 12)]" "\n"
        "print({v.outcome for v in verifier.judge_all(pairs)})\nverifier.close()"
    )  # fmt: skip
    folders = dict.fromkeys(("TMPDIR", "TMP", "TEMP", "HOME", "XDG_CACHE_HOME"), str(full_disk))
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **folders})
    assert out.stdout.strip() == "{'right'}", out.stderr


# -- before training --


def problems(*answers: str) -> list[Problem]:
    return [Problem(str(i), "?", answer) for i, answer in enumerate(answers)]


def test_gold_answers_that_pass_are_counted():
    verifier = Math(numbers_only=True)
    assert validate(verifier, problems("7", "#### 1,234", r"so \boxed{\frac{1}{2}}")) == 1.0
    assert validate(verifier, problems("7", "8", "nine", "10"), minimum=0.75) == 0.75


def test_training_is_refused_below_the_stated_rate():
    with pytest.raises(RunError, match=r"75.0%.*98.0%.*problem 2: could_not_grade, gold \('nine'\)"):
        validate(Math(numbers_only=True), problems("7", "8", "nine", "10"))
    with pytest.raises(RunError, match="no problem"):
        validate(Math(numbers_only=True), [])
