"""Writes docs/configuration.md from the fields of the tree and of its parts: `python docs/build.py`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from underdog.parts import ROOMS, Options, find, names
from underdog.rl.choices import Choice
from underdog.rl.config import Config

TARGET = Path(__file__).with_name("configuration.md")
HEAD = """# Configuration

<!-- Written by docs/build.py from the code; change the fields' docstrings there, then run it again. -->

Every key of a recipe and every option of every part. On the command line keys are dotted
(`underdog train demo learner.adapter.r=16`); `underdog train RECIPE --dry-run` prints what they come to, and
`underdog recipes --schema` is the same as a JSON schema for editors.

Where a key chooses a part, a bare word is short for a block: `algorithm: rloo` is `algorithm: {name: rloo}`.
`path/to/file.py:Name` in its place brings a part of your own.

A recipe may build on another: `extends: NAME` (or a path, relative to the recipe's own folder), and for the rest only
what differs. Its keys are laid over the other recipe as overrides on the command line are: dotted ones
(`learner.adapter.r: 4`) set one key, and a block replaces the whole block of its name.
"""
WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}
BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}", "min_length": "at least {} long"}


def page() -> str:
    """The whole page."""
    sections = [HEAD, "## The tree", *_tables(Config, "")]
    for kind in ROOMS:
        sections.append(f"## {kind.capitalize()}")
        for name in names(kind):
            part = find(kind, name)
            first = (inspect.getdoc(part) or "").partition("\n\n")[0].replace("\n", " ")
            sections += [f"### {name}", first, *_tables(part, "", base=_shared(kind))]
        if shared := _shared(kind):
            rows = [_row(key, field) for key, field in find(kind, names(kind)[0]).model_fields.items() if key in shared]
            sections += [f"### every {kind}", _table(rows)]
    return "\n\n".join(section.rstrip() for section in sections) + "\n"


def _tables(model: type[Options], prefix: str, base: frozenset[str] = frozenset()) -> Iterator[str]:
    """One table a block, the blocks within it after it."""
    blocks = {k: f.annotation for k, f in model.model_fields.items() if _is_block(f)}
    rows = [_row(prefix + k, f) for k, f in model.model_fields.items() if k not in blocks and k not in base]
    if rows:
        yield _table(rows)
    for key, block in blocks.items():
        assert isinstance(block, type)
        yield f"### {prefix}{key}"
        yield inspect.getdoc(block) or ""
        yield from _tables(block, f"{prefix}{key}.")


def _is_block(field: FieldInfo) -> bool:
    kind = field.annotation
    return isinstance(kind, type) and issubclass(kind, Options) and not _choice(field)


def _shared(kind: str) -> frozenset[str]:
    """Options that all parts of a kind have, where there are several parts."""
    parts = [find(kind, name) for name in names(kind)]
    return frozenset.intersection(*(frozenset(p.model_fields) for p in parts)) if len(parts) > 1 else frozenset()


def _table(rows: list[tuple[str, ...]]) -> str:
    lines = [("key", "default", "values", "meaning"), ("---",) * 4, *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _row(key: str, field: FieldInfo) -> tuple[str, str, str, str]:
    default = "required" if field.is_required() else f"`{_shown(field.get_default(call_default_factory=True))}`"
    return f"`{key}`", default, _values(field), (field.description or "").replace("\n", " ")


def _shown(default: Any) -> str:
    if default is None or isinstance(default, bool):
        return str(default).lower().replace("none", "null")
    return str(default).replace("'", "") if isinstance(default, list | dict) else str(default)


def _values(field: FieldInfo) -> str:
    choice = _choice(field)
    if choice:
        return f"a part: [{choice.kind}](#{choice.kind})"
    if field.annotation == Config.model_fields["rewards"].annotation:
        return "weights of parts: [reward](#reward)"
    return ", ".join([_type(field.annotation), *_limits(field.metadata)])


def _limits(marks: Iterable[Any]) -> list[str]:
    return [
        words.format(getattr(mark, name)) for mark in marks for name, words in BOUNDS.items() if hasattr(mark, name)
    ]


def _choice(field: FieldInfo) -> Choice | None:
    return next((mark for mark in field.metadata if isinstance(mark, Choice)), None)


def _type(annotation: Any) -> str:
    """`int | None` as a reader says it."""
    inner = get_args(annotation)
    if get_origin(annotation) is Annotated:
        kind, *marks = inner
        return " and ".join([_type(kind), *(limit for field in marks for limit in _limits(field.metadata))])
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if get_origin(annotation) is list:
        return f"list of {_type(inner[0])}"
    return " or ".join(_type(one) for one in inner) if inner else WORDS[annotation]


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
