"""The nouns that travel: problems become requests, samples, verdicts and groups; groups become batches.

numpy only. Arrays carry their shape in their name: T tokens of one completion, G samples of one group.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypedDict

import numpy as np

Outcome = Literal["right", "wrong", "could_not_grade"]
Stop = Literal["eos", "stop", "length", "gold"]
"""Why a completion ended: the model's end token, a stop string or token, the token limit, or the data's own end."""


class Message(TypedDict):
    """One turn of a chat, as chat templates take it."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Problem:
    """What is asked, and what is right.

    `prompt` is a text or a list of chat turns; `answer` is the gold answer for the verifier; `solution` is a worked
    solution for supervised arms; `info` holds the data set's other columns.
    """

    id: str
    prompt: str | tuple[Message, ...]
    answer: str = ""
    solution: str | None = None
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. `temperature` 0 is greedy; `top_k` 0, `top_p` 1 and `min_p` 0 switch those off."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One problem to be sampled `len(seeds)` times: the group shares its prompt, each sample has its own seed."""

    problem: Problem
    prompt_ids: np.ndarray
    seeds: tuple[int, ...]
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Version:
    """An immutable state of the policy: the number of updates behind it, and the SHA-256 of its defining tensors."""

    number: int
    digest: str


class Policy(Protocol):
    """What an engine publishes. Engines know no adapter's algebra: they take the PEFT form or the effective weights."""

    number: int
    """Updates behind these weights."""
    model_config: Any
    """The transformers configuration of the base."""
    tokenizer: Any
    """The base's own transformers tokenizer."""

    def digest(self) -> str:
        """SHA-256 (hex) over names, dtypes, shapes and bytes of the tensors that define the policy."""
        ...

    def adapter(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """PEFT's configuration and state dict, or None where the policy has no PEFT form."""
        ...

    def weights(self) -> Iterator[tuple[str, Any]]:
        """The effective weights (adapter merged) by the base's parameter names, in the base's dtype and device."""
        ...


@dataclass(frozen=True, slots=True)
class Served:
    """How an engine served a sample, in its own words: what the proof of freshness rests on."""

    worker: str = ""
    """Which worker it was; empty for an engine in the learner's process."""
    adapter: int | None = None
    """The engine's own id of the adapter under which the request ran; None where weights are merged."""
    cached: int = 0
    """Prompt tokens that came out of a prefix cache."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion, token ids in and out.

    `tokens_T` int64 includes the end token that was sampled; `logp_T` float32 are its tokens' log-probabilities under
    the true policy (temperature 1, nothing filtered), or None where the engine has none; `text` is for verifiers and
    reports and leaves out the end token or stop string.
    """

    problem_id: str
    index: int
    version: Version
    seed: int
    prompt_ids: np.ndarray
    tokens_T: np.ndarray
    logp_T: np.ndarray | None
    text: str
    stop: Stop
    served: Served = Served()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier says of one submission: `right` and `wrong` are about it, `could_not_grade` is about us."""

    outcome: Outcome
    reason: str = ""
    seconds: float = 0.0
    detail: str = ""
    certificate: str = ""
    """How a Lean proof was certified: `declarations` or `replayed`; empty for all else."""


@dataclass(frozen=True)
class Group:
    """One problem's judged samples, and what was added on the way to the update.

    `annotations` maps a name (`logp`, `ref_logp`, `values`) to one float32 array [T] a sample; `parts` maps a reward's
    name to its unweighted rewards_G; `rewards_G` float64 is their weighted sum, reshaped; NaN where the sample was not
    graded. `raw_G` is that sum before shaping.
    """

    problem: Problem
    samples: tuple[Sample, ...]
    verdicts: tuple[Verdict, ...]
    annotations: Mapping[str, tuple[np.ndarray, ...]] = field(default_factory=dict)
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)
    raw_G: np.ndarray | None = None
    rewards_G: np.ndarray | None = None

    @property
    def graded_G(self) -> np.ndarray:
        """Which samples count: all but those that could not be graded."""
        return np.array([v.outcome != "could_not_grade" for v in self.verdicts], dtype=bool)

    @property
    def right_G(self) -> np.ndarray:
        """Which samples the verifier found right."""
        return np.array([v.outcome == "right" for v in self.verdicts], dtype=bool)

    @property
    def lengths_G(self) -> np.ndarray:
        """Tokens of each completion."""
        return np.array([len(s.tokens_T) for s in self.samples], dtype=np.int64)


@dataclass(frozen=True)
class Row:
    """One completion as the learner takes it: one advantage a token, and the weight of its tokens in the loss.

    The loss is the sum over all rows and tokens of `weight` times the token's loss, so `weight` holds the method's
    denominator (per sequence, per token, constant). What else may be known of each token is float32 [T] or None: the
    log-probs of the policy before the update, of the engine and of the reference, and the critic's value and the return
    that it is to learn.
    """

    prompt_ids: np.ndarray
    tokens_T: np.ndarray
    advantage_T: np.ndarray
    weight: float
    old_logp_T: np.ndarray | None = None
    engine_logp_T: np.ndarray | None = None
    ref_logp_T: np.ndarray | None = None
    old_value_T: np.ndarray | None = None
    return_T: np.ndarray | None = None


@dataclass(frozen=True)
class Batch:
    """What one step learns from: rows of groups with a signal, how often they are used, and what was counted.

    `minibatch` rows make one optimizer step (None: all); their weights are scaled by rows/minibatch, so that each step
    has the size of a whole one. `compares` says whether the loss compares the policy with the one before the update:
    where it does not, a learner that would have to compute old log-probs first is spared it.
    """

    rows: tuple[Row, ...]
    epochs: int = 1
    minibatch: int | None = None
    stats: Mapping[str, float] = field(default_factory=dict)
    compares: bool = True


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from what it must depend on: (run seed, step, problem id, sample index), never a process rank."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def count(values: Sequence[str], prefix: str) -> dict[str, int]:
    """How often each value occurs, keyed `prefix/value`: every termination is data."""
    totals: dict[str, int] = {}
    for value in values:
        totals[f"{prefix}/{value}"] = totals.get(f"{prefix}/{value}", 0) + 1
    return totals
