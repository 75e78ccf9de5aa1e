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
    out: Annotated[Path | None, typer.Option(help="Write the counts of each problem too, to this JSON file.")] = None,
) -> None:
    """Measure pass@N with intervals on held-out problems, and print it as JSON."""
    from ..config import parse_overrides
    from ..measure import measure
    from ..runs.files import write_json

    result = measure(target, parse_overrides(overrides or []), checkpoint)
    if out is not None:
        write_json(out, result)
    typer.echo(json.dumps({**result, "problems": len(result["problems"])}, indent=1))
