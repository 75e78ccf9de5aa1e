"""Charts as plotly figures: one run split by label, or several runs laid over each other.

Colours are the page's CSS variables (`var(--s1)`), which its script resolves, so that a chart follows light and dark.
Every name passes through `plain`, because plotly reads some HTML in its texts and names may come from a model.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, Literal

from ..reading import PassAt, Run

PALETTE = tuple(f"var(--s{i})" for i in range(1, 9))
NEUTRAL = "var(--neutral)"
BARS = 100
"""A stacked chart shows at most so many bars; more steps are averaged into them."""
SMOOTH = 60
"""A line of more points than this gets a moving mean."""

_MEANING = {"right": PALETTE[2], "wrong": PALETTE[1], "ungraded": NEUTRAL, "other": NEUTRAL}


@dataclass(frozen=True)
class Chart:
    """A figure with the words around it. `keys` are the metrics that it shows."""

    title: str
    figure: Mapping[str, Any]
    alt: str
    note: str = ""
    keys: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Family:
    """Metrics that belong together: all whose name matches `pattern`, whose first group, if any, is the label.

    `stack` draws stacked bars, `share` stacked bars of each step's total, `lines` lines; `percent` writes values as %.
    `spread` names a metric that is drawn as a band of plus and minus around a single run's line; what `total`, the
    whole of a stack, exceeds the members by is stacked as "other". `labels` gives labels their words and order.
    Long lines get a moving mean unless `smooth` is off.
    """

    title: str
    pattern: str
    unit: str = ""
    style: Literal["lines", "stack", "share"] = "lines"
    percent: bool = False
    note: str = ""
    spread: str = ""
    total: str = ""
    smooth: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)

    def members(self, runs: Sequence[Run]) -> dict[str, str]:
        """Labels to metrics' names, in natural order, of what the runs hold."""
        found = {}
        for key in {key for run in runs for key in run.keys}:
            if match := re.fullmatch(self.pattern, key):
                found[match[1] if match.re.groups else key] = key
        order = list(self.labels)
        known = sorted((label for label in found if label in order), key=order.index)
        others = sorted(found.keys() - self.labels.keys(), key=natural)
        return {self.labels.get(label, label): found[label] for label in [*known, *others]}


