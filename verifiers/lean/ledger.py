"""Verdicts that outlive a process: a small SQLite file that several runs may share, and that a kill leaves whole."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import astuple
from functools import cache
from pathlib import Path

from ...parts import UserError
from ...records import Verdict
from .source import Submission

_TABLE = (
    "CREATE TABLE IF NOT EXISTS verdicts"
    " (key BLOB PRIMARY KEY, outcome TEXT, reason TEXT, seconds REAL, detail TEXT, certificate TEXT) WITHOUT ROWID"
)
_PATIENCE = 60.0
"""Seconds to wait for another process that writes."""


class Ledger:
    """Verdicts by the content of what was judged and of what judged it: Lean, its options, and the code of this folder.

    Raises:
        UserError: the file cannot be opened, or is not such a ledger.
    """

    def __init__(self, path: str, judge: Mapping[str, object]) -> None:
        self._path = str(Path(path).expanduser())
        described = json.dumps({**judge, "code": _code()}, sort_keys=True)
        self._judge = hashlib.sha256(described.encode()).digest()
        try:
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as file, file:
                file.execute("PRAGMA journal_mode = WAL")
                file.execute(_TABLE)
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"verifier.cache={path} cannot be used ({error}); name another file, or none") from None

    def known(self, rows: Iterable[Submission]) -> dict[Submission, Verdict]:
        """The verdicts that are there."""
        with closing(self._open()) as file:
            found = {row: self._look_up(file, row) for row in rows}
        return {row: verdict for row, verdict in found.items() if verdict is not None}

    def keep(self, verdicts: Mapping[Submission, Verdict]) -> None:
        """Write verdicts down, all or none."""
        values = [(self._key(row), *astuple(verdict)) for row, verdict in verdicts.items()]
        with closing(self._open()) as file, file:
            file.executemany("INSERT OR IGNORE INTO verdicts VALUES (?, ?, ?, ?, ?, ?)", values)

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=_PATIENCE)

    def _look_up(self, file: sqlite3.Connection, row: Submission) -> Verdict | None:
        columns = "outcome, reason, seconds, detail, certificate"
        found = file.execute(f"SELECT {columns} FROM verdicts WHERE key = ?", (self._key(row),)).fetchone()
        return None if found is None else Verdict(*found)

    def _key(self, row: Submission) -> bytes:
        task = row.task
        content = [task.name, task.header, task.preamble, task.statement, row.text, row.whole_file]
        return hashlib.sha256(self._judge + json.dumps(content).encode()).digest()


@cache
def _code() -> str:
    """What judges, beside Lean itself: verdicts of another version of it are not taken over."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
