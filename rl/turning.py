"""The turning point of a run: where the format reward and the length of completions turn, both at once.

Tina (arXiv 2504.15777) sees a "format phase transition": both curves turn sharply, the accuracy reward does not, and
the best held-out checkpoint stands at the turn or just before it. No rule was published; this one is ours.

Each series is predicted one step ahead by x_t = a + b t + φ x_{t-1}, fitted by least squares to its own past, so that a
steady drift and the noise's own memory are no turn. The prediction's error over its standard deviation, held within ±4,
is the residual z_t: without a turn nearly independent, of mean 0 and deviation 1 (recursive residuals: Brown, Durbin
and Evans 1975; with a lagged value: Ploberger, Krämer and Kontrus 1989). A value further off than ±4 enters the past as
if it stood there, or a great jump would pass for the noise's memory at once. Page's sums (1954), up_t = max(0, up_{t-1}
+ z_t - 1/2) and down_t alike with -z_t, grow where residuals stay on one side. A turn is said at the first step t,
counted from the run's start or the last turn, at which in *both* series the larger of the two exceeds `threshold` +
ln t; ln t makes up for how often a long run asks. It is dated to the last step at which the sum of the earlier of the
two was 0, and all begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from ..parts import Options
from ..records import Group

ALLOWANCE = 0.5
"""Deviations a step that Page's sums let pass: half of a shift of one deviation, for which they are quickest."""
WIDEST = 4.0
"""Deviations beyond which a residual counts no more: one odd step is no turn."""
FEWEST = 8
"""Residuals before their deviation is taken for known."""
CENTURY = 100.0
"""Steps in which the drift's slope is measured, for numbers of a like size."""
DIFFUSE = 1e6
"""Variance of the intercept and the slope before anything is seen, in variances of the noise."""


class Turning(Options):
    """How a run's turning point is looked for: where the format reward and the length of completions turn at once."""

    reward: str = "format"
    """The reward whose mean is watched beside the mean length; where a recipe has none such, no turn is looked for."""
    settle: int = Field(default=30, ge=10)
    """Steps at the start, and after a turn, of which no turn is said: the fit has to settle."""
    threshold: float = Field(default=3.0, gt=0)
    """How far beyond ln t, in deviations, Page's sums of both series must go; larger is later and surer."""


@dataclass(frozen=True)
class Sums:
    """What is known of J series after `steps` values each; a leading shape is that of runs watched side by side.

    `floor_J` is the least deviation that a residual may have, `first_J` and `last_J` the first and the last value.
    `moments_J33` and `products_J3` are those of the regression on an intercept, the time in 100 steps and the value
    before, `squares_J` and `residuals` the sum and the number of its squared residuals. `up_J` and `down_J` are Page's
    sums, `rose_J` and `fell_J` the last step at which each of them was 0.
    """

    steps: int
    floor_J: np.ndarray
    first_J: np.ndarray
    last_J: np.ndarray
    moments_J33: np.ndarray
    products_J3: np.ndarray
    squares_J: np.ndarray
    residuals: int
    up_J: np.ndarray
    down_J: np.ndarray
    rose_J: np.ndarray
    fell_J: np.ndarray

    @property
    def largest_J(self) -> np.ndarray:
        """The larger of Page's two sums."""
        return np.maximum(self.up_J, self.down_J)

    @property
    def since_J(self) -> np.ndarray:
        """The step since which the larger of the two has grown."""
        return np.where(self.up_J >= self.down_J, self.rose_J, self.fell_J)


def begin(values_J: np.ndarray, floor_J: np.ndarray) -> Sums:
    """The sums after the first value of each series; `floor_J` is above 0."""
    zeros, ones = np.zeros(values_J.shape), np.ones(values_J.shape, dtype=np.int64)
    start = np.array(values_J, dtype=np.float64)
    moments_J33 = np.zeros((*values_J.shape, 3, 3))
    moments_J33[..., 0, 0] = moments_J33[..., 1, 1] = 1 / DIFFUSE
    moments_J33[..., 2, 2] = floor_J**2
    products_J3 = np.zeros((*values_J.shape, 3))
    return Sums(1, floor_J, start, start, moments_J33, products_J3, zeros, 0, zeros, zeros, ones, ones)


def advance(sums: Sums, values_J: np.ndarray, settle: int) -> Sums:
    """The sums after one more value of each series; Page's stay 0 for `settle` steps."""
    step = sums.steps + 1
    before_J = sums.last_J - sums.first_J
    known_J3 = np.stack([np.ones_like(before_J), np.full_like(before_J, sums.steps / CENTURY), before_J], axis=-1)
    fitted_J, wider_J = _regression(sums.moments_J33, sums.products_J3, known_J3)
    error_J = (values_J - sums.first_J - fitted_J) / wider_J
    up_J, down_J = sums.up_J, sums.down_J
    if sums.residuals >= FEWEST:
        deviation_J = np.maximum(np.sqrt(sums.squares_J / sums.residuals), sums.floor_J)
        z_J = np.clip(error_J / deviation_J, -WIDEST, WIDEST)
        error_J = z_J * deviation_J
        if step > settle:
            up_J, down_J = np.maximum(0.0, up_J + z_J - ALLOWANCE), np.maximum(0.0, down_J - z_J - ALLOWANCE)
    value_J = fitted_J + error_J * wider_J
    counts = step > 4  # three values after the first determine the fit, and say nothing of the noise
    return Sums(
        steps=step,
        floor_J=sums.floor_J,
        first_J=sums.first_J,
        last_J=value_J + sums.first_J,
        moments_J33=sums.moments_J33 + known_J3[..., :, None] * known_J3[..., None, :],
        products_J3=sums.products_J3 + known_J3 * value_J[..., None],
        squares_J=sums.squares_J + (error_J**2 if counts else 0.0),
        residuals=sums.residuals + counts,
        up_J=up_J,
        down_J=down_J,
        rose_J=np.where(up_J > 0, sums.rose_J, step),
        fell_J=np.where(down_J > 0, sums.fell_J, step),
    )


