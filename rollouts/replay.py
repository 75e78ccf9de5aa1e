"""The engine that trains again from what another run sampled: the same tokens, without decoding any."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..parts import RunError, UserError
from ..records import Request, Sample, Served, Version
from .base import DecodesNothing, EnginePart, Surroundings


class Replay(EnginePart):
    """The samples of a saved run, found by problem and seed: the recipe and seed must be that run's."""

    live: ClassVar[bool] = False

    run: str
    """Folder of the run whose samples are used again."""

    def open(self, surroundings: Surroundings) -> ReplayEngine:
        """Start the engine.

        Raises:
            UserError: `run` is not the folder of a run that saved samples.
        """
        folder = Path(self.run).expanduser() / "rollouts"
        files = sorted(folder.glob("step_*.jsonl"), key=_step)
        if not files:
            raise UserError(
                f"{self.run} holds no rollouts/step_N.jsonl; give the folder of a run as rollouts.engine.run"
            )
        return ReplayEngine(files)


class ReplayEngine(DecodesNothing):
    """Samples as they were saved, each with the version that served it.

    Files are read in the order of their steps and only as far as requests reach; what is kept of them is
    where each sample stands, so memory does not grow with the length of the samples.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        super().__init__()
        self._unread = list(reversed(files))
        self._places: dict[tuple[str, int], tuple[Path, int]] = {}

    def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        """One sample a seed.

        Raises:
            RunError: the saved run lacks a sample, or has it for another prompt, or its file is damaged.
        """
        return [[self._fetch(request, seed) for seed in request.seeds] for request in requests]

    def _fetch(self, request: Request, seed: int) -> Sample:
        path, offset = self._find(request.problem.id, seed)
        with path.open("rb") as file:
            file.seek(offset)
            sample = _sample(file.readline(), path)
        if not np.array_equal(sample.prompt_ids, request.prompt_ids):
            raise RunError(
                f"{path} has problem {sample.problem_id!r} with another prompt; replay needs the model, "
                "data and template of the run that saved it"
            )
        return sample

    def _find(self, problem_id: str, seed: int) -> tuple[Path, int]:
        while (problem_id, seed) not in self._places:
            if not self._unread:
                raise RunError(
                    f"the saved run has no sample of problem {problem_id!r} with seed {seed}; replay needs "
                    "its recipe and seed, and at most its number of steps"
                )
            path = self._unread.pop()
            for key, offset in _index(path):
                self._places.setdefault(key, (path, offset))
        return self._places[problem_id, seed]


def _step(path: Path) -> int:
    digits = re.search(r"\d+", path.stem)
    return int(digits[0]) if digits else 0


def _index(path: Path) -> Iterator[tuple[tuple[str, int], int]]:
    """(problem id, seed) of each saved sample, and the offset in bytes of its line."""
    offset = 0
    with path.open("rb") as file:
        for line in file:
            sample = _sample(line, path)
            yield (sample.problem_id, sample.seed), offset
            offset += len(line)


def _sample(line: bytes, path: Path) -> Sample:
    """The sample of one line of a run's `rollouts/step_N.jsonl`."""
    try:
        return sample_of(json.loads(line))
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} holds a damaged sample ({error!r}); replay needs the files as the run wrote them"
        ) from error


def sample_of(row: Mapping[str, Any]) -> Sample:
    """The sample of one row as a run writes it down; float32 and ids come back exactly.

    Raises:
        KeyError, TypeError, ValueError: the row is damaged.
    """
    return Sample(
        problem_id=row["problem"],
        index=row["index"],
        version=Version(row["version"], row["digest"]),
        seed=row["seed"],
        prompt_ids=np.array(row["prompt_ids"], dtype=np.int32),
        tokens_T=np.array(row["tokens"], dtype=np.int64),
        logp_T=None if row["logp"] is None else np.array(row["logp"], dtype=np.float32),
        text=row["text"],
        stop=row["stop"],
        served=Served(row.get("worker", ""), row.get("adapter"), row.get("cached", 0)),
    )
