"""What every rollout engine is: a part with options that opens into something that publishes and generates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol

from ..parts import Part
from ..records import Policy, Request, Sample, Version


@dataclass(frozen=True)
class Surroundings:
    """What an engine may need of the run it serves; it travels to workers."""

    tokenizer: Any
    """The model's own."""
    device: str
    """Where an engine in the learner's process computes."""
    folder: Path
    """The run's."""
    model: str = ""
    """The base: a Hugging Face id or a model folder, for engines that load it themselves."""
    dtype: str = "float32"
    """Of the base's weights and the arithmetic: float32 or bfloat16."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a worker holds after a publication, read back from inside its engine.

    `held` is the digest (`kernels.digest`) of the tensors that are there; `expected` is that of the policy's own
    tensors after the engine's documented transformation, taken on the publisher's side.
    """

    worker: str
    version: Version
    held: str
    expected: str
    adapter: int | None = None
    """The engine's own id of the version's adapter; no two versions share one. None where weights are merged."""


NO_FAULTS: Mapping[str, int] = MappingProxyType({})
"""Of an engine in the caller's own process: what goes wrong there is an error."""


class Engine(Protocol):
    """Samples from the policy that was published last. A request never changes version."""

    @property
    def faults(self) -> Mapping[str, int]:
        """What went wrong with workers and was mended, by kind, since the engine was opened."""
        ...

    def publish(self, policy: Policy) -> Version:
        """Take an immutable copy of the policy; idempotent by digest."""
        ...

    def receipts(self) -> list[Receipt]:
        """What each worker holds of the version published last; none from engines that hold no policy."""
        ...

    def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        """One list of samples a request, one sample a seed, in the requests' order."""
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...


class DecodesNothing:
    """What engines share that draw nothing from the policy: of what is published they keep the version only."""

    faults = NO_FAULTS

    def __init__(self) -> None:
        self.version: Version | None = None

    def publish(self, policy: Policy) -> Version:
        """The policy's version; the one known already where the digest is the same."""
        digest = policy.digest()
        if self.version is None or self.version.digest != digest:
            self.version = Version(policy.number, digest)
        return self.version

    def receipts(self) -> list[Receipt]:
        """None: no policy is held."""
        return []

    def close(self) -> None:
        """Nothing is held."""


class EnginePart(Part):
    """Options of an engine; `open` builds it (heavy imports belong there)."""

    live: ClassVar[bool] = True
    """Whether samples come from the published policy; where not (gold, replay), evaluation takes another engine."""
    apart: ClassVar[bool] = False
    """Whether it always runs in worker processes of its own, never in the learner's."""

    def form(self, policy: Policy) -> Literal["adapter", "weights"]:
        """What is sent to it of `policy`: the PEFT form, or the effective weights."""
        return "weights"

    def expected(self, policy: Policy) -> str:
        """The digest of what this engine holds when it serves `policy`, by its documented transformation.

        Raises:
            UserError: the engine cannot serve such a policy; the message says what to change.
        """
        raise NotImplementedError

    def open(self, surroundings: Surroundings) -> Engine:
        """Start the engine."""
        raise NotImplementedError
