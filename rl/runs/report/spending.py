"""What runs cost, whole and by the point of pass@1 that they gained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..reading import Run
from .page import h, table_html

_ROWS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("hours", "hours", lambda x: f"{x:.3g}"),
    ("processor hours", "cpu_hours", lambda x: f"{x:.3g}"),
    ("GPU hours", "gpu_hours", lambda x: f"{x:.3g}"),
    ("energy, kWh", "kwh", lambda x: f"{x:.3g}"),
    ("tokens generated", "tokens", lambda x: f"{x:,.0f}"),
    ("dollars", "dollars", lambda x: f"{x:.2f}" if x >= 1 else f"{x:.2g}"),
)


def spending(runs: Sequence[Run]) -> str:
    """A table with two columns a run, and below it prices, gains and what could not be read; HTML, or nothing."""
    costs = [(run.name, cost) for run in runs if (cost := (run.summary or {}).get("cost"))]
    if not costs:
        return ""
    head = [""]
    for name, _ in costs:
        of = f"{h(name)}: " if len(costs) > 1 else ""
        head += [f"{of}whole", f"{of}by the point"]
    rows = [[title, *(cell for _, cost in costs for cell in _cells(cost, key, form))] for title, key, form in _ROWS]
    notes = [f"{h(name)}: {h(line)}" if len(costs) > 1 else h(line) for name, cost in costs for line in _notes(cost)]
    return table_html(head, rows) + "".join(f'<p class="note">{note}</p>' for note in notes)


def _cells(cost: Mapping[str, Any], key: str, form: Callable[[float], str]) -> list[str]:
    whole, share = cost[key], (cost["per_point"] or {}).get(key)
    return ["not readable" if whole is None else form(whole), "–" if share is None else form(share)]


def _notes(cost: Mapping[str, Any]) -> list[str]:
    prices, spent, points = cost["prices"], cost["spent"], cost["points"]
    gained = "no clear gain of pass@1" if points is None else f"{points:.1f} points of pass@1 gained"
    attempts = f"; {spent['attempts']} attempts, what was done twice included" if spent["attempts"] > 1 else ""
    counts = {key: f"{spent[key]:,}" for key in ("trained", "sampled", "evaluated")}
    trained = "{trained} tokens trained on, {sampled} drawn for it and {evaluated} to measure".format(**counts)
    priced = (
        f"Dollars: {prices['cpu_hour']:g} for a processor core's hour at work, {prices['gpu_hour']:g} for a GPU's "
        f"({prices['source']})."
    )
    energy = [f"Energy is not known: {'; '.join(spent['unread'])}."] if spent["unread"] else []
    whole = [] if cost["kwh"] is None else ["Energy is of the machine's processors, and GPUs, whoever used them."]
    return [f"{gained}; {trained}{attempts}.", priced, *energy, *whole]
