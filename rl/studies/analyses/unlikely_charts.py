"""Charts of a sweep of the bandit: uplift by rank, pass@N, what became of each method, gains against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...runs.report.charts import PALETTE, Chart, band_trace, line_traces, make_chart, plain
from ..experiments.bandit_problems import PASS_N
from ..intervals import estimate, paired
from ..tried import Tried

Curves = Mapping[str, Sequence[Sequence[float | None]]]
"""Of each name, one curve a seed."""


def charts(study: Tried, rates: Sequence[str]) -> tuple[Chart, ...]:
    """All of them; gains against each other along the axes `rates`."""
    arms = study.arms
    initial = {"initial policy": study.at(arms[0])["initial"]}
    trained = {arm: study.at(arm)["trained"] for arm in arms}
    changes = {arm: _minus(study.at(arm)["trained"], study.at(arm)["initial"]) for arm in arms}
    uplifts = {arm: study.at(arm)["uplift"] for arm in arms}
    gains = {arm: study.at(arm)["gains"] for arm in arms}
    ranks, methods = (range(1, len(next(iter(own.values()))[0]) + 1) for own in (uplifts, gains))
    found = [
        _curves("Uplift by rank", ranks, uplifts, x="rank among 32 samples, 1 the likeliest", y="uplift"),
        _over_n(_curves("pass@N", PASS_N, initial | trained, x="N", y="pass@N", percent=True)),
        _over_n(_curves("Change of pass@N", PASS_N, changes, x="N", y="minus the initial policy's", percent=True)),
        _curves("What became of each method", methods, gains, x="method, 1 initially the likeliest", y="bits gained"),
        *(_against(study, axis) for axis in rates),
    ]
    return tuple(found)


def _curves(title: str, at: Sequence[int], curves: Curves, *, x: str, y: str, percent: bool = False) -> Chart:
    """A line a name: the mean over seeds at each place, in its 95 % interval."""
    traces: list[dict[str, Any]] = []
    for i, (name, seeds) in enumerate(curves.items()):
        pairs = [(place, own) for place, own in zip(at, map(estimate, zip(*seeds, strict=True)), strict=True) if own]
        places, colour = [place for place, _ in pairs], PALETTE[i % len(PALETTE)]
        ends = [(own.low, own.high) for _, own in pairs if own.low is not None and own.high is not None]
        if len(ends) == len(pairs):
            traces.append(band_trace(places, [low for low, _ in ends], [high for _, high in ends], colour))
        traces += line_traces(name, places, [own.mean for _, own in pairs], colour, "solid" if i < 4 else "dash")
    note = "Means over seeds with 95 % intervals."
    return make_chart(title, traces, frozenset(), note=note, x=x, y=y, percent=percent)


def _against(study: Tried, axis: str) -> Chart:
    """What an axis's settings change of pass@1 against what they change of pass@N at the largest N; a line an arm."""
    traces: list[dict[str, Any]] = []
    labels = list(study.study.grid.map[axis])
    for i, arm in enumerate(study.mapped):
        places = [study.at(arm, axis, label) for label in labels]
        gained = [_mean_gains(found) for found in places]
        (line,) = line_traces(arm, [x for x, _ in gained], [y for _, y in gained], PALETTE[i % len(PALETTE)], "solid")
        traces.append(line | {"mode": "lines+markers", "text": [plain(label) for label in labels]})
    note = f"Means over seeds; points along a line: {', '.join(labels)}. Up and to the right is better at both."
    title = f"pass@{PASS_N[-1]} against pass@1 along {axis}"
    chart = make_chart(title, traces, frozenset(), note=note, x="change of pass@1", y=f"change of pass@{PASS_N[-1]}")
    chart.figure["layout"]["hovermode"] = "closest"
    return chart


def _mean_gains(found: Mapping[str, Any]) -> tuple[float, float]:
    both = [paired([own[n] for own in found["trained"]], [own[n] for own in found["initial"]]) for n in (0, -1)]
    first, last = (0.0 if one is None else one.mean for one in both)
    return first, last


def _minus(trained: Sequence[Sequence[float]], initial: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[a - b for a, b in zip(*pair, strict=True)] for pair in zip(trained, initial, strict=True)]


def _over_n(chart: Chart) -> Chart:
    ticks = {"type": "log", "tickvals": list(PASS_N), "ticktext": [str(n) for n in PASS_N]}
    chart.figure["layout"]["xaxis"] |= ticks
    return chart
