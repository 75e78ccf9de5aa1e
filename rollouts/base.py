"""What every rollout engine is: a part with options that opens into something that publishes and generates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ..parts import Part
from ..records import Policy, Request, Sample, Version


@dataclass(frozen=True)
class Surroundings:
    """What an engine may need of the run it serves: the model's own tokenizer, the device and the run's folder."""

    tokenizer: Any
    device: str
    folder: Path


class Engine(Protocol):
    """Samples from the policy that was published last. A request never changes version."""

    def publish(self, policy: Policy) -> Version:
        """Take an immutable copy of the policy; idempotent by digest."""
        ...

    def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        """One list of samples a request, one sample a seed, in the requests' order."""
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...


class DecodesNothing:
    """What engines share that draw nothing from the policy: of what is published they keep the version only."""

    def __init__(self) -> None:
        self.version: Version | None = None

    def publish(self, policy: Policy) -> Version:
        """The policy's version; the one known already where the digest is the same."""
        digest = policy.digest()
        if self.version is None or self.version.digest != digest:
            self.version = Version(policy.number, digest)
        return self.version

    def close(self) -> None:
        """Nothing is held."""


class EnginePart(Part):
    """Options of an engine; `open` builds it (heavy imports belong there)."""

    live: ClassVar[bool] = True
    """Whether samples come from the published policy; where not (gold, replay), evaluation takes another engine."""

    def open(self, surroundings: Surroundings) -> Engine:
        """Start the engine."""
        raise NotImplementedError
