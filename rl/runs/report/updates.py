"""What changed in the weights, as sections of a page, from the plain values of an updates.json. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...updates.modules import KINDS
from .charts import PALETTE, Chart, line_traces, make_chart, plain, short
from .page import Page, Section, h, render_page, table_html

WORDS = {"stored": "as stored", "float32": "in float32, before rounding"}
SPECTRA = 8
"""Spectra drawn, of the largest matrices."""

Tree = Mapping[str, Any]


def updates_page(tree: Tree) -> str:
    """One update map as a self-contained page."""
    total = tree["total"]["stored"]
    overview = (
        f"<p>{total['weights']:,.0f} weights compared: {total['unchanged']:.1%} have exactly the value that "
        f"they began with. bfloat16's rounding alone would leave {total['rounding_only']:.1%} where they were, were "
        "the same norm spread over all weights of each tensor at random.</p>"
    )
    title = f"{tree['base']} → {tree['tuned']}"
    return render_page(Page(title, "update map", "two sets of weights", overview, map_sections(tree)))


def map_sections(tree: Tree) -> list[Section]:
    """Tables, heat maps, curves and spectra of one update map."""
    tables = [f"<h3>{h(WORDS[form].capitalize())}</h3>{_table(tree, form)}" for form in tree["total"]]
    charts = [heat_map(tree, form) for form in tree["total"]]
    charts += [tolerance_chart(tree), layer_chart(tree), *spectra_chart(tree)]
    sections = [Section("updates", "What changed", "".join(tables) + _note(tree), tuple(charts))]
    apart = [[h(one["name"]), h(one["reason"])] for one in tree["apart"]]
    apart += [[h(name), h(f"tied to {other}, counted once")] for name, other in tree["tied"].items()]
    if apart:
        sections.append(Section("apart", "Not compared", table_html(["tensor", "reason"], apart)))
    return sections


def heat_map(tree: Tree, form: str) -> Chart:
    """Layers by kinds of module: the share of weights that changed."""
    places = {(place["layer"], place["kind"]): place for place in tree["places"][form]}
    layers = sorted({layer for layer, _ in places if layer is not None})
    kinds = [kind for kind in KINDS if any(k == kind and layer is not None for layer, k in places)]
    shares = [[_changed(places.get((layer, kind))) for kind in kinds] for layer in layers]
    trace = {
        "type": "heatmap",
        "name": "changed",
        "x": kinds,
        "y": [str(layer) for layer in layers],
        "z": shares,
        "zmin": 0,
        "colorscale": [[0, "var(--card)"], [1, "var(--s1)"]],
        "colorbar": {"tickformat": ".3~%", "outlinewidth": 0},
        "hovertemplate": "layer %{y}, %{x}: %{z:.3%} changed<extra></extra>",
        "showlegend": False,
    }
    chart = make_chart(f"Share changed, {WORDS[form]}", [trace], frozenset(), x="module", y="layer")
    figure = {**chart.figure, "layout": {**chart.figure["layout"], "hovermode": "closest"}}
    figure["layout"]["yaxis"] = {**figure["layout"]["yaxis"], "type": "category", "autorange": "reversed"}
    mean = tree["total"][form]
    alt = f"Share of weights that changed by layer and module; {1 - mean['unchanged']:.1%} over the whole model."
    return Chart(chart.title, figure, alt)


def tolerance_chart(tree: Tree) -> Chart:
    """How the share of unchanged weights rises with the tolerance."""
    traces: list[dict[str, Any]] = []
    for i, (form, figures) in enumerate(tree["total"].items()):
        within = {float(key.removeprefix("within_")): v for key, v in figures.items() if _is_tolerance(key)}
        tolerances = sorted(within)
        x = [tolerances[0] / 10, *tolerances]  # a logarithmic axis has no place for 0
        y = [figures["unchanged"], *(within[t] for t in tolerances)]
        traces += line_traces(WORDS[form], x, y, PALETTE[i], "solid")
        traces += line_traces(
            f"rounding only, {form}", x[:1] + x[-1:], [figures["rounding_only"]] * 2, PALETTE[i], "dot"
        )
    chart = make_chart("Unchanged weights by tolerance", traces, frozenset(), x="largest difference", percent=True)
    layout = {**chart.figure["layout"]}
    layout["xaxis"] = {**layout["xaxis"], "type": "log", "tickformat": ".0e"}
    note = "The leftmost point is tolerance 0: exactly equal. Dotted: what bfloat16's rounding alone would swallow."
    return Chart(chart.title, {**chart.figure, "layout": layout}, chart.alt, note)


def layer_chart(tree: Tree) -> Chart:
    """Unchanged weights by layer, with the baseline."""
    traces: list[dict[str, Any]] = []
    for i, (form, layers) in enumerate(tree["layers"].items()):
        numbers = sorted(layers, key=int)
        x = [int(number) for number in numbers]
        traces += line_traces(WORDS[form], x, [layers[n]["unchanged"] for n in numbers], PALETTE[i], "solid")
        baseline = [layers[n]["rounding_only"] for n in numbers]
        traces += line_traces(f"rounding only, {form}", x, baseline, PALETTE[i], "dot")
    return make_chart("Unchanged weights by layer", traces, frozenset(), x="layer", percent=True)


def spectra_chart(tree: Tree) -> list[Chart]:
    """Singular values of the largest matrices over their largest one; empty where none were computed."""
    charts = []
    for form in tree["total"]:
        found = {name: both[form] for name, both in tree["spectra"].items() if both.get(form, {}).get("values")}
        largest = sorted(found, key=lambda name: -found[name]["full"])[:SPECTRA]
        traces: list[dict[str, Any]] = []
        for i, name in enumerate(largest):
            values = found[name]["values"]
            x = [100 * k / max(len(values) - 1, 1) for k in range(len(values))]
            traces += line_traces(name, x, [v / values[0] for v in values], PALETTE[i], "solid")
        if traces:
            title = f"Spectra of the update, {WORDS[form]}"
            chart = make_chart(title, traces, frozenset(), x="% of the full rank", y="of the largest")
            layout = {**chart.figure["layout"]}
            layout["yaxis"] = {**layout["yaxis"], "type": "log"}
            charts.append(Chart(title, {**chart.figure, "layout": layout}, chart.alt))
    return charts


def _table(tree: Tree, form: str) -> str:
    ranks: dict[str, list[float]] = {}
    for row in tree["tensors"]:
        if row["form"] == form and "rank_share" in row:
            for part in ("all", row["kind"]):
                ranks.setdefault(part, []).append(row["rank_share"])
    parts = {"all": tree["total"][form], **tree["kinds"][form]}
    head = ["", "weights", "unchanged", "within 1e-5", "within 1e-3", "rounding only", "norm / base", "rank / full"]
    return table_html(head, [_row(part, figures, ranks.get(part, [])) for part, figures in parts.items()])


def _row(part: str, figures: Mapping[str, float], ranks: Sequence[float]) -> list[str]:
    shares = [figures[key] for key in ("unchanged", "within_1e-05", "within_1e-03", "rounding_only")]
    rank = f"{sum(ranks) / len(ranks):.1%}" if ranks else "—"
    return [
        h(plain(part)),
        f"{figures['weights']:,.0f}",
        *(f"{share:.2%}" for share in shares),
        short(figures["relative_norm"]),
        rank,
    ]


def _note(tree: Tree) -> str:
    ranked = len(tree["spectra"])
    return (
        '<p class="note">Unchanged: exactly the same value. Rounding only: the share that bfloat16 would leave as it '
        "was, were an update of the same norm spread at random over each tensor; sparsity up to there says nothing "
        f"about training. Ranks are means over the {ranked} largest matrices.</p>"
    )


def _changed(place: Mapping[str, float] | None) -> float | None:
    return None if place is None else round(1 - place["unchanged"], 7)


def _is_tolerance(key: str) -> bool:
    return key.startswith("within_") and not key.endswith("_ulp")
