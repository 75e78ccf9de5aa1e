"""When each stage of the last steps ran: what was done at the same time, and who waited for whom."""

from __future__ import annotations

from typing import Any

from ..reading import Run
from .charts import PALETTE, Chart, make_chart, plain

STEPS = 6
"""Steps shown: the last ones."""
LANES = {"main": "learner's process", "ahead": "workers, one step ahead"}
SHORTEST = 1e-3
"""Of all the time shown: shorter blocks are left out, since nobody could see them."""


def timeline_chart(run: Run) -> Chart | None:
    """A bar a block of work, from when it began to when it ended; None for a run that wrote no timeline."""
    blocks = [block for _, spans in run.timeline[-STEPS:] for block in spans]
    if not blocks:
        return None
    begin, end = min(start for _, _, start, _ in blocks), max(stop for *_, stop in blocks)
    shown = [b for b in blocks if b[3] - b[2] >= SHORTEST * (end - begin)]
    traces: list[dict[str, Any]] = []
    for i, stage in enumerate(dict.fromkeys(stage for stage, *_ in shown)):
        own = [b for b in shown if b[0] == stage]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": plain(stage),
                "y": [LANES.get(lane, plain(lane)) for _, lane, _, _ in own],
                "base": [round(start - begin, 4) for _, _, start, _ in own],
                "x": [round(stop - start, 4) for _, _, start, stop in own],
                "marker": {"color": PALETTE[i % len(PALETTE)], "line": {"width": 0}},
            }
        )
    steps = [step for step, _ in run.timeline[-STEPS:]]
    note = f"Steps {steps[0]} to {steps[-1]}. Bars above each other in the two lanes ran at the same time."
    chart = make_chart("When each stage ran", traces, frozenset(), note=note, x="seconds", stacked=True)
    chart.figure["layout"]["yaxis"] |= {"type": "category", "automargin": True}
    chart.figure["layout"].update(hovermode="closest", barmode="overlay")
    return chart
