"""`underdog report RUN [RUN …]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    out: Annotated[
        Path | None, typer.Option(help="By default report.html in the run; comparison.html here for several.")
    ] = None,
) -> None:
    """Write the report of one run, or of several side by side with the keys in which they differ."""
    from ..runs.report.build import write_report

    typer.echo(write_report(runs, out))
