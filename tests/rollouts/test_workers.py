"""Workers serve what one process would, whatever happens to them; and nothing of them is left behind."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from underdog.parts import RunError, UserError, find
from underdog.records import Problem, Request, Sample, Sampling, Version, derive_seed
from underdog.rl.learner.learner import Learner
from underdog.rl.learner.options import LearnerOptions
from underdog.rollouts.base import EnginePart, Surroundings
from underdog.rollouts.local import Local
from underdog.rollouts.workers import cluster
from underdog.rollouts.workers.actor import Reply
from underdog.rollouts.workers.checks import check_samples, check_version
from underdog.rollouts.workers.faults import FaultError
from underdog.rollouts.workers.options import Resources
from underdog.rollouts.workers.pool import WorkerPool, cut
from underdog.rollouts.workers.snapshot import Snapshot

pytest.importorskip("ray")

PLANTED = Path(__file__).with_name("planted_engine.py")
SAMPLING = Sampling(max_tokens=12)


@pytest.fixture(scope="module")
def one_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Ray stays up for all tests of this file."""
    logs = tmp_path_factory.mktemp("ray") / "logs"
    logs.mkdir()
    cluster.connect(logs)
    yield logs
    cluster.disconnect()


@pytest.fixture(scope="module")
def learner(tiny_shape: str) -> Learner:
    options = LearnerOptions.model_validate({"adapter": {"name": "lora", "r": 4, "alpha": 8}, "lr": 1e-3})
    return Learner(tiny_shape, options, seed=0, steps=10, init_adapter=None, log=lambda text: None)


@dataclass
class Planted:
    """An engine with faults to come, and what it is opened with."""

    part: EnginePart
    surroundings: Surroundings

    def plant(self, *names: str) -> None:
        """Let these faults come, each once, to whichever worker meets it first."""
        find("engine", f"{PLANTED}:plant")(Path(getattr(self.part, "folder")), *names)  # noqa: B009 (not on every engine)

    def open(self, workers: int, **resources: Any) -> WorkerPool:
        """A pool of it."""
        return WorkerPool(self.part, self.surroundings, workers, Resources(**resources))


def plantable(learner: Learner, folder: Path) -> Planted:
    (folder / "faults").mkdir()
    part = find("engine", f"{PLANTED}:Planted")(folder=str(folder / "faults"))
    return Planted(part, Surroundings(learner.tokenizer, learner.device, folder))


@pytest.fixture
def planted(learner: Learner, one_ray: Path, tmp_path: Path) -> Planted:
    return plantable(learner, tmp_path)


