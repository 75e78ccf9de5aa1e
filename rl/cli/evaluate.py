"""`underdog eval TARGET [key=value …]` and `underdog eval --samples FILE.jsonl`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .shown import JSON
from .train import OVERRIDES

TARGET = Annotated[
    str | None, typer.Argument(help="A run folder (its trained policy), or a recipe (its model as it is).")
]
LAST = "last"


def evaluate(
    target: TARGET = None,
    overrides: OVERRIDES = None,
    checkpoint: Annotated[str, typer.Option(help="Of a run: last, best, or the number of a step.")] = LAST,
    samples: Annotated[
        Path | None, typer.Option(metavar="FILE", help="In place of TARGET: judged samples, as verify writes them.")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --samples: another policy's, for the paired change.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the counts of each problem too, to this JSON file.")] = None,
    as_json: JSON = False,
) -> None:
    """Measure pass@N with intervals: on held-out problems, or from judged samples."""
    from ..runs.files import write_json
    from .shown import show

    if target is not None and samples is None and base is None:
        from ..config import parse_overrides
        from ..measure import measure

        result = measure(target, parse_overrides(overrides or []), checkpoint)
    else:
        result = _of_samples(samples, base, others=bool(target or overrides or checkpoint != LAST))
    if out is not None:
        write_json(out, result)
    from ..judged.tables import pass_table

    show(result, pass_table, as_json)


def _of_samples(samples: Path | None, base: Path | None, others: bool) -> dict[str, Any]:
    from ...parts import UserError
    from ..judged.samples import measure_samples

    if samples is None and base is not None:
        raise UserError("--base belongs to --samples; to compare runs, use underdog report RUN RUN")
    if samples is None:
        raise UserError("give a run or a recipe to evaluate, or --samples FILE with judged samples")
    if others:
        raise UserError("--samples measures what it is given; leave out the run or recipe, overrides and --checkpoint")
    return measure_samples(samples, base)
