"""From rows and columns to problems: what the data parts `hub` and `file` share."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field

from ...parts import UserError, nearest
from ...records import Message, Problem
from .base import Data

log = logging.getLogger(__name__)

Row = Mapping[str, Any]


class Table(Data):
    """A source of rows, and which of its columns hold what; `a.b` reads the field b of the column a."""

    prompt: str = "prompt"
    """Column of the problem: a text, or a list of chat turns."""
    answer: str | None = "answer"
    """Column of the gold answer; null where the verifier needs none."""
    answer_after: str | None = None
    """Only what follows the last such mark is the answer (GSM8K: "####")."""
    solution: str | None = None
    """Column of a worked solution, for the engine gold."""
    problem_id: str | None = None
    """Column of the problem's id; unset numbers the rows."""
    source: str | None = None
    """Column by whose values scores are broken down, such as a subject or a level."""
    keep: list[str] | None = None
    """Other columns to keep with each problem; unset keeps all, which is much where data hold long texts besides."""
    limit: int | None = Field(default=None, ge=1)
    """Rows to read, from the first on; unset reads all. The evaluation set is read whole."""

    def keeps(self, column: str) -> bool:
        """Whether a column that no option names is kept."""
        return self.keep is None or column in self.keep

    def reads(self, column: str) -> bool:
        """Whether a column is of any use: kept, or named by an option (as such, or a field of it)."""
        named = (self.prompt, self.answer, self.solution, self.problem_id, self.source)
        return self.keeps(column) or any(f"{name}.".startswith(f"{column}.") for name in named if name is not None)


def problems(rows: Sequence[Row], table: Table, source: str, label: str) -> list[Problem]:
    """The rows as problems, in order; those without a prompt or an answer are left out, their number logged.

    Args:
        source: what messages call the data, such as a file's path.
        label: what ids of numbered rows begin with.

    Raises:
        UserError: a column that the options name is not there (the message names those that are), a cell
            holds something else than it should, an id belongs to two problems, or no row is complete.
    """
    _check_columns(_columns(rows), table, source)
    result: list[Problem] = []
    prompts: dict[str, Any] = {}
    for number, row in enumerate(rows):
        problem = _problem(row, table, f"{source}, row {number}", f"{label}/{number}")
        if problem is None:
            continue
        if prompts.setdefault(problem.id, problem.prompt) != problem.prompt:
            raise UserError(
                f"{source}: the id {problem.id!r} belongs to several problems; choose another column as data.problem_id"
            )
        result.append(problem)
    if not result:
        raise UserError(f"{source}: none of its {len(rows)} rows has both a prompt and an answer")
    if left_out := len(rows) - len(result):
        log.warning("%s: %d of %d rows left out: no prompt or no answer", source, left_out, len(rows))
    return result


def _problem(row: Row, table: Table, where: str, numbered: str) -> Problem | None:
    """One row as a problem, or None where it lacks a prompt or an answer."""

    def text(column: str) -> str:
        return _text(_cell(row, column), f"{where}, column {column!r}")

    prompt = _prompt(_cell(row, table.prompt), f"{where}, column {table.prompt!r}")
    answer = text(table.answer) if table.answer is not None else ""
    if table.answer_after is not None:
        _, mark, answer = answer.rpartition(table.answer_after)
        answer = answer if mark else ""
    if not prompt or (table.answer is not None and not answer.strip()):
        return None
    used = {table.prompt, table.answer, table.solution, table.problem_id}
    info = {column: value for column, value in row.items() if column not in used and table.keeps(column)}
    if table.source is not None:
        info["source"] = text(table.source)
    return Problem(
        id=numbered if table.problem_id is None else text(table.problem_id),
        prompt=prompt,
        answer=answer.strip(),
        solution=text(table.solution) or None if table.solution is not None else None,
        info=info,
    )


def _columns(rows: Iterable[Row]) -> tuple[str, ...]:
    """All columns of all rows in order of appearance, fields of nested ones as `column.field`."""
    seen: dict[str, None] = {}
    for row in rows:
        for column, value in row.items():
            seen[column] = None
            if isinstance(value, Mapping):
                seen.update(dict.fromkeys(f"{column}.{field}" for field in _columns([value])))
    return tuple(seen)


def _check_columns(columns: tuple[str, ...], table: Table, source: str) -> None:
    if not columns:
        raise UserError(f"{source} holds no rows; give one that does")
    for option in ("prompt", "answer", "solution", "problem_id", "source"):
        column = getattr(table, option)
        if column is not None and column not in columns:
            close = nearest(column, columns)
            hint = f"did you mean {close!r}? " if close else ""
            raise UserError(
                f"{source} has no column {column!r} (data.{option}); {hint}its columns are {', '.join(columns)}"
            )


def _cell(row: Row, column: str) -> Any:
    """The value of a column, or of a nested field; None where the row lacks it."""
    if column in row:
        return row[column]
    value: Any = row
    for field in column.split("."):
        value = value.get(field) if isinstance(value, Mapping) else None
    return value


def _prompt(value: Any, where: str) -> str | tuple[Message, ...]:
    if not isinstance(value, list):
        text = _text(value, where)
        return text if text.strip() else ""
    turns = tuple(
        Message(role=turn["role"], content=_text(turn["content"], where))
        for turn in value
        if isinstance(turn, Mapping) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)
    )
    if len(turns) < len(value):
        raise UserError(f"{where} is a list, but not of chat turns, each with a role and a content; correct it")
    if turns and turns[-1]["role"] == "assistant":
        raise UserError(f"{where} ends with the assistant's turn; a prompt must leave that to the model")
    return turns


def _text(value: Any, where: str) -> str:
    """A cell as text: 27.0 as 27, a list of one as what it holds, None as nothing."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if value is None or value != value:  # what tables write for a missing number is NaN
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if not isinstance(value, str | int | float):
        raise UserError(f"{where} holds a {type(value).__name__}; a text or a number is needed")
    text = str(value)
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise UserError(f"{where} holds half a character (a lone surrogate); correct or remove it")
    return text
