"""`underdog verify math|nlu|lean FILE.jsonl [key=value …]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .shown import JSON

OPTIONS = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Options of the verifier, such as seconds=10.")
]


def verify(
    verifier: Annotated[str, typer.Argument(metavar="math|nlu|lean", help="What judges.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Samples, one JSON object a line.")],
    options: OPTIONS = None,
    out: Annotated[Path | None, typer.Option(help="By default NAME.judged.jsonl beside the file.")] = None,
    task: Annotated[str | None, typer.Option(help="Of nlu: the task of all rows, such as cola.")] = None,
    lean: Annotated[str | None, typer.Option(metavar="CMD", help="Of lean: a command that behaves like lean.")] = None,
    project: Annotated[str | None, typer.Option(metavar="DIR", help="Of lean: a built Lake project.")] = None,
    no_scan: Annotated[
        bool, typer.Option("--no-scan", help="Of lean: no filter first; what is then not replayed is a measurement.")
    ] = False,
    as_json: JSON = False,
) -> None:
    """Judge anybody's samples: each row is written with outcome, reason and seconds, and they are summed up.

    Rows: math and nlu {answer, completion}; lean {name, header, preamble, statement, proof}, or a whole file as `file`
    in place of `proof`. `problem` (an id) and `source` may stand in any row. The same command continues a killed one.
    """
    from ..config import parse_overrides
    from ..judged.tables import verify_table
    from ..verify import verify
    from .shown import show

    chosen = parse_overrides(options or [])
    named = {"task": task, "command": lean, "project": project, "scan": False if no_scan else None}
    for name, value in named.items():
        if value is not None:
            _set(chosen, name, value)
    show(verify(verifier, file, out, chosen), verify_table, as_json)


def _set(chosen: dict[str, object], name: str, value: object) -> None:
    if name in chosen and chosen[name] != value:
        from ...parts import UserError

        raise UserError(f"{name} is given twice, as {chosen[name]!r} and as {value!r}; leave one out")
    chosen[name] = value
