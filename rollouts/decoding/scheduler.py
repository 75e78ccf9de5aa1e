"""Continuous batching: rows decode side by side, and a finished row's place goes to the next waiting sample."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ...records import Sampling, Stop
from .sampling import Rules, draw, uniform
from .stops import EOS, GOES_ON, STOP, Stops

AHEAD = 4096
"""Prompt tokens computed ahead of need in one go, so that small prompts share a forward."""
CHUNK = 1 << 23
"""Logits held at once: rows times vocabulary."""

REASONS: dict[int, Stop] = {GOES_ON: "length", EOS: "eos", STOP: "stop"}


class Decoder(Protocol):
    """A model that computes prompts once and takes rows one token further."""

    vocab: int
    device: torch.device
    rolling: bool
    """Whether rows can be seated while others decode."""

    def load(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Copy the policy's effective weights in."""
        ...

    def held(self) -> Iterable[tuple[str, Tensor]]:
        """What decodes, read back, by the policy's names."""
        ...

    def row_bytes(self, length: int) -> int:
        """Bytes of cache that a row of `length` positions takes."""
        ...

    def threads(self, rows: int) -> AbstractContextManager[None]:
        """The processor's threads that suit steps of `rows` rows."""
        ...

    def prefill(self, prompts: Sequence[np.ndarray]) -> list[Any]:
        """Compute each prompt once; each result has `out`, which `logits` takes."""
        ...

    def fit(self, rows: int, length: int) -> None:
        """Make room for `rows` rows, and for `length` positions, which is all that any of them uses."""
        ...

    def seat(self, rows: Sequence[int], prefixes: Sequence[Any]) -> None:
        """Let each row start after its prompt; rows follow those in use, or replace them."""
        ...

    def keep(self, order: Sequence[int]) -> None:
        """Row i becomes what row `order[i]` was; the rest is free."""
        ...

    def release(self) -> None:
        """Free the rows' memory."""
        ...

    def step(self, tokens_B: np.ndarray, positions_B: np.ndarray) -> Tensor:
        """Feed each row a token at its position; outputs that `logits` takes."""
        ...

    def logits(self, out_BH: Tensor) -> Tensor:
        """Float32 logits [B, V]."""
        ...


@dataclass(frozen=True)
class Job:
    """One sample to be drawn; jobs of one prompt share its index."""

    prompt: int
    seed: int
    sampling: Sampling
    stops: Stops


@dataclass(frozen=True)
class Drawn:
    """One sample's tokens, log-probabilities and end."""

    tokens_T: np.ndarray
    logp_T: np.ndarray
    stop: Stop


@dataclass
class Stats:
    """What an engine has computed so far: prompts and their tokens (each once), steps, and rows over all steps."""

    prompts: int = 0
    prompt_tokens: int = 0
    steps: int = 0
    rows: int = 0
    samples: int = 0


