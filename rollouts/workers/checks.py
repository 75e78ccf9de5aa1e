"""Whether a worker's answer can be what was asked for; rubbish is a fault, never a sample."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import get_args

import numpy as np

from ...records import Request, Sample, Stop, Version
from .actor import Reply
from .faults import FaultError

STOPS = get_args(Stop)


def check_version(reply: object, version: Version) -> Reply:
    """The reply, if it is one and its worker holds `version`.

    Raises:
        FaultError: it is not.
    """
    if not isinstance(reply, Reply):
        raise FaultError("worker_rubbish", f"it answered a {type(reply).__name__}")
    if reply.version != version:
        raise FaultError("worker_rubbish", f"it holds version {_shown(reply.version)} in place of {_shown(version)}")
    return reply


def check_samples(reply: Reply, requests: Sequence[Request], version: Version, vocab: int) -> list[list[Sample]]:
    """One list of samples a request, if each can be what was asked for: `vocab` is the number of token ids.

    Raises:
        FaultError: one cannot.
    """
    try:
        answered: list[list[Sample]] = pickle.loads(reply.samples)
        wrong = _wrong(answered, requests, version, vocab)
    except Exception as error:  # rubbish may fail in any way
        wrong = f"its samples cannot be read ({type(error).__name__}: {error})"
    if wrong:
        raise FaultError("worker_rubbish", wrong)
    return answered


def _wrong(answered: list[list[Sample]], requests: Sequence[Request], version: Version, vocab: int) -> str:
    """What is wrong with the answer to all requests; nothing: an empty text."""
    if len(answered) != len(requests):
        return f"it answered {len(answered)} of {len(requests)} requests"
    for request, samples in zip(requests, answered, strict=True):
        if len(samples) != len(request.seeds):
            return f"problem {request.problem.id!r} has {len(samples)} samples of {len(request.seeds)}"
        for index, sample in enumerate(samples):
            wrong = _wrong_sample(sample, index, request, version, vocab)
            if wrong:
                return f"problem {request.problem.id!r}, sample {index}: {wrong}"
    return ""


def _wrong_sample(sample: Sample, index: int, request: Request, version: Version, vocab: int) -> str:
    """What is wrong with one sample."""
    tokens_T, logp_T = np.asarray(sample.tokens_T), sample.logp_T
    asked = (request.problem.id, index, request.seeds[index])
    if (sample.problem_id, sample.index, sample.seed) != asked:
        return f"it is of {(sample.problem_id, sample.index, sample.seed)}, asked for was {asked}"
    if sample.version != version:
        return f"version {_shown(sample.version)} served it in place of {_shown(version)}"
    if not np.array_equal(sample.prompt_ids, request.prompt_ids):
        return "its prompt is not the one that was sent"
    if tokens_T.ndim != 1 or tokens_T.dtype.kind != "i" or len(tokens_T) > request.sampling.max_tokens:
        return f"{tokens_T.dtype} tokens of shape {tokens_T.shape}, with {request.sampling.max_tokens} at most"
    if len(tokens_T) and not (tokens_T.min() >= 0 and tokens_T.max() < vocab):
        return f"a token id outside the vocabulary of {vocab}"
    if logp_T is not None and (np.shape(logp_T) != tokens_T.shape or not np.isfinite(logp_T).all()):
        return "log-probs that are not one finite number a token"
    if sample.stop not in STOPS:
        return f"it ended by {sample.stop!r}"
    return ""


def _shown(version: Version) -> str:
    return f"{version.number} ({version.digest[:12]})"
