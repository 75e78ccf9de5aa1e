"""The closing table of a run on a terminal: base against trained, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..reading import pass_at
from .diversity import estimated
from .figures import interval
from .sections import direction

if TYPE_CHECKING:
    from rich.table import Table

_STYLES = {"rises": "green", "falls": "red"}


def closing_table(summary: Mapping[str, Any]) -> Table:
    """pass@N of `summary.json`'s `base` and `final`, and their paired `change`, with 95 % intervals.

    A change is green or red where its interval leaves out 0. The table fits 80 columns.
    """
    from rich.table import Table
    from rich.text import Text

    base, final, change = ({p.n: p for p in pass_at(summary.get(k) or {})} for k in ("base", "final", "change"))
    measured = summary.get("final") or summary.get("base") or {}
    caption = "95 % intervals by resampling problems"
    if "problems" in measured and "samples" in measured:
        caption = f"{measured['problems']} problems, {measured['samples']} samples each; {caption}"
    table = Table(caption=caption, caption_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("", "base", "trained", "change"):
        table.add_column(heading, justify="left", no_wrap=True)
    for n in sorted(base.keys() | final.keys()):
        cells = [interval(block[n]) if n in block else "–" for block in (base, final)]
        moved = interval(change[n], signed=True) if n in change else "–"
        style = _STYLES.get(direction(change.get(n)), "")
        table.add_row(f"pass@{n}", *cells, Text(moved, style=style))
    blocks = [summary.get(key) or {} for key in ("base", "final", "change")]
    if any("unique_right" in block for block in blocks):
        unique = [estimated(block, "unique_right", signed=i == 2) for i, block in enumerate(blocks)]
        table.add_row("unique", *unique)
    return table
