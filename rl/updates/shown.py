"""Update maps and overlaps as tables on a terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..runs.report.updates import WORDS
from .change import Change
from .maps import Form, UpdateMap
from .overlap import Overlap, Overlaps


def show_map(update: UpdateMap) -> None:
    """A table for each form, and what could not be compared."""
    console = Console()
    for form in update.forms:
        console.print(f"{update.base} → {update.tuned}, {WORDS[form]}", markup=False)
        table = _table("", "weights", "unchanged", "≤ 1e-5", "rounding only", "norm/base", "rank/full")
        table.add_row("all", *_cells(update.total(form)), _rank(update, form, None))
        for kind, change in update.by_kind(form).items():
            table.add_row(kind, *_cells(change), _rank(update, form, kind))
        console.print(table)
    for one in update.apart:
        console.print(f"not compared: {one.name}, {one.reason}", markup=False)
    for name, other in update.tied:
        console.print(f"tied: {name} is {other}, counted once", markup=False)


def show_overlaps(overlaps: Overlaps) -> None:
    """A table for each pair."""
    console = Console()
    for pair in overlaps.pairs:
        console.print(f"A = {pair.first}, B = {pair.second}", markup=False)
        table = _table("", "A", "B", "both/A", "both/B", "chance", "matched", "sized, 95 %")
        layers = {f"layer {layer}": found for layer, found in pair.by_layer().items()}
        for part, found in {"all": pair.total(), **pair.by_kind(), **layers}.items():
            table.add_row(part, *_met(found))
        console.print(table)
    console.print(
        "chance: spread over all weights; matched: within each tensor; sized: among a tensor's weights of one"
    )
    console.print("exponent, which rounding treats alike")
    if overlaps.apart:
        console.print(f"not in all models in one shape, left out: {', '.join(overlaps.apart)}", markup=False)


def _table(*head: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in head:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    return table


def _cells(change: Change) -> list[str]:
    shares = (change.unchanged, change.within(1e-5), change.rounding_only)
    return [f"{change.weights:,}", *(f"{share:.2%}" for share in shares), f"{change.relative_norm:.2e}"]


def _rank(update: UpdateMap, form: Form, kind: str | None) -> str:
    tensors = [tensor for tensor in update.tensors if kind is None or tensor.kind == kind]
    spectra = [tensor.spectrum if form == "stored" else tensor.spectrum_float32 for tensor in tensors]
    shares = [found.numerical_rank / max(found.full, 1) for found in spectra if found is not None]
    return f"{sum(shares) / len(shares):.1%}" if shares else "—"


def _met(found: Overlap) -> list[str]:
    figures = found.figures()
    low, high = figures["sized_low_of_first"], figures["sized_high_of_first"]
    return [
        f"{found.first / max(found.weights, 1):.2%}",
        f"{found.second / max(found.weights, 1):.2%}",
        f"{figures['overlap_of_first']:.1%}",
        f"{figures['overlap_of_second']:.1%}",
        *(f"{figures[f'{law}_of_first']:.1%}" for law in ("chance", "matched")),
        f"{low:.1%}–{high:.1%}",
    ]
