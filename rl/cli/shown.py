"""How a command shows what it measured: a table for a reader at a terminal, JSON for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
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


def listing(files: Iterable[Path]) -> str:
    """A line a YAML file: its name, and what its first comment says of it."""
    from ..config import first_comment

    said = {path.stem: first_comment(path.read_text(encoding="utf-8")) for path in files}
    width = max(map(len, said), default=0)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in said.items())


def _brief(value: Any) -> Any:
    """An evaluation, and those within it, with the number of its problems in place of their counts."""
    if not isinstance(value, Mapping):
        return value
    return {k: len(v) if k == "problems" and isinstance(v, list) else _brief(v) for k, v in value.items()}