def plain(text: object) -> str:
    """`text` so that plotly draws it as it is written."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def natural(text: str) -> list[tuple[int, str]]:
    """A sort key under which `pass@2` comes before `pass@16`."""
    return [(int(piece), "") if piece.isdigit() else (0, piece) for piece in re.split(r"([0-9]+)", text)]


def short(value: float) -> str:
    """A number in at most four significant digits."""
    return f"{value:.4g}"


def family_charts(runs: Sequence[Run], family: Family) -> list[Chart]:
    """One chart for a single run; one a metric for several; none where no run has such a metric."""
    members = family.members(runs)
    if not members:
        return []
    keys = frozenset({*members.values(), family.spread, family.total} - {""})
    if family.style == "stack" and len(runs) > 1:
        return [_means_by_run(runs, family, members)]
    if family.style != "lines" and len(runs) == 1:
        return [_stacked(runs[0], family, members)]
    if len(members) == 1 and re.compile(family.pattern).groups and not (family.unit or family.percent):
        family = replace(family, unit=next(iter(members)))
    value = _share(members) if family.style == "share" else _value
    if len(runs) == 1:
        run = runs[0]
        lines = {label: value(run, key) for label, key in members.items()}
        band = run.series(family.spread) if family.spread and len(members) == 1 else None
        return [_lines(family.title, lines, family, keys, band)]
    charts = []
    for label, key in members.items():
        title = family.title if len(members) == 1 else f"{family.title}: {label}"
        charts.append(_lines(title, {run.name: value(run, key) for run in runs}, family, frozenset({key})))
    return charts


def with_turns(charts: Sequence[Chart], runs: Sequence[Run]) -> list[Chart]:
    """Charts over the steps of a single run with a line at each of its turning points (see rl/turning.py)."""
    turns = runs[0].turns if len(runs) == 1 else []
    if not turns:
        return list(charts)
    line = {"color": NEUTRAL, "width": 1.5, "dash": "dash"}
    shapes = [{"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": t, "x1": t, "line": line} for t, _ in turns]
    note = f"Dashed: the turning point, after {', '.join(str(step) for step, _ in turns)} updates."
    marked = []
    for chart in charts:
        figure = {**chart.figure, "layout": {**chart.figure["layout"], "shapes": shapes}}
        keys = chart.keys | {"turning/step"}
        marked.append(replace(chart, figure=figure, note=f"{chart.note} {note}".strip(), keys=keys))
    return marked


def pass_curves(runs: Sequence[Run]) -> list[Chart]:
    """pass@N of base and trained model over N (log2 axis), and its paired change, with 95 % bands."""
    traces: list[dict[str, Any]] = []
    changes: list[dict[str, Any]] = []
    for i, run in enumerate(runs):
        colour = PALETTE[i % len(PALETTE)]
        of = f"{run.name}: " if len(runs) > 1 else ""
        base_colour = colour if len(runs) > 1 else NEUTRAL
        traces += _pass_traces(f"{of}base", run.passes("base"), base_colour, dash="dot", band=len(runs) == 1)
        traces += _pass_traces(f"{of}trained", run.passes("final"), colour)
        changes += _pass_traces(run.name if len(runs) > 1 else "change", run.change(), colour)
    charts = []
    if traces:
        note = "Bands: 95 % intervals, resampling problems."
        charts.append(_pass_chart("pass@N against the base", traces, note))
    if changes:
        note = (
            "Trained minus base on the same problems, with paired 95 % intervals. A band that holds 0: no clear change."
        )
        charts.append(_pass_chart("Change of pass@N", changes, note, zero=True))
    return charts


def evaluation_charts(runs: Sequence[Run]) -> list[Chart]:
    """pass@N on the held-out problems over steps: every N for one run, the smallest and largest for several."""
    pattern = re.compile(r"eval/(.+)/pass@(\d+)")
    sets: dict[str, dict[int, str]] = {}
    for key in {key for run in runs for key in run.keys}:
        if match := pattern.fullmatch(key):
            sets.setdefault(match[1], {})[int(match[2])] = key
    charts = []
    for name, by_n in sorted(sets.items()):
        keys = frozenset(by_n.values())
        title = f"pass@N on “{name}” over steps"
        if len(runs) == 1:
            lines = {f"pass@{n}": _with_base(runs[0], name, n, by_n[n]) for n in sorted(by_n)}
            bands = {f"pass@{n}": _evaluated(runs[0], name, n) for n in by_n}
            charts.append(_evaluation_chart(title, lines, bands, keys))
            continue
        for n in sorted({min(by_n), max(by_n)}):
            lines = {run.name: _with_base(run, name, n, by_n[n]) for run in runs}
            bands = {run.name: _evaluated(run, name, n) for run in runs}
            charts.append(_evaluation_chart(f"pass@{n} on “{name}” over steps", lines, bands, keys))
    return charts


Series = tuple[Sequence[float], Sequence[float]]


def _value(run: Run, key: str) -> Series:
    return run.series(key)


def _share(members: Mapping[str, str]) -> Callable[[Run, str], Series]:
    """A metric as its share of the step's total over all members."""

    def share(run: Run, key: str) -> Series:
        rows = [row for row in run.metrics if any(k in row for k in members.values())]
        totals = [sum(row.get(k, 0.0) for k in members.values()) for row in rows]
        points = [(row["step"], row.get(key, 0.0) / t) for row, t in zip(rows, totals, strict=True) if t > 0]
        return [step for step, _ in points], [value for _, value in points]

    return share


def _lines(
    title: str,
    lines: Mapping[str, Series],
    family: Family,
    keys: frozenset[str],
    spread: Series | None = None,
) -> Chart:
    traces: list[dict[str, Any]] = []
    lines = {name: series for name, series in lines.items() if series[0]}
    smooth = family.smooth and any(len(x) > SMOOTH for x, _ in lines.values())
    notes = [family.note]
    for i, (name, (x, y)) in enumerate(lines.items()):
        colour, dash = PALETTE[i % len(PALETTE)], "solid" if i < 4 else "dash"
        if spread and len(spread[0]) == len(x):
            around = list(zip(y, spread[1], strict=True))
            traces.append(band_trace(x, [v - s for v, s in around], [v + s for v, s in around], colour))
            notes.append(f"Band: plus and minus {family.spread}.")
        traces += line_traces(name, x, y, colour, dash, smooth)
    if smooth:
        notes.append("Faint: every step; bold: moving mean.")
    percent = family.percent or family.style == "share"
    return make_chart(title, traces, keys, note=" ".join(notes).strip(), y=family.unit, percent=percent)


def line_traces(
    name: str, x: Sequence[float], y: Sequence[float], colour: str, dash: str, smooth: bool = False
) -> list[dict[str, Any]]:
    """A line, or every point faintly and their moving mean over it."""
    common = {"type": "scatter", "x": list(x), "name": plain(name), "legendgroup": plain(name)}
    if not smooth:
        line = {"color": colour, "dash": dash, "width": 2}
        mode = "lines+markers" if len(x) <= 30 else "lines"
        return [{**common, "y": list(y), "mode": mode, "line": line, "marker": {"color": colour, "size": 5}}]
    faint = {"color": colour, "width": 1}
    bold = {"color": colour, "width": 2.25, "dash": dash}
    return [
        {**common, "y": list(y), "mode": "lines", "line": faint, "opacity": 0.35, "showlegend": False},
        {**common, "y": _moving_mean(y), "mode": "lines", "line": bold, "hoverinfo": "skip"},
    ]


