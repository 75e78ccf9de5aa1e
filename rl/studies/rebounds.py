"""Does a loss curve fall, rise again, and recover? What counts is fixed here, beforehand.

LoRA-GGPO (arXiv 2502.14538) calls it double descent, shows it in plots and gives no measure of it. Ours, for losses x_t
of one run at equal distances and a window of w of them:

    s_t   the median of the last w losses, which a spike of fewer than w/2 does not move
    d_t   one loss's noise: 1.4826 MAD of the differences of neighbours, over sqrt(2), the larger of that over the whole
          curve and that over the last 2w losses; a slow trend drops out of differences, and a spike out of the MAD
    e_t   the standard error of s_t: sqrt(pi/2) d_t / sqrt(w)
    m_t   the lowest s up to t, reached at u
    above s_t > m_t + max(Z sqrt(e_t^2 + e_u^2), SHARE m_t)

The curve *fell* where x_1, of the untrained model, is above m + max(START d_1, SHARE m): one loss, so less is asked of
it; were it all noise, the rise would still have to stand out. It
*rebounded* where it fell and then stayed above the same m for at least w steps. It *recovered* where s came below that
m later on. Fall, rebound and recovery together are the double descent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Z = 4.0
"""Standard errors by which a rise must stand out."""
START = 2.0
"""Deviations of a single loss by which the first must stand above what it fell to."""
SHARE = 0.05
"""Share of the level before by which it must."""
NORMAL = 1.4826
"""Standard deviation over median absolute deviation, of a normal law."""


@dataclass(frozen=True)
class Rebound:
    """The highest rise of a curve after its first fall; places count losses from 0."""

    bottom: float
    """Level from which it rose."""
    top: float
    """Highest level of the rise."""
    bottom_at: int
    top_at: int
    recovered_at: int | None
    """Where it came below the bottom again; None is never."""

    @property
    def height(self) -> float:
        """The rise as a share of the bottom."""
        return self.top / self.bottom - 1


def levels(losses_T: Sequence[float] | np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """s_T and d_T of the module's text; s is NaN before the first whole window.

    Raises:
        ValueError: the curve is shorter than two windows, or holds what is not finite.
    """
    x_T = np.asarray(losses_T, dtype=np.float64)
    if len(x_T) < 2 * window or not np.isfinite(x_T).all():
        raise ValueError(f"a curve of {len(x_T)} losses is shorter than two windows of {window}, or is not finite")
    s_T = np.full(len(x_T), np.nan)
    s_T[window - 1 :] = np.median(sliding_window_view(x_T, window), axis=1)
    steps = np.diff(x_T)
    count = 2 * window - 1
    local = _deviation(sliding_window_view(steps, count))
    ends = np.clip(np.arange(len(x_T)), count, len(steps))  # the first ones where there are not so many before
    return s_T, np.maximum(_deviation(steps), local[ends - count])


def rebound(losses_T: Sequence[float] | np.ndarray, window: int) -> Rebound | None:
    """The highest rebound of a curve, or None.

    Raises:
        ValueError: as `levels`.
    """
    s_T, d_T = levels(losses_T, window)
    e_T = np.sqrt(np.pi / 2 / window) * d_T
    first, found = float(losses_T[0]), list[Rebound]()
    low, since = window - 1, None
    for t in range(window - 1, len(s_T)):
        fell = first > s_T[low] + max(START * d_T[0], SHARE * abs(s_T[low]))
        above = fell and s_T[t] > s_T[low] + _margin(s_T[low], e_T[t], e_T[low])
        if above:
            since = t if since is None else since
            if t - since + 1 >= window:
                found.append(_from(s_T, low, since, t))
            continue
        since = None
        if s_T[t] < s_T[low]:
            low = t
    return max(found, key=lambda one: one.height) if found else None


def largest_rise(losses_T: Sequence[float] | np.ndarray, window: int) -> float:
    """The largest s_t / m_t - 1, whether it stands out of the noise or not; 0 for a curve that never rises.

    Raises:
        ValueError: as `levels`.
    """
    s_T = levels(losses_T, window)[0][window - 1 :]
    return float((s_T / np.minimum.accumulate(s_T) - 1).max())


def _from(s_T: np.ndarray, low: int, since: int, until: int) -> Rebound:
    top = since + int(np.argmax(s_T[since : until + 1]))
    under = np.flatnonzero(s_T[until:] < s_T[low])
    recovered = until + int(under[0]) if len(under) else None
    return Rebound(float(s_T[low]), float(s_T[top]), low, top, recovered)


def _margin(level: float, one: float, other: float) -> float:
    return max(Z * float(np.hypot(one, other)), SHARE * abs(level))


def _deviation(steps: np.ndarray) -> np.ndarray:
    """One loss's noise from differences along the last axis."""
    apart = np.abs(steps - np.median(steps, axis=-1, keepdims=True))
    return NORMAL * np.median(apart, axis=-1) / np.sqrt(2)
