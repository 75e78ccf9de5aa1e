"""How a command shows what it measured: a table for a reader at a terminal, JSON for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

JSON = Annotated[bool, typer.Option("--json", help="Print JSON on a terminal too; elsewhere it always is.")]


def show(result: Mapping[str, Any], table: Callable[[Mapping[str, Any]], Any], as_json: bool) -> None:
    """Print the table of a result on a terminal, else the result as JSON."""
    if as_json or not sys.stdout.isatty():
        typer.echo(json.dumps(_brief(result), indent=1))
        return
    from rich.console import Console

    Console(highlight=False).print(table(result))


def _brief(value: Any) -> Any:
    """An evaluation, and those within it, with the number of its problems in place of their counts."""
    if not isinstance(value, Mapping):
        return value
    return {k: len(v) if k == "problems" and isinstance(v, list) else _brief(v) for k, v in value.items()}
