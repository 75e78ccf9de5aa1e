"""The engine that decodes in the learner's own process, from a copy of its own that `publish` refreshes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from ..parts import RunError
from ..records import Policy, Request, Sample, Sampling, Version
from .base import NO_FAULTS, EnginePart, Receipt, Surroundings
from .requests import check_request

if TYPE_CHECKING:
    import torch

    from .decoding.scheduler import Decoder, Drawn, Job
    from .decoding.stops import Stops

log = logging.getLogger(__name__)

MOST_SLOTS = 256
"""Rows beyond which a larger batch brings no more speed."""
MEMORY_SHARE = 0.25
"""Of the free memory, what the cache of all rows may take at their full length."""


class Local(EnginePart):
    """Continuous batching on the learner's device, each prompt computed once for its whole group."""

    slots: int | None = Field(default=None, ge=1)
    """Samples decoded at once; none: up to 256, as many as fit in a quarter of the free memory."""

    def open(self, surroundings: Surroundings) -> LocalEngine:
        """Start the engine; it holds nothing before the first `publish`."""
        return LocalEngine(self.slots, surroundings)

    def expected(self, policy: Policy) -> str:
        """Of the effective weights, as `decoding.held` says."""
        from .decoding.held import Expected

        expected = Expected(policy.model_config)
        for _ in expected.watch(policy.weights()):
            pass
        return expected.hexdigest()


class LocalEngine:
    """Samples from its copy of the policy; `stats` counts what it has computed."""

    faults = NO_FAULTS

    def __init__(self, slots: int | None, surroundings: Surroundings) -> None:
        from .decoding.scheduler import Stats

        self._slots, self._tokenizer, self._device = slots, surroundings.tokenizer, surroundings.device
        self._version: Version | None = None
        self._expected = ""
        self._decoder: Decoder | None = None
        self._config: Any = None
        self._ends: tuple[int, ...] = ()
        self.stats = Stats()

    def publish(self, policy: Policy) -> Version:
        """Copy the policy's effective weights, unless they are those held already; the number is the policy's."""
        from .decoding.held import Expected
        from .decoding.stops import end_tokens

        digest = policy.digest()
        if self._version is not None and self._version.digest == digest:
            self._version = Version(policy.number, digest)
            return self._version
        self._version = None
        expected = Expected(policy.model_config)
        weights = expected.watch(policy.weights())
        if self._decoder is None:
            first = next(weights)
            weights = chain([first], weights)
            self._config = policy.model_config
            self._ends = end_tokens(self._config, self._tokenizer)
            self._decoder = _decoder(self._config, first[1].dtype, self._device)
        self._decoder.load(weights)
        self._version, self._expected = Version(policy.number, digest), expected.hexdigest()
        return self._version

    def receipts(self) -> list[Receipt]:
        """The tensors that decode, read back.

        Raises:
            RunError: nothing is published.
        """
        from ..kernels.digest import tensors_digest

        if self._decoder is None or self._version is None:
            raise RunError("the engine local holds no policy; publish one before asking for its receipt")
        return [Receipt("", self._version, tensors_digest(self._decoder.held()), self._expected)]

    def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        """Samples from the version published last.

        Raises:
            UserError: a prompt is empty, or too long for the model with `max_tokens` after it.
            RunError: nothing is published.
        """
        from .decoding.scheduler import Job, Scheduler

        if self._decoder is None or self._version is None:
            raise RunError("the engine local holds no policy; publish one before generating")
        for request in requests:
            check_request(request, self._decoder.vocab, getattr(self._config, "max_position_embeddings", None))
        stops = {sampling: self._stops(sampling) for sampling in {r.sampling for r in requests}}
        prompts: dict[bytes, np.ndarray] = {}
        for request in requests:
            prompts.setdefault(_key(request), np.asarray(request.prompt_ids, dtype=np.int64))
        index = {key: i for i, key in enumerate(prompts)}
        jobs = [Job(index[_key(r)], seed, r.sampling, stops[r.sampling]) for r in requests for seed in r.seeds]
        if not jobs:
            return [[] for _ in requests]
        slots = self._slots or self._fitting(jobs, list(prompts.values()))
        drawn = Scheduler(self._decoder, list(prompts.values()), jobs, slots, self.stats).run()
        return self._samples(requests, jobs, drawn)

    def close(self) -> None:
        """Free the copy and its cache."""
        self._decoder = self._version = None

    def _stops(self, sampling: Sampling) -> Stops:
        from .decoding.stops import Stops

        assert self._decoder is not None
        return Stops(sampling, self._ends, self._tokenizer, self._decoder.vocab)

    def _fitting(self, jobs: Sequence[Job], prompts: Sequence[np.ndarray]) -> int:
        assert self._decoder is not None
        longest = max(len(prompts[job.prompt]) + job.sampling.max_tokens for job in jobs)
        fit = int(MEMORY_SHARE * _free_bytes(self._device)) // self._decoder.row_bytes(longest)
        return max(1, min(MOST_SLOTS, fit))

    def _samples(self, requests: Sequence[Request], jobs: Sequence[Job], drawn: Sequence[Drawn]) -> list[list[Sample]]:
        assert self._version is not None
        texts: list[str] = [""] * len(jobs)
        for stops in {id(job.stops): job.stops for job in jobs}.values():
            mine = [i for i, job in enumerate(jobs) if job.stops is stops]
            for i, text in zip(mine, stops.texts([drawn[i].tokens_T for i in mine]), strict=True):
                texts[i] = text
        done = zip(drawn, texts, strict=True)
        return [
            [
                Sample(
                    problem_id=request.problem.id,
                    index=index,
                    version=self._version,
                    seed=seed,
                    prompt_ids=request.prompt_ids,
                    tokens_T=one.tokens_T,
                    logp_T=one.logp_T,
                    text=text,
                    stop=one.stop,
                )
                for (index, seed), (one, text) in zip(enumerate(request.seeds), done, strict=False)
            ]
            for request in requests
        ]


def _key(request: Request) -> bytes:
    return np.asarray(request.prompt_ids, dtype=np.int64).tobytes()


def _decoder(config: Any, dtype: torch.dtype, device: str) -> Decoder:
    """The fast decoder where it knows the model, else the plain one; which and why is logged."""
    from ..kernels.precision import compute_dtype
    from .decoding.family import UnknownModelError, describe
    from .decoding.model import FastDecoder
    from .decoding.plain import PlainDecoder

    try:
        return FastDecoder(describe(config), compute_dtype(dtype, device), device)
    except UnknownModelError as reason:
        log.warning("decoding on the plain path (slower): the fast one does not know %s", reason)
        return PlainDecoder(config, dtype, device)


def _free_bytes(device: str) -> int:
    import psutil
    import torch

    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    if device.startswith("mps"):
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return psutil.virtual_memory().available
