"""`underdog analyze updates BASE [TUNED]` and `underdog analyze overlap A B [C …]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .errors import told

NAMED = "A model folder or hub id, a PEFT adapter's folder, or a run: RUN, RUN@STEP, RUN@best, RUN@0."
app = typer.Typer(help="Which parameters training changed.", no_args_is_help=True, rich_markup_mode=None)


def updates(
    base: Annotated[str, typer.Argument(metavar="BASE", help=NAMED)],
    tuned: Annotated[
        str | None, typer.Argument(metavar="TUNED", help="Likewise; left out, BASE is a run, compared with its start.")
    ] = None,
    spectra: Annotated[
        int, typer.Option(min=0, help="Matrices, the largest first, whose ranks and singular values are computed.")
    ] = 32,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write updates.json, updates.parquet and updates.html there.")
    ] = None,
) -> None:
    """Map what changed from BASE to TUNED: sparsity by tolerance, norms, ranks, by layer and kind of module."""
    from .. import api
    from ..updates.shown import show_map

    show_map(api.analyze(base, tuned, spectra=spectra, out=out))
    if out is not None:
        typer.echo(out / "updates.html")


def overlap(
    tuned: Annotated[list[str], typer.Argument(metavar="A B [C …]", help=NAMED)],
    base: Annotated[
        str | None, typer.Option(help="Where all of them began; runs know it themselves.", metavar="BASE")
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="Weights that moved further than this count.")] = 0.0,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write overlap.json and overlap.parquet there.")
    ] = None,
) -> None:
    """Compare the sets of weights that several runs changed, beside what chance would give."""
    from .. import api
    from ..updates.shown import show_overlaps

    show_overlaps(api.overlap(*tuned, base=base, tolerance=tolerance, out=out))


app.command("updates")(told(updates))
app.command("overlap")(told(overlap))