class Scheduler:
    """Draws all jobs of one `generate` with at most `slots` rows at once.

    Rows 0 to `_active` are in use; those of them whose sample has ended are holes, until a waiting sample takes them or
    the rows close up.
    """

    def __init__(
        self, decoder: Decoder, prompts: Sequence[np.ndarray], jobs: Sequence[Job], slots: int, stats: Stats
    ) -> None:
        self._decoder, self._prompts, self._jobs, self._stats = decoder, prompts, jobs, stats
        self._slots = min(slots, len(jobs))
        self._waiting = deque(range(len(jobs)))
        self._unseated_P = np.bincount([job.prompt for job in jobs], minlength=len(prompts))
        self._prefixes: dict[int, Any] = {}
        self._drawn: dict[int, Drawn] = {}
        longest = max(job.sampling.max_tokens for job in jobs)
        self._active = 0
        self._job_S = np.zeros(self._slots, dtype=np.int64)
        self._length_S = np.zeros(self._slots, dtype=np.int64)
        self._tokens_ST = np.zeros((self._slots, longest), dtype=np.int64)
        self._logp_ST = np.zeros((self._slots, longest), dtype=np.float32)
        self._rules: Rules | None = None
        self._seed_J = np.array([job.seed for job in jobs], dtype=np.uint64)
        self._limit_J = np.array([job.sampling.max_tokens for job in jobs])
        self._start_J = np.array([len(prompts[job.prompt]) for job in jobs])
        kinds = {id(stops): k for k, stops in enumerate({id(job.stops): job.stops for job in jobs}.values())}
        self._kind_J = np.array([kinds[id(job.stops)] for job in jobs])
        self._codes_KV = np.stack([s.codes_V for s in {id(job.stops): job.stops for job in jobs}.values()])
        self._looks_J = np.array([bool(job.stops.strings) for job in jobs])

    def run(self) -> list[Drawn]:
        """All jobs' samples, in their order."""
        holes: list[int] = []
        try:
            with torch.inference_mode(), self._decoder.threads(self._slots):
                while self._waiting or self._active > len(holes):
                    holes = self._close(self._seat(holes))
                    if self._active:
                        holes = self._step()
        finally:
            self._decoder.release()
        self._stats.samples += len(self._jobs)
        return [self._drawn[i] for i in range(len(self._jobs))]

    def _seat(self, holes: list[int]) -> list[int]:
        """Give free rows to waiting samples as long as there are both, and draw their first token; rows left free."""
        while self._waiting:
            if self._active and len(holes) == self._active:
                holes = self._close(holes)
            elif self._active and not self._decoder.rolling:
                break
            free = holes + list(range(self._active, self._slots))
            rows = free[: len(self._waiting)]
            if not rows:
                break
            jobs = [self._waiting.popleft() for _ in rows]
            out = self._start(rows, jobs)
            self._active = max(self._active, rows[-1] + 1)
            self._job_S[rows], self._length_S[rows], self._rules = jobs, 0, None
            rules = Rules.of([self._jobs[j].sampling for j in jobs], self._decoder.device)
            holes = [row for row in free[len(rows) :] if row < self._active] + self._record(rows, out, rules)
        return holes

    def _start(self, rows: list[int], jobs: list[int]) -> Tensor:
        """Fill the rows with their prompts, each computed once; the outputs [rows, H] after them."""
        wanted = [self._jobs[j].prompt for j in jobs]
        missing = [p for p in dict.fromkeys(wanted) if p not in self._prefixes]
        if missing:
            self._prefill(missing)
        prefixes = [self._prefixes[p] for p in wanted]
        lengths = [len(self._prompts[p]) for p in wanted]
        self._decoder.fit(max(self._active, rows[-1] + 1), max(*lengths, self._longest()))
        self._decoder.seat(rows, prefixes)
        for p in wanted:
            self._unseated_P[p] -= 1
            if not self._unseated_P[p]:
                del self._prefixes[p]
        return torch.stack([prefix.out for prefix in prefixes])

    def _prefill(self, missing: list[int]) -> None:
        """Compute the prompts that are missing now, and with them those that come next, up to AHEAD tokens."""
        tokens = sum(len(self._prompts[p]) for p in missing)
        known = {*missing, *self._prefixes}
        for job in self._waiting:
            prompt = self._jobs[job].prompt
            if prompt in known:
                continue
            tokens += len(self._prompts[prompt])
            if tokens > AHEAD:
                break
            missing.append(prompt)
            known.add(prompt)
        computed = self._decoder.prefill([self._prompts[p] for p in missing])
        self._prefixes.update(zip(missing, computed, strict=True))
        self._stats.prompts += len(missing)
        self._stats.prompt_tokens += sum(len(self._prompts[p]) for p in missing)

    def _close(self, holes: list[int]) -> list[int]:
        """Close up the rows: the last ones move into the holes, and no hole is left."""
        if not holes:
            return []
        free = set(holes)
        self._active -= len(free)
        tail = (row for row in range(self._active, self._active + len(free)) if row not in free)
        order = [next(tail) if row in free else row for row in range(self._active)]
        self._decoder.keep(order)
        for state in (self._job_S, self._length_S, self._tokens_ST, self._logp_ST):
            state[: self._active] = state[order]
        self._rules = None
        return []

    def _step(self) -> list[int]:
        """Take all rows one token further; the rows whose sample has ended."""
        rows = list(range(self._active))
        jobs, lengths = self._job_S[rows], self._length_S[rows]
        if self._rules is None:
            self._rules = Rules.of([self._jobs[j].sampling for j in jobs], self._decoder.device)
        positions = self._start_J[jobs] + lengths - 1
        self._decoder.fit(self._active, self._longest())
        out = self._decoder.step(self._tokens_ST[rows, lengths - 1], positions)
        self._stats.steps += 1
        self._stats.rows += len(rows)
        return self._record(rows, out, self._rules)

    def _longest(self) -> int:
        """Positions that the longest row uses, the token it was drawn last included."""
        used = self._start_J[self._job_S[: self._active]] + self._length_S[: self._active]
        return int(used.max(initial=0))

    def _record(self, rows: list[int], out: Tensor, rules: Rules) -> list[int]:
        """Draw the next token of each row from its output; the rows whose sample it ended."""
        jobs, lengths = self._job_S[rows], self._length_S[rows]
        tokens, logp = self._draw(out, uniform(self._seed_J[jobs], lengths), rules)
        self._tokens_ST[rows, lengths], self._logp_ST[rows, lengths] = tokens, logp
        self._length_S[rows] = lengths + 1
        codes = self._codes_KV[self._kind_J[jobs], tokens]
        for i in np.flatnonzero(self._looks_J[jobs] & (codes == GOES_ON)).tolist():
            if self._jobs[int(jobs[i])].stops.completed(self._tokens_ST[rows[i], : lengths[i] + 1]):
                codes[i] = STOP
        ended = np.flatnonzero((codes != GOES_ON) | (lengths + 1 == self._limit_J[jobs]))
        for i in ended.tolist():
            span = (rows[i], slice(lengths[i] + 1))
            reason = REASONS[int(codes[i])]
            self._drawn[int(jobs[i])] = Drawn(self._tokens_ST[span].copy(), self._logp_ST[span].copy(), reason)
        return [rows[i] for i in ended]

    def _draw(self, out: Tensor, uniform_B: np.ndarray, rules: Rules) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and log-probabilities [B] of outputs [B, H], the logits of some rows at a time."""
        chance_B = torch.from_numpy(uniform_B).to(self._decoder.device)
        size = max(1, CHUNK // self._decoder.vocab)
        parts = [
            draw(self._decoder.logits(out[i : i + size]), chance_B[i : i + size], rules.rows(i, i + size))
            for i in range(0, len(out), size)
        ]
        tokens, logp = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
        return tokens, logp
