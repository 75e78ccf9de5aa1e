"""`{name: lora, r: 16}` in the tree: a field that chooses a part of a kind, with that part's strict options.

    adapter: Annotated[Any, Choice("adapter")] = Field(default="lora", validate_default=True)

takes a bare word, a mapping with `name`, or a part that is already built, and holds the built part.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, SerializationInfo, ValidationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from ..parts import Part, UserError, find, names

FILE_PATTERN = r"\.py:[A-Za-z_]\w*$"
"""What the name of a user's own part looks like: path/to/file.py:Name."""

_written: dict[type[Part], str] = {}
"""The name under which a class from a user's file was last asked for."""


@dataclass(frozen=True)
class Choice:
    """Marks a field as a choice among the parts of `kind`.

    `wrap` turns what a file holds and is no part (a plain function) into a class of parts; None refuses it.
    """

    kind: str
    wrap: Callable[[Any], type[Part]] | None = None

    def build(self, value: Any, *, from_json: bool = False) -> Part:
        """The part that `value` (word, mapping or part) means.

        Raises:
            PydanticCustomError: `unknown_part` (the message names the nearest) or `part_type`.
            ValidationError: the part's own, on its options; inside a tree its locations get the tree's path.
        """
        if isinstance(value, Part):
            return value
        name, options = _split(self.kind, value)
        try:
            found = find(self.kind, name)
        except UserError as error:
            raise _custom("unknown_part", str(error)) from None
        part = self._class_of(name, found)
        return part.model_validate_json(json.dumps(options)) if from_json else part.model_validate(options)

    def _class_of(self, name: str, found: Any) -> type[Part]:
        if not (isinstance(found, type) and issubclass(found, Part)):
            if self.wrap is None or not callable(found):
                raise _custom("unknown_part", f"{self.kind} {name!r}: this must be a class derived from Part")
            found = _wrapped(self.wrap, found)
        if ":" in name:
            _written[found] = name
        return found

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validation by `build`, serialisation by `describe`."""

        def validate(value: Any, info: ValidationInfo) -> Part:
            return self.build(value, from_json=info.mode == "json")

        def serialise(part: Any, info: SerializationInfo) -> Any:
            return describe(part, mode="json" if info.mode == "json" else "python")

        return core_schema.with_info_plain_validator_function(
            validate, serialization=core_schema.plain_serializer_function_ser_schema(serialise, info_arg=True)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """A known name, one object a known part, or a part of the user's own."""
        own = {
            "type": "string",
            "pattern": FILE_PATTERN,
            "description": f"file.py:Name, a {self.kind} of your own",
        }
        own_block = {"type": "object", "properties": {"name": own}, "required": ["name"]}
        return {
            "anyOf": [
                {"enum": list(names(self.kind)), "type": "string"},
                *(_block(name, find(self.kind, name), handler) for name in names(self.kind)),
                own,
                own_block,
            ]
        }


def name_of(part: Part) -> str:
    """The name that a recipe writes for `part`: its file's, or `file.py:Name` as it was written."""
    cls = type(part)
    if cls in _written:
        return _written[cls]
    module = inspect.getmodule(cls)
    stem = cls.__module__.rpartition(".")[2]
    if stem.replace("_", "") == cls.__name__.lower():
        return stem
    file = Path(getattr(module, "__file__", None) or "unknown.py")
    return f"{file}:{cls.__name__}"


def describe(part: Part, *, mode: str = "json") -> dict[str, Any]:
    """`{name: …, its options}`: what gives the same part again."""
    return {"name": name_of(part), **part.model_dump(mode=mode)}


@cache
def _wrapped(wrap: Callable[[Any], type[Part]], found: Any) -> type[Part]:
    return wrap(found)


def _split(kind: str, value: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(value, str):
        return value, {}
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return value["name"], {k: v for k, v in value.items() if k != "name"}
    raise _custom("part_type", f"choose a {kind} by its name, or by a block {{name: …, its options}}")


def _custom(kind: str, message: str) -> PydanticCustomError:
    return PydanticCustomError(kind, "{message}", {"message": message})  # type: ignore[arg-type]


def _block(name: str, part: type[Part], handler: GetJsonSchemaHandler) -> dict[str, Any]:
    """The JSON schema of one part's block, its name fixed."""
    options = handler.resolve_ref_schema(handler(part.__pydantic_core_schema__))
    fixed = {"const": name, "type": "string", "description": f"{name}: {_first_line(part)}"}
    properties = {"name": fixed, **options.get("properties", {})}
    required = ["name", *options.get("required", [])]
    return {**options, "title": name, "properties": properties, "required": required}


def _first_line(part: type[Part]) -> str:
    return (inspect.getdoc(part) or "").partition("\n")[0]
