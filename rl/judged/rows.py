"""A file of samples as rows: one JSON object a line. A line that is none is a bad row, never the end of the file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...parts import UserError

BAD_ROW = "bad_row"
"""The reason why a row that is none could not be graded."""


class BadRowError(Exception):
    """A row that cannot be judged; the message says what it lacks."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a file. `passed` is what is passed through, as JSON without its closing brace; a row with a `fault`
    has no fields, and passes its line's number and text."""

    line: int
    fields: Mapping[str, Any]
    passed: str
    fault: str = ""

    def with_verdict(self, verdict: Mapping[str, Any]) -> bytes:
        """The row and its verdict as a line."""
        return f"{self.passed}{json.dumps(verdict)[1:]}\n".encode("ascii")


def survey(path: Path) -> tuple[str, int]:
    """The SHA-256 (hex) of a file, and how many rows it has; blank lines are none.

    Raises:
        UserError: it is missing, not a file, or holds no row.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}" if not path.exists() else f"{path} is not a file")
    sha256, count = hashlib.sha256(), 0
    with path.open("rb") as file:
        for line in file:
            sha256.update(line)
            count += not line.isspace()
    if count == 0:
        raise UserError(f"{path} is empty; give a file with one JSON object a line")
    return sha256.hexdigest(), count


def read_rows(path: Path, without: Collection[str] = ()) -> Iterator[Row]:
    """The rows of a file in order; what stands under `without` (a verdict of before) is not passed through."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.isspace():
                yield _row(number, line, without)


def _row(number: int, line: bytes, without: Collection[str]) -> Row:
    try:
        fields = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        if isinstance(fields, dict):
            kept = {key: value for key, value in fields.items() if key not in without}
            return Row(number, fields, _opened(kept))
        fault = "not a JSON object"
    except RecursionError:
        fault = "nested too deeply"
    except ValueError as error:
        fault = f"not JSON: {error}"
    shown = {"line": number, "text": line.decode("utf-8", "replace").rstrip("\r\n")}
    return Row(number, {}, _opened(shown), fault)


def _opened(fields: Mapping[str, Any]) -> str:
    return f"{json.dumps(fields)[:-1]}, " if fields else "{"