@pytest.fixture(scope="module")
def lasting(learner: Learner, one_ray: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A pool of two workers for several tests, whose faults it survives."""
    planted = plantable(learner, tmp_path_factory.mktemp("lasting"))
    pool = planted.open(2, timeout=10.0, replacements=6)
    yield SimpleNamespace(pool=pool, plant=planted.plant, surroundings=planted.surroundings)
    pool.close()


def requests_of(learner: Learner, count: int = 5, group: int = 4, step: int = 1) -> list[Request]:
    texts = [f"{i}+{i}*2=" for i in range(count)]
    ids = [np.asarray(learner.tokenizer.encode(text), dtype=np.int32) for text in texts]
    seeds = [tuple(derive_seed(0, step, text, index) for index in range(group)) for text in texts]
    return [
        Request(Problem(text, text), prompt, seed, SAMPLING)
        for text, prompt, seed in zip(texts, ids, seeds, strict=True)
    ]


def served_here(learner: Learner, surroundings: Surroundings, shares: Sequence[Sequence[Request]]) -> list[Any]:
    """What the engine in this process gives for each share on its own."""
    engine = Local().open(surroundings)
    engine.publish(learner.policy)
    return [samples for share in shares for samples in engine.generate(share)]


def assert_same(ones: list[list[Sample]], others: list[list[Sample]]) -> None:
    """Equal to the last bit, but for who served them."""
    assert [len(samples) for samples in ones] == [len(samples) for samples in others]
    for one, other in zip(chain(*ones), chain(*others), strict=True):
        assert one.logp_T is not None
        assert other.logp_T is not None
        assert one.tokens_T.tobytes() == other.tokens_T.tobytes()
        assert one.logp_T.tobytes() == other.logp_T.tobytes()
        for name in ("problem_id", "index", "seed", "version", "text", "stop"):
            assert getattr(one, name) == getattr(other, name)


def moved(learner: Learner) -> None:
    """One more version: every trained tensor changes."""
    with torch.no_grad():
        for parameter in learner._model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)
    learner.policy.number += 1


def test_workers_serve_what_one_process_serves_share_by_share(lasting: Any, learner: Learner) -> None:
    pool, requests = lasting.pool, requests_of(learner)
    answered = []
    for _ in range(2):
        version = pool.publish(learner.policy)
        answered = pool.generate(requests)
        assert_same(answered, served_here(learner, lasting.surroundings, [requests[:2], requests[2:]]))
        assert [samples[0].served.worker for samples in answered] == ["worker-0"] * 2 + ["worker-1"] * 3
        receipts = pool.receipts()
        assert [receipt.worker for receipt in receipts] == ["worker-0", "worker-1"]
        for receipt in receipts:
            assert receipt.version == version
            assert receipt.held == receipt.expected == Local().expected(learner.policy)
        moved(learner)
    assert pool.faults == {}
    assert all(sample.tokens_T.flags.writeable for samples in answered for sample in samples)
    assert len(pool.generate(requests[:1])) == 1  # fewer requests than workers
    assert pool.generate([]) == []
    logs = lasting.surroundings.folder / "logs"
    assert all("an engine opens" in (logs / f"worker-{i}.log").read_text() for i in range(2))


def test_an_update_that_changed_nothing_is_a_version_of_its_own(lasting: Any, learner: Learner) -> None:
    first = lasting.pool.publish(learner.policy)
    learner.policy.number += 1
    second = lasting.pool.publish(learner.policy)
    assert (second.number, second.digest) == (first.number + 1, first.digest)
    assert lasting.pool.generate(requests_of(learner, 1))[0][0].version == second


def test_a_killed_worker_s_share_is_served_again_whole(
    lasting: Any, learner: Learner, caplog: pytest.LogCaptureFixture
) -> None:
    requests = requests_of(learner)
    lasting.pool.publish(learner.policy)
    lasting.plant("death")
    answered = lasting.pool.generate(requests)
    assert_same(answered, served_here(learner, lasting.surroundings, [requests[:2], requests[2:]]))
    asked = [(r.problem.id, index, seed) for r in requests for index, seed in enumerate(r.seeds)]
    assert [(s.problem_id, s.index, s.seed) for samples in answered for s in samples] == asked
    assert lasting.pool.faults["worker_died"] == 1
    assert "(worker_died): its process ended (" in caplog.text


@pytest.mark.slow
def test_each_kind_of_fault_is_counted_logged_and_mended(
    lasting: Any, learner: Learner, caplog: pytest.LogCaptureFixture
) -> None:
    pool, requests = lasting.pool, requests_of(learner)
    pool.publish(learner.policy)
    before = Counter(pool.faults)
    lasting.plant("hanging", "no_memory", "not_finite", "other_version_held")
    assert_same(pool.generate(requests), served_here(learner, lasting.surroundings, [requests[:2], requests[2:]]))
    assert pool.faults - before == {"worker_hung": 1, "worker_out_of_memory": 1, "worker_rubbish": 2}
    for cause in ("no answer within 10 s", "MemoryError: 10 GiB", "one finite number a token", "holds version 99"):
        assert sum(cause in message for message in caplog.messages) == 1, (cause, caplog.messages)
    assert sum("is replaced, and serves its share again" in message for message in caplog.messages) == 4


def test_the_engine_s_own_errors_reach_the_caller_as_they_are(lasting: Any, planted: Planted, learner: Learner) -> None:
    planted.plant("no_opening")
    with pytest.raises(UserError, match="^this engine cannot be opened so; choose another$"):
        planted.open(1)
    lasting.pool.publish(learner.policy)
    before = Counter(lasting.pool.faults)
    for fault, kind, words in (("no_user", UserError, "too long; leave it out"), ("no_run", RunError, "start again")):
        lasting.plant(fault)
        with pytest.raises(kind, match=f"{words}$") as raised:
            lasting.pool.generate(requests_of(learner, 1))
        assert type(raised.value) is kind
    assert lasting.pool.faults == before


def test_a_share_that_loses_every_worker_stops_the_run_with_the_cause(planted: Planted, learner: Learner) -> None:
    pool = planted.open(1, replacements=1)
    with pytest.raises(RunError, match="hold no policy; publish one before generating"):
        pool.generate(requests_of(learner, 1))
    pool.publish(learner.policy)
    planted.plant("death", "bug")
    with pytest.raises(RunError, match=r"^worker-0 was lost 2 times in a row, at last so: ZeroDivisionError: .*log"):
        pool.generate(requests_of(learner, 1))
    assert pool.faults == {"worker_failed": 1, "worker_died": 1}
    pool.close()


def test_workers_that_this_machine_has_no_room_for_end_in_one_sentence(planted: Planted) -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match=r"2 workers need 4096 CPUs of \d+ on this machine; lower rollouts.workers"):
        planted.open(2, cpus=2048)
    assert time.monotonic() - started < 5


def test_a_cluster_that_is_not_there_ends_in_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # a port at which nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        script = (
            "import pathlib; from underdog.rollouts.workers import cluster; from underdog.parts import UserError\n"
            "try: cluster.connect(pathlib.Path())\nexcept UserError as error: print(error)"
        )
        command, environment = [sys.executable, "-c", script], {**os.environ, "RAY_ADDRESS": address}
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(f"the Ray cluster at {address} cannot be joined ("), done.stderr
    assert done.stdout.endswith("or unset it to work on this machine alone\n")


def test_closing_ends_a_call_in_another_thread(planted: Planted, learner: Learner) -> None:
    pool = planted.open(1)
    pool.publish(learner.policy)
    planted.plant("hanging")
    caught: list[BaseException] = []

    def generate() -> None:
        try:
            pool.generate(requests_of(learner, 1))
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=generate)
    thread.start()
    while list((planted.surroundings.folder / "faults").iterdir()):
        time.sleep(0.05)
    started, place = time.monotonic(), pool.places[0]
    assert place is not None
    pool.close()
    thread.join(10)
    assert time.monotonic() - started < 10
    assert [str(error) for error in caught] == ["the workers were closed while they worked"]
    assert gone(place.pid)


def gone(pid: int) -> bool:
    """Whether a process ends within some seconds."""
    try:
        process = psutil.Process(pid)
        return process.status() == psutil.STATUS_ZOMBIE or process.wait(10) is not False
    except psutil.NoSuchProcess:
        return True


VERSION = Version(3, "digest")


def sample(**changed: Any) -> Sample:
    prompt, tokens, logp = np.arange(3), np.array([1, 2]), np.array([-1.0, -0.5], np.float32)
    return replace(Sample("p", 0, VERSION, 7, prompt, tokens, logp, "ab", "eos"), **changed)


REQUEST = Request(Problem("p", "?"), np.arange(3), (7,), Sampling(max_tokens=4))


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ([], "answered 0 of 1 requests"),
        ([[]], "0 samples of 1"),
        ([[sample(seed=8)]], "asked for was"),
        ([[sample(problem_id="q")]], "asked for was"),
        ([[sample(index=1)]], "asked for was"),
        ([[sample(version=Version(2, "digest"))]], "version 2"),
        ([[sample(prompt_ids=np.arange(4))]], "prompt"),
        ([[sample(tokens_T=np.array([1, 10]))]], "outside the vocabulary of 10"),
        ([[sample(tokens_T=np.array([-1, 2]))]], "outside the vocabulary of 10"),
        ([[sample(tokens_T=np.array([1.0, 2.0]))]], "float64 tokens"),
        ([[sample(tokens_T=np.ones(5, int), logp_T=np.zeros(5))]], "with 4 at most"),
        ([[sample(logp_T=np.zeros(3))]], "one finite number a token"),
        ([[sample(logp_T=np.array([0.0, np.inf]))]], "one finite number a token"),
        ([[sample(stop="tired")]], "ended by 'tired'"),
        (None, "cannot be read"),
        ([["text"]], "cannot be read"),
    ],
)
def test_rubbish_is_told_from_samples(answer: Any, cause: str) -> None:
    with pytest.raises(FaultError, match=cause) as raised:
        check_samples(Reply(VERSION, [], pickle.dumps(answer)), [REQUEST], VERSION, 10)
    assert raised.value.kind == "worker_rubbish"


def test_good_samples_pass() -> None:
    for good in (sample(), sample(logp_T=None)):
        (answered,) = check_samples(Reply(VERSION, [], pickle.dumps([[good]])), [REQUEST], VERSION, 10)
        assert answered[0].text == "ab"
    with pytest.raises(FaultError, match="in place of 3"):
        check_version(Reply(Version(2, "digest")), VERSION)
    with pytest.raises(FaultError, match="answered a str"):
        check_version("hello", VERSION)


def test_shares_are_contiguous_and_even() -> None:
    shares = cut([*range(7)], 3)  # type: ignore[list-item]
    assert shares == [[0, 1], [2, 3], [4, 5, 6]]
    assert cut([*range(2)], 3) == [[], [0], [1]]  # type: ignore[list-item]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_snapshot_travels_as_bytes_beside_the_pickle(learner: Learner, dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in learner.policy.weights()}
    tensors |= {"scalar": torch.tensor(1.5, dtype=dtype), "empty": torch.empty(0, 3, dtype=dtype)}
    taken = Snapshot(4, learner.policy.model_config, "digest", None, tensors)
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(taken, protocol=5, buffer_callback=buffers.append)
    assert sum(len(buffer.raw()) for buffer in buffers) == sum(t.numel() * t.element_size() for t in tensors.values())
    assert len(data) < 20_000
    back = pickle.loads(data, buffers=buffers)
    assert (back.number, back.digest(), back.adapter()) == (4, "digest", None)
    for name, tensor in back.weights():
        assert tensor.dtype == dtype
        assert tensor.shape == tensors[name].shape
        assert torch.equal(tensor, tensors[name])


def test_a_snapshot_holds_the_form_that_was_asked_for(learner: Learner) -> None:
    policy = learner.policy
    adapter = Snapshot.of(policy, "adapter").adapter()
    expected = policy.adapter()
    assert adapter is not None
    assert expected is not None
    assert adapter[0] == expected[0]
    assert adapter[1].keys() == expected[1].keys()
    assert Snapshot.of(policy, "adapter").digest() == policy.digest() == Snapshot.of(policy, "weights").digest()
    with pytest.raises(UserError, match="form"):
        Snapshot.of(policy, "adapter").weights()
