"""One sentence out of a validation error: which key, what is wrong with it, and what was probably meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from ..parts import Options, Part, UserError, find, nearest
from .choices import Choice


def explain(error: ValidationError, model: type[Options], tree: Mapping[str, Any]) -> str:
    """The first thing wrong in `tree`, as one sentence that says what to do."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"] if part != "part"]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        known = [known for known, _ in _keys(model, tree)]
        siblings = [k for k in known if k.rpartition(".")[0] == ".".join(path[:-1])]
        close = nearest(_leafed(key, first["input"]), known) or nearest(key, known)
        hint = f"did you mean {close}?" if close else f"known here: {', '.join(siblings) or 'none'}"
        return f"unknown key {_leafed(key, first['input'])}; {hint}"
    if first["type"] == "missing":
        return f"{key} is missing; set it in the recipe, or write {key}=… on the command line"
    message = first["msg"].removeprefix("Value error, ")
    given = "" if isinstance(first["input"], dict | list) else f" (got {first['input']!r})"
    return f"{key}: {message[0].lower()}{message[1:]}{given}"


def _leafed(key: str, value: Any) -> str:
    """`lerner` holding `{lr: 1}` was written `lerner.lr`: the leaf is what the user typed."""
    while isinstance(value, Mapping) and len(value) == 1:
        (name, value), *_ = value.items()
        key = f"{key}.{name}"
    return key


def _keys(model: type[Options], tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key that the tree may hold, the options of the parts that it chooses among them."""
    for name, field in model.model_fields.items():
        yield prefix + name, field
        below = tree.get(name) if isinstance(tree.get(name), Mapping) else {}
        choice = next((mark for mark in field.metadata if isinstance(mark, Choice)), None)
        if choice is not None:
            part = _chosen(choice, tree.get(name, field.default))
            if part is not None:
                yield from _keys(part, {}, f"{prefix}{name}.")
        elif isinstance(field.annotation, type) and issubclass(field.annotation, Options):
            yield from _keys(field.annotation, below or {}, f"{prefix}{name}.")


def _chosen(choice: Choice, value: Any) -> type[Part] | None:
    name = value.get("name") if isinstance(value, Mapping) else value
    try:
        part = find(choice.kind, name) if isinstance(name, str) else None
    except UserError:
        return None
    return part if isinstance(part, type) and issubclass(part, Part) else None
