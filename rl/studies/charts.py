"""Charts over several seeds: curves with the band that the seeds span, and estimates with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ..runs.report.charts import NEUTRAL, PALETTE, Chart, Series, band_trace, line_traces, make_chart, plain
from .intervals import estimate


def curves(title: str, lines: Mapping[str, Sequence[Series]], *, y: str = "", percent: bool = False) -> Chart | None:
    """A line a name: the mean of its series (one a seed) at each step, in a band from the lowest to the highest."""
    traces: list[dict[str, Any]] = []
    banded = False
    for i, (name, series) in enumerate(lines.items()):
        at: dict[float, list[float]] = {}
        for steps, values in series:
            for step, value in zip(steps, values, strict=True):
                at.setdefault(step, []).append(value)
        x = sorted(at)
        if not x:
            continue
        colour = PALETTE[i % len(PALETTE)]
        if len(series) > 1:
            banded = True
            traces.append(band_trace(x, [min(at[step]) for step in x], [max(at[step]) for step in x], colour))
        traces += line_traces(name, x, [fmean(at[step]) for step in x], colour, "solid" if i < 4 else "dash")
    note = "Mean over seeds; bands: from the lowest seed to the highest." if banded else ""
    return make_chart(title, traces, frozenset(), note=note, y=y, percent=percent) if traces else None


def estimates(
    title: str, values: Mapping[str, Sequence[float | None]], *, y: str = "", percent: bool = False
) -> Chart | None:
    """A point a name, the mean of its values (one a seed) with its 95 % interval, beside the values themselves."""
    means = {name: found for name, own in values.items() if (found := estimate(own)) is not None}
    if not means:
        return None
    names = [plain(name) for name in means]
    each = [(plain(name), value) for name in means for value in values[name] if value is not None]
    seeds = {
        "type": "scatter",
        "mode": "markers",
        "name": "each seed",
        "x": [name for name, _ in each],
        "y": [value for _, value in each],
        "marker": {"color": NEUTRAL, "size": 6, "symbol": "circle-open"},
    }
    spans = [0.0 if e.high is None else e.high - e.mean for e in means.values()]
    colours = [PALETTE[list(values).index(name) % len(PALETTE)] for name in means]
    mean = {
        "type": "scatter",
        "mode": "markers",
        "name": "mean",
        "x": names,
        "y": [e.mean for e in means.values()],
        "error_y": {"type": "data", "array": spans, "color": NEUTRAL, "thickness": 1.5, "width": 6},
        "marker": {"color": colours, "size": 10},
    }
    several = any(e.count > 1 for e in means.values())
    note = "Circles: each seed; points: means with 95 % Student-t intervals." if several else ""
    chart = make_chart(title, [seeds, mean] if several else [mean], frozenset(), note=note, x="", y=y, percent=percent)
    axis = {"type": "category", "categoryorder": "array", "categoryarray": names, "range": [-0.5, len(names) - 0.5]}
    chart.figure["layout"]["xaxis"] |= axis
    chart.figure["layout"]["hovermode"] = "closest"
    return chart
