"""What runs in a worker's process: one engine, which holds what it is told to hold before it serves."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...records import Request, Sample, Version
from ..base import Engine, EnginePart, Receipt, Surroundings


@dataclass(frozen=True)
class Place:
    """Where a worker runs."""

    pid: int
    host: str
    node: str
    """Ray's id of the node."""


@dataclass(frozen=True)
class Publication:
    """A version and where its snapshot is; every call carries it, so that a fresh worker knows what to hold."""

    version: Version
    snapshot: Any
    """Ray's reference of a `Snapshot`; read only by workers that do not hold the version."""


@dataclass(frozen=True)
class Reply:
    """What a worker answers: the version that it held, and what was asked for."""

    version: Version
    """As its engine calls it."""
    receipts: list[Receipt] = field(default_factory=list)
    """Where they were asked for, or the version was new to a worker that was asked for samples."""
    samples: bytes = b""
    """Pickled lists of samples. As bytes they become arrays that may be written to, and pin no shared memory."""


class Worker:
    """One engine in a process of its own; a Ray actor when `pool` makes it one."""

    def __init__(self, name: str, parcel: tuple[EnginePart, Surroundings], threads: int, log: Path) -> None:
        """Opens nothing yet, so that errors of the engine reach whoever calls, not whoever starts actors."""
        os.environ["OMP_NUM_THREADS"] = str(threads)
        self._name, self._threads = name, threads
        self._part, self._surroundings = parcel
        self._engine: Engine | None = None
        self._version: Version | None = None
        _write_to(log)

    def ping(self) -> Place:
        """Says that it is there, and where."""
        import ray

        return Place(os.getpid(), socket.gethostname(), ray.get_runtime_context().get_node_id())

    def open(self) -> None:
        """Open the engine, unless it is open."""
        if self._engine is None:
            import torch

            torch.set_num_threads(self._threads)
            self._engine = self._part.open(self._surroundings)

    def publish(self, publication: Publication) -> Reply:
        """Hold the version."""
        version, _ = self._hold(publication)
        return Reply(version)

    def receipts(self, publication: Publication) -> Reply:
        """What the engine holds, read back from inside it."""
        version, _ = self._hold(publication)
        return Reply(version, self._read_back())

    def generate(self, publication: Publication, requests: Sequence[Request]) -> Reply:
        """Samples of the version, each with this worker's name."""
        version, new = self._hold(publication)
        receipts = self._read_back() if new else []
        assert self._engine is not None
        answered = [[self._named(sample) for sample in samples] for samples in self._engine.generate(requests)]
        return Reply(version, receipts, pickle.dumps(answered, protocol=pickle.HIGHEST_PROTOCOL))

    def close(self) -> None:
        """Free what the engine holds."""
        if self._engine is not None:
            self._engine.close()

    def _hold(self, publication: Publication) -> tuple[Version, bool]:
        """Publish to the engine what it does not hold yet; the version that it holds, and whether it was new."""
        if self._version is not None and self._version == publication.version:
            return self._version, False
        import ray

        self.open()
        assert self._engine is not None
        snapshot: Any = ray.get(publication.snapshot)
        snapshot.number, snapshot.tokenizer = publication.version.number, self._surroundings.tokenizer
        self._version = None
        self._version = version = self._engine.publish(snapshot)
        return version, True

    def _read_back(self) -> list[Receipt]:
        assert self._engine is not None
        return [replace(receipt, worker=self._name) for receipt in self._engine.receipts()]

    def _named(self, sample: Sample) -> Sample:
        return replace(sample, served=replace(sample.served, worker=self._name))


def _write_to(log: Path) -> None:
    """Send what this process and its children print to `log`, where a node can reach its folder."""
    if not log.parent.is_dir():
        return
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
