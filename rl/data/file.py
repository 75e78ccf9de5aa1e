"""Problems from a local file: JSON lines, JSON, CSV or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ...parts import AbsentError, UserError
from ...records import Problem
from .columns import Row, Table, problems


class File(Table):
    """A local .jsonl, .json, .csv or .parquet file."""

    path: str | None
    """The file, relative to the working directory; null where there is nothing but an evaluation set."""
    eval_path: str | None = None
    """A file of problems for evaluation only; unset holds some of `path` out."""

    def load(self, seed: int) -> list[Problem]:
        """The file's problems in its order."""
        return [] if self.path is None else self._problems(self.path, self.limit)

    def load_evaluation(self, seed: int) -> list[Problem] | None:
        """The problems of `eval_path`."""
        return None if self.eval_path is None else self._problems(self.eval_path, None)

    def _problems(self, path: str, limit: int | None) -> list[Problem]:
        return problems(read(path, limit), self, source=path, label=Path(path).stem)


def read(path: str, limit: int | None = None) -> list[Row]:
    """The file's first `limit` rows.

    Raises:
        UserError: there is no such file, its ending is unknown, or it is damaged; the message names the line.
    """
    file = Path(path).expanduser()
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise UserError(f"{path} is no file of a known kind; its name must end in {', '.join(READERS)}")
    if not file.is_file():
        raise AbsentError(f"there is no file {path}; paths are relative to the working directory {Path.cwd()}")
    try:
        return list(islice(reader(file), limit))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); check it and its rights") from error


def _json_lines(file: Path) -> Iterator[Row]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                where = f"{file}, line {number}"
                yield _object(_parse(line, where), where)


def _json(file: Path) -> Iterator[Row]:
    content = file.read_bytes()
    if not content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        # Many .json files of data sets are JSON lines.
        yield from _json_lines(file)
        return
    for number, value in enumerate(_parse(content, str(file))):
        yield _object(value, f"{file}, row {number}")


def _parse(content: bytes, where: str) -> Any:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        place = f"{where}, line {error.lineno}" if b"\n" in content.rstrip() else where
        raise UserError(f"{place} is not valid JSON ({error.msg}); correct or remove it") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, a number beyond bounds, or nested too deep
        raise UserError(f"{where} is not valid JSON ({error}); correct or remove it") from error


def _object(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise UserError(f"{where} is not a JSON object of columns and values; correct or remove it")
    return value


def _csv(file: Path) -> Iterator[Row]:
    reader = None
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            columns = reader.fieldnames or []
            if len(set(columns)) < len(columns):
                raise UserError(f"{file}, line 1 names a column twice; rename one")
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(
                        f"{file}, line {reader.line_num} has not one value for each of the "
                        f"{len(columns)} columns of line 1; correct or remove it"
                    )
                yield row
    except (csv.Error, UnicodeDecodeError) as error:
        line = 1 if reader is None else reader.line_num + 1
        raise UserError(f"{file}, line {line} is not valid CSV ({error}); correct or remove it") from error


def _parquet(file: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise UserError("reading Parquet needs pyarrow: pip install 'underdog-rl[train]'") from error
    try:
        with ParquetFile(file) as parquet:
            for batch in parquet.iter_batches():
                yield from batch.to_pylist()
    except ArrowException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file} is not a valid Parquet file ({reason}); fetch or write it again") from error


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
"""How files are read, by the ending of their names."""
