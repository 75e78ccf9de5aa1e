"""`underdog study [NAME]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def study(
    name: Annotated[
        str | None, typer.Argument(help="A study's name, or the path of a .yaml file; without it, studies are listed.")
    ] = None,
    short: Annotated[bool, typer.Option("--short", help="The short form: minutes, to see how it goes.")] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Train nothing: draw the page of what is there, or of what was kept.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep what came out in docs/studies of the checkout, to be committed.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="The study's folder; by default studies/NAME.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Trainings at once; by default one a core.")] = None,
) -> None:
    """Run a grid of trainings, or what is left of it, and write one page of what they came to."""
    from ..studies.grid import STUDIES, study_names

    if name is None:
        from .shown import listing

        typer.echo(listing(STUDIES / f"{known}.yaml" for known in study_names()))
        return
    from ..studies.shown import show
    from ..studies.study import run_study

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    result, page = run_study(name, short=short, report=report, keep=keep, out=out, jobs=jobs, say=say)
    show(result)
    typer.echo(page)
