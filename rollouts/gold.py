"""The engine for supervised arms: it hands out the data's own solutions as samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..parts import UserError
from ..records import Problem, Request, Sample
from .base import DecodesNothing, EnginePart, Surroundings


class Gold(EnginePart):
    """Samples are the problem's `solution`, or that of `info["solutions"]` which the sample's seed picks."""

    live: ClassVar[bool] = False

    def open(self, surroundings: Surroundings) -> GoldEngine:
        """Start the engine.

        Raises:
            UserError: the tokenizer has no end token, so no solution could teach a model to stop.
        """
        if surroundings.tokenizer.eos_token_id is None:
            raise UserError("the engine gold needs a tokenizer with an end token (eos_token); set one")
        return GoldEngine(surroundings.tokenizer)


class GoldEngine(DecodesNothing):
    """Tokenised solutions, an end token each; `logp_T` is None, since nothing was sampled."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        """One sample a seed.

        Raises:
            UserError: a problem has no solution, or one longer than `max_tokens` (a solution is never cut).
        """
        if self.version is None:
            raise RuntimeError("publish a policy before generating")
        texts = [_solution(request.problem, seed) for request in requests for seed in request.seeds]
        tokens = iter(self._tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else [])
        named = iter(texts)
        return [
            [self._sample(request, index, next(named), next(tokens)) for index in range(len(request.seeds))]
            for request in requests
        ]

    def _sample(self, request: Request, index: int, text: str, ids: list[int]) -> Sample:
        tokens_T = np.array([*ids, self._tokenizer.eos_token_id], dtype=np.int64)
        limit = request.sampling.max_tokens
        if len(tokens_T) > limit:
            raise UserError(
                f"the solution of problem {request.problem.id!r} is {len(tokens_T)} tokens long, over "
                f"rollouts.max_tokens={limit}; raise that or leave the problem out"
            )
        assert self.version is not None
        return Sample(
            problem_id=request.problem.id,
            index=index,
            version=self.version,
            seed=request.seeds[index],
            prompt_ids=request.prompt_ids,
            tokens_T=tokens_T,
            logp_T=None,
            text=text,
            stop="gold",
        )


def _solution(problem: Problem, seed: int) -> str:
    several = problem.info.get("solutions")
    if several:
        return several[seed % len(several)]
    if problem.solution is None:
        raise UserError(f"problem {problem.id!r} has no solution for the engine gold; name a column in data.solution")
    return problem.solution
