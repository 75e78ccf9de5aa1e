"""`underdog export RUN OUT`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    form: Annotated[
        Literal["merged", "adapter"], typer.Option(help="A whole model folder, or the PEFT adapter folder.")
    ] = "merged",
    checkpoint: Annotated[str, typer.Option(help="Which one: last, best, or the number of a step.")] = "last",
    push: Annotated[
        str | None, typer.Option(metavar="HUB_ID", help="Push the folder to this hub repository too.")
    ] = None,
) -> None:
    """Write a trained policy as a model folder or as a PEFT adapter, and push it to the hub if asked."""
    from .. import api

    typer.echo(api.export(run, out, form=form, checkpoint=checkpoint))
    if push is not None:
        from ..export import push_folder

        typer.echo(push_folder(out, push))