Pair = tuple[np.ndarray, np.ndarray]


def _regression(moments_J33: np.ndarray, products_J3: np.ndarray, known_J3: np.ndarray) -> Pair:
    """known' M^-1 products, and the root of 1 + known' M^-1 known, by the adjugate of M with a diagonal of ones."""
    scale_J3 = np.sqrt(np.diagonal(moments_J33, axis1=-2, axis2=-1))
    places = ((0, 1), (0, 2), (1, 2))
    a_J, b_J, c_J = (moments_J33[..., i, j] / (scale_J3[..., i] * scale_J3[..., j]) for i, j in places)
    x_J, y_J, z_J = np.moveaxis(known_J3 / scale_J3, -1, 0)
    solved_J3 = np.stack(
        [
            (1 - c_J**2) * x_J + (b_J * c_J - a_J) * y_J + (a_J * c_J - b_J) * z_J,
            (b_J * c_J - a_J) * x_J + (1 - b_J**2) * y_J + (a_J * b_J - c_J) * z_J,
            (a_J * c_J - b_J) * x_J + (a_J * b_J - c_J) * y_J + (1 - a_J**2) * z_J,
        ],
        axis=-1,
    )
    solved_J3 /= (1 + 2 * a_J * b_J * c_J - a_J**2 - b_J**2 - c_J**2)[..., None] * scale_J3
    leverage_J = (solved_J3 * known_J3).sum(axis=-1)
    return (solved_J3 * products_J3).sum(axis=-1), np.sqrt(1 + np.maximum(leverage_J, 0.0))


def needed(steps: int, threshold: float) -> float:
    """What Page's sums must exceed after so many steps."""
    return threshold + float(np.log(steps))


@dataclass(frozen=True)
class Turn:
    """`step` updates were done when the first sample of the turn was drawn; it was seen after step `seen`."""

    step: int
    seen: int

    def to_json(self) -> dict[str, int]:
        """As in summary.json."""
        return {"step": self.step, "seen": self.seen}


class TurningWatch:
    """Watches one run, step by step."""

    def __init__(self, options: Turning, say: Callable[[str], None]) -> None:
        self._options, self._say = options, say
        self._sums: Sums | None = None
        self._before = 0
        self.turns: list[Turn] = []

    @property
    def anchors(self) -> list[int]:
        """Steps whose checkpoint, or the last one before it, is that of a turn seen or of one that may yet be seen."""
        found = [turn.step for turn in self.turns]
        if self._sums is not None:
            grown = ((self._sums.up_J, self._sums.rose_J), (self._sums.down_J, self._sums.fell_J))
            found += [self._before + int(since) for sums_J, since_J in grown for since in since_J[sums_J > 0]]
        return found

    def take(self, step: int, groups: Sequence[Group]) -> dict[str, float]:
        """Take note of a step's scored groups.

        Returns:
            `turning/<series>`: how far each has gone, as a share of what makes a turn; in the step that sees one also
            `turning/step`, to which it is dated. Nothing where the recipe has no such reward, or nothing was graded.
        """
        seen = _series(groups, self._options.reward)
        if seen is None:
            return {}
        values_J, floor_J = seen
        if self._sums is None:
            self._sums, self._before = begin(values_J, floor_J), step - 1
        else:
            self._sums = advance(self._sums, values_J, self._options.settle)
        share_J = self._sums.largest_J / needed(self._sums.steps, self._options.threshold)
        stats = {"turning/reward": float(share_J[0]), "turning/length": float(share_J[1])}
        if share_J.min() <= 1:
            return stats
        # A value of step s comes from the policy after s - 1 updates.
        turn = Turn(self._before + int(self._sums.since_J.min()), step)
        self.turns.append(turn)
        self._sums = None
        what = f"the reward {self._options.reward} and the length of completions"
        self._say(f"turning point: {what} turned after {turn.step} updates, which is seen at step {step}")
        return {**stats, "turning/step": float(turn.step)}

    def state_dict(self) -> dict[str, Any]:
        """The sums and the turns."""
        sums = None if self._sums is None else {name: _plain(value) for name, value in vars(self._sums).items()}
        return {"sums": sums, "before": self._before, "turns": [turn.to_json() for turn in self.turns]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        sums: dict[str, Any] | None = state["sums"]
        self._sums = None
        if sums is not None:
            self._sums = Sums(**{name: np.array(v) if isinstance(v, list) else v for name, v in sums.items()})  # type: ignore[arg-type]
        self._before = state["before"]
        self.turns = [Turn(**turn) for turn in state["turns"]]


def _series(groups: Sequence[Group], reward: str) -> tuple[np.ndarray, np.ndarray] | None:
    """values_J, the means of the reward (of graded samples) and of the length, and floor_J: one sample more by one."""
    if not groups or reward not in groups[0].parts:
        return None
    rewards = np.concatenate([group.parts[reward] for group in groups])
    rewards = rewards[~np.isnan(rewards)]
    if not rewards.size:
        return None
    lengths = np.concatenate([group.lengths_G for group in groups])
    return np.array([rewards.mean(), lengths.mean()]), np.array([1 / len(rewards), 1 / len(lengths)])


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