def _moving_mean(y: Sequence[float]) -> list[float]:
    """The mean over a window of a twentieth of the points, centred, narrower at the ends."""
    half = max(2, len(y) // 40)
    return [fmean(y[max(0, i - half) : i + half + 1]) for i in range(len(y))]


def band_trace(x: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str) -> dict[str, Any]:
    """The area between two lines."""
    return {
        "type": "scatter",
        "x": [*x, *reversed(x)],
        "y": [*high, *reversed(low)],
        "fill": "toself",
        "fillcolor": colour,
        "opacity": 0.16,
        "mode": "lines",
        "line": {"width": 0, "color": colour},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _stacked(run: Run, family: Family, members: Mapping[str, str]) -> Chart:
    """Stacked bars over steps, neighbouring steps averaged so that there are at most BARS."""
    rows = [row for row in run.metrics if any(key in row for key in members.values())]
    width = math.ceil(len(rows) / BARS) or 1
    bins = [rows[i : i + width] for i in range(0, len(rows), width)]
    x = [sum(row["step"] for row in rows) / len(rows) for rows in bins]
    heights = {
        label: [sum(r.get(key, 0.0) for r in rows) / len(rows) for rows in bins] for label, key in members.items()
    }
    if family.total:
        whole = [sum(r.get(family.total, 0.0) for r in rows) / len(rows) for rows in bins]
        parts = [sum(column) for column in zip(*heights.values(), strict=True)]
        heights["other"] = [max(0.0, w - p) for w, p in zip(whole, parts, strict=True)]
    if family.style == "share":
        totals = [sum(column) or 1.0 for column in zip(*heights.values(), strict=True)]
        heights = {k: [v / t for v, t in zip(h, totals, strict=True)] for k, h in heights.items()}
    traces = []
    for i, (label, y) in enumerate(heights.items()):
        colour = _MEANING.get(label, PALETTE[i % len(PALETTE)])
        traces.append(
            {
                "type": "bar",
                "x": x,
                "y": y,
                "name": plain(label),
                "marker": {"color": colour, "line": {"width": 0}},
            }
        )
    note = f"{family.note} A bar is the mean of {width} steps.".strip() if width > 1 else family.note
    percent = family.percent or family.style == "share"
    keys = frozenset(members.values())
    return make_chart(family.title, traces, keys, note=note, y=family.unit, percent=percent, stacked=True)


def _means_by_run(runs: Sequence[Run], family: Family, members: Mapping[str, str]) -> Chart:
    """One stacked bar a run: the mean over its steps."""
    traces = []
    for i, (label, key) in enumerate(members.items()):
        means = [sum(run.series(key)[1]) / max(1, sum(row["step"] > 0 for row in run.metrics)) for run in runs]
        marker = {"color": PALETTE[i % len(PALETTE)], "line": {"width": 0}}
        names = [plain(run.name) for run in runs]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "x": means,
                "y": names,
                "name": plain(label),
                "marker": marker,
            }
        )
    note = f"{family.note} Mean over each run's steps.".strip()
    chart = make_chart(family.title, traces, frozenset(members.values()), note=note, x=family.unit, stacked=True)
    chart.figure["layout"]["yaxis"] |= {"type": "category", "automargin": True}
    chart.figure["layout"]["hovermode"] = "closest"
    return chart


def _pass_traces(
    name: str, passes: Sequence[PassAt], colour: str, dash: str = "solid", band: bool = True
) -> list[dict[str, Any]]:
    traces = []
    ends = [(p.n, p.low, p.high) for p in passes if p.low is not None and p.high is not None]
    if ends and band:
        traces.append(band_trace([n for n, _, _ in ends], [lo for _, lo, _ in ends], [hi for _, _, hi in ends], colour))
    if passes:
        line = {"color": colour, "width": 2.25, "dash": dash}
        x, y = [p.n for p in passes], [p.mean for p in passes]
        marker = {"color": colour, "size": 6}
        traces.append(
            {
                "type": "scatter",
                "x": x,
                "y": y,
                "name": plain(name),
                "mode": "lines+markers",
                "line": line,
                "marker": marker,
            }
        )
    return traces


