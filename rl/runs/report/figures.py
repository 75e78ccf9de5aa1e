"""How a figure and its interval are written."""

from __future__ import annotations

from ..reading import PassAt


def interval(p: PassAt, signed: bool = False) -> str:
    """`0.683 [0.650, 0.714]`, or from 10 on `68.3 [65.0, 71.4]`; with signs for a change."""
    largest = max(abs(x) for x in (p.mean, p.low, p.high) if x is not None)
    form = f"{'+' if signed else ''}.{3 if largest < 10 else 1}f"
    ends = f" [{p.low:{form}}, {p.high:{form}}]" if p.low is not None and p.high is not None else ""
    return f"{p.mean:{form}}{ends}".replace("-", "−")
