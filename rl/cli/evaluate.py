"""`underdog eval TARGET [key=value …]`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .train import OVERRIDES


def evaluate(
    target: Annotated[str, typer.Argument(help="A run folder (its trained policy), or a recipe (its model as it is).")],
    overrides: OVERRIDES = None,
    checkpoint: Annotated[str, typer.Option(help="Of a run: last, best, or the number of a step.")] = "last",
    out: Annotated[Path | None, typer.Option(help="Also write the result to this JSON file.")] = None,
) -> None:
    """Measure pass@N with intervals on held-out problems."""
    from ..config import parse_overrides
    from ..measure import measure

    result = measure(target, parse_overrides(overrides or []), checkpoint)
    text = json.dumps(result, indent=1)
    if out is not None:
        from ..runs.files import write_text

        write_text(out, text + "\n")
    typer.echo(text)
