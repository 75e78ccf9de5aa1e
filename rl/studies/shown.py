"""What a study came to on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table as Drawn

from .result import Result, written


def show(result: Result) -> None:
    """Print the tables and the verdict on stderr."""
    console = Console(stderr=True, highlight=False, markup=False)
    for table in result.tables:
        drawn = Drawn(title=table.title, title_justify="left", caption=table.note, caption_justify="left", box=None)
        for column in table.columns:
            drawn.add_column(column, justify="left")
        for row in table.rows:
            drawn.add_row(*map(written, row))
        console.print(drawn)
    if result.verdict:
        console.print(result.verdict)
