"""How a figure and its interval are written."""

from __future__ import annotations

from ..reading import PassAt


def interval(p: PassAt, signed: bool = False) -> str:
    """`0.683 [0.650, 0.714]`, with signs for a change."""
    form = "+.3f" if signed else ".3f"
    ends = f" [{p.low:{form}}, {p.high:{form}}]" if p.low is not None and p.high is not None else ""
    return f"{p.mean:{form}}{ends}".replace("-", "−")
