"""How many different right answers a policy finds, and whether training raised the unlikely ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..reading import PassAt, Run
from .charts import PALETTE, Chart, band_trace, line_traces, make_chart
from .figures import interval
from .page import Section, h, table_html

_HALVES = (("likelier", "likelier half"), ("unlikelier", "unlikelier half"), ("bias", "likelier minus unlikelier"))


def diversity(runs: Sequence[Run]) -> Section | None:
    """Different right samples before and after, and the uplift by rank where runs measured it."""
    uplifts = {run.name: block for run in runs if (block := (run.summary or {}).get("uplift"))}
    body = _unique(runs) + _halves(uplifts)
    charts = (_by_rank(uplifts),) if uplifts else ()
    return Section("diversity", "Different right answers", body, charts) if body else None


def estimated(block: Mapping[str, Any], key: str, signed: bool = False) -> str:
    """The `mean` and `ci95` of a block's entry, or a dash."""
    found = block.get(key)
    return interval(PassAt(1, found["mean"], *found["ci95"]), signed) if found else "–"


def _unique(runs: Sequence[Run]) -> str:
    rows = []
    for run in runs:
        base, final, change = ((run.summary or {}).get(key) or {} for key in ("base", "final", "change"))
        if any("unique_right" in block for block in (base, final)):
            totals = [str(block.get("unique_right", {}).get("total", "–")) for block in (base, final)]
            means = [estimated(block, "unique_right") for block in (base, final)]
            rows.append([h(run.name), *means, estimated(change, "unique_right", signed=True), *totals])
    head = ("a problem, among its samples", "base", "trained", "paired change", "base, in all", "trained, in all")
    return table_html(head, rows) if rows else ""


def _halves(uplifts: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        [h(name), *(estimated(block, key, signed=key == "bias") for key, _ in _HALVES), str(block["right"])]
        for name, block in uplifts.items()
    ]
    note = (
        '<p class="note">Uplift: of the base’s own right samples, the share that training made likelier. They are '
        "ranked in each problem by their log-prob under the base. 95 % intervals by resampling problems.</p>"
    )
    head = ("uplift", *(title for _, title in _HALVES), "right samples")
    return table_html(head, rows) + note if rows else ""


def _by_rank(uplifts: Mapping[str, Mapping[str, Any]]) -> Chart:
    traces: list[dict[str, Any]] = []
    for i, (name, block) in enumerate(uplifts.items()):
        ranks, means, low, high, _ = zip(*block["by_rank"], strict=True) if block["by_rank"] else ((),) * 5
        colour = PALETTE[i % len(PALETTE)]
        traces += [band_trace(ranks, low, high, colour), *line_traces(name, ranks, means, colour, "solid")]
    axis = f"rank among {max(block['samples'] for block in uplifts.values())} samples, 1 the likeliest"
    return make_chart("Uplift by rank", traces, frozenset(), note="Bands: 95 % intervals.", x=axis, y="uplift")
