"""What PPO adapts from step to step: pure functions, and the little state that they act on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MEMORY = 0.9
"""Share of the returns' moments that a step leaves to the steps before it."""
MOST = 0.2
"""The largest relative distance from the target that a step's correction takes notice of."""


def adapted(coefficient: float, kl: float, target: float, samples: int, horizon: int) -> float:
    """The KL coefficient after a step whose `samples` completions had the mean divergence `kl`, nats a completion.

    coefficient · (1 + clip(kl/target − 1, ±0.2) · samples/horizon): the proportional controller of Ziegler et al. 2019
    (arXiv 1909.08593, §2.2), as in TRL's AdaptiveKLController.
    """
    return coefficient * (1 + float(np.clip(kl / target - 1, -MOST, MOST)) * samples / horizon)


@dataclass(frozen=True)
class Moments:
    """Mean and variance of the returns of all steps so far, earlier ones fading by `MEMORY` a step.

    By them values are learned at a scale of 1, whatever the rewards' (van Hasselt et al. 2016, arXiv 1602.07714, as
    MAPPO's value normalisation simplifies it, arXiv 2103.01955). `weight` is 0 until a step was seen.
    """

    first: float = 0.0
    """Weighted sum of the steps' means."""
    second: float = 0.0
    """Weighted sum of the steps' mean squares."""
    weight: float = 0.0

    def with_step(self, returns_N: np.ndarray) -> Moments:
        """The moments once a step's returns, all its tokens', are seen."""
        if not returns_N.size:
            return self
        means = float(returns_N.mean()), float(np.square(returns_N).mean())
        first, second = (
            MEMORY * old + (1 - MEMORY) * new for old, new in zip((self.first, self.second), means, strict=True)
        )
        return Moments(first, second, MEMORY * self.weight + 1 - MEMORY)

    @property
    def mean(self) -> float:
        """The mean; 0 before any step."""
        return self.first / self.weight if self.weight else 0.0

    @property
    def deviation(self) -> float:
        """The standard deviation, at least 1e-2; 1 before any step."""
        return float(np.sqrt(max(self.second / self.weight - self.mean**2, 1e-4))) if self.weight else 1.0

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """(x − mean) / deviation."""
        return (values - self.mean) / self.deviation

    def unscaled(self, values: np.ndarray) -> np.ndarray:
        """What `scaled` gave the values of."""
        return values * self.deviation + self.mean