def _pass_chart(title: str, traces: list[dict[str, Any]], note: str, zero: bool = False) -> Chart:
    ns = sorted({n for trace in traces for n in trace["x"]})
    chart = make_chart(title, traces, frozenset(), note=note, x="N, samples a problem", y="pass@N", percent=True)
    chart.figure["layout"]["xaxis"] |= {"type": "log", "tickvals": ns, "ticktext": [str(n) for n in ns]}
    if zero:
        line = {"color": "var(--neutral)", "width": 1, "dash": "dash"}
        shape = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 0, "line": line}
        chart.figure["layout"]["shapes"] = [shape]
        chart.figure["layout"]["yaxis"]["title"]["text"] = "change"
    return chart


def _with_base(run: Run, name: str, n: int, key: str) -> Series:
    """The metric over steps, from the base's evaluation on."""
    steps, values = run.series(key)
    base = [p.mean for e in run.evaluations if e.name == "base" and e.set == name for p in e.passes if p.n == n]
    return ([0, *steps], [base[0], *values]) if base and 0 not in steps else (steps, values)


def _evaluated(run: Run, name: str, n: int) -> list[tuple[int, float, float]]:
    """Step, low and high end of pass@n wherever an evaluation of this set holds an interval."""
    found = {}
    for evaluation in run.evaluations:
        for p in evaluation.passes:
            if evaluation.set == name and p.n == n and p.low is not None and p.high is not None:
                found.setdefault(evaluation.version, (evaluation.version, p.low, p.high))
    return [found[step] for step in sorted(found)]


def _evaluation_chart(
    title: str,
    lines: Mapping[str, Series],
    bands: Mapping[str, list[tuple[int, float, float]]],
    keys: frozenset[str],
) -> Chart:
    traces: list[dict[str, Any]] = []
    banded = False
    for i, (name, (x, y)) in enumerate(lines.items()):
        colour = PALETTE[i % len(PALETTE)]
        ends = [end for end in bands.get(name, []) if end[0] in set(x)]
        if len(ends) > 1:
            banded = True
            steps, low, high = zip(*ends, strict=True)
            traces.append(band_trace(steps, low, high, colour))
        traces += line_traces(name, x, y, colour, "solid" if i < 4 else "dash")
    note = "Step 0 is the base before training, which may have been measured with more samples." + (
        " Bands: 95 % intervals." if banded else ""
    )
    return make_chart(title, traces, keys, note=note, y="pass@N", percent=True)


def make_chart(
    title: str,
    traces: list[dict[str, Any]],
    keys: frozenset[str],
    *,
    note: str = "",
    x: str = "step",
    y: str = "",
    percent: bool = False,
    stacked: bool = False,
) -> Chart:
    """A chart of plotly traces in the page's style; `percent` writes the values of the y axis as %."""
    import plotly.graph_objects as go

    for trace in traces:
        trace["y"] = [_rounded(v) for v in trace["y"]]
    named = [trace for trace in traces if trace.get("showlegend", True)]
    axis = {"gridcolor": "var(--grid)", "linecolor": "var(--line)", "zeroline": False, "automargin": True}
    axis |= {"exponentformat": "power"}
    layout = {
        "template": None,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "var(--muted)", "size": 12},
        "colorway": list(PALETTE),
        "margin": {"l": 48, "r": 12, "t": 8, "b": 40},
        "hovermode": "x unified",
        "hoverlabel": {
            "bgcolor": "var(--card)",
            "bordercolor": "var(--line)",
            "font": {"color": "var(--ink)"},
        },
        "showlegend": len({trace["name"] for trace in named}) > 1,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "var(--muted)", "activecolor": "var(--ink)"},
        "xaxis": {
            **axis,
            "title": {"text": plain(x)},
            "showgrid": False,
            "ticks": "outside",
            "tickcolor": "var(--line)",
        },
        "yaxis": {**axis, "title": {"text": plain(y)}, "hoverformat": ".1%" if percent else ".4~g"},
    }
    if percent:
        layout["yaxis"]["tickformat"] = ".3~%"
    if stacked:
        layout |= {"barmode": "stack", "bargap": 0.12 if len(traces[0]["x"]) <= 30 else 0}
    figure = json.loads(str(go.Figure(traces, layout).to_json()))
    return Chart(title, figure, f"{title}. {_spoken(named)}", note, keys)


def _rounded(value: Any) -> Any:
    """Seven digits of a number: plotly cannot scale an axis to values that differ by rounding only."""
    return float(f"{value:.7g}") if isinstance(value, float) else value


def _spoken(traces: Sequence[Mapping[str, Any]]) -> str:
    """What a reader who does not see the chart hears: where each line starts and ends."""
    parts = []
    for trace in traces:
        y = [v for v in trace["y"] if isinstance(v, int | float)]
        if y:
            parts.append(f"{html.unescape(trace['name'])}: from {short(y[0])} to {short(y[-1])}")
    return "; ".join(parts)
