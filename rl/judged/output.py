"""The file of judged rows: appended to in order, locked, and continued after a kill only if it came from the same.

What it came from stands beside it, in `NAME.meta.json`.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, get_args

from ...parts import RunError, UserError
from ...records import Outcome
from ..runs.files import write_json
from .rows import Row


def meta_path(out: Path) -> Path:
    """Where it stands what `out` came from."""
    return out.with_name(f"{out.name}.meta.json")


def read_meta(out: Path) -> dict[str, Any]:
    """What `out` came from; empty where nothing, or nothing readable, says so."""
    try:
        found = json.loads(meta_path(out).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def opened(out: Path, origin: Mapping[str, Any]) -> Iterator[BinaryIO]:
    """`out`, created or continued, at its start, for this process alone.

    Raises:
        UserError: it is no file, or came from something else than `origin`. RunError: another process writes it.
    """
    if out.exists() and not out.is_file():
        raise UserError(f"{out} is not a file; choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"another process is writing {out}; wait for it, or choose another --out") from None
        if file.tell() == 0:
            write_json(meta_path(out), dict(origin))
        else:
            _check_origin(out, origin)
        file.seek(0)
        yield file


def keep(file: BinaryIO, rows: Iterable[Row]) -> Counter[str]:
    """The outcomes of the rows at the file's start whose verdicts stand; what follows them is cut off.

    They end with the last graded row: what could not be graded after it, be it for a missing Lean, is tried again. A
    last line that a kill cut short goes too.

    Raises:
        UserError: the file holds something else than verdicts on these rows.
    """
    outcomes: Counter[str] = Counter()
    end = position = pending = 0
    for row in rows:
        line = file.readline()
        if not line.endswith(b"\n"):
            break
        position += len(line)
        outcome = _outcome(line, row)
        if outcome is None:
            raise UserError(f"{file.name} was changed since it was written; remove it, or choose another --out")
        if outcome == "could_not_grade":
            pending += 1
        else:
            outcomes.update({outcome: 1, "could_not_grade": pending})
            end, pending = position, 0
    file.truncate(end)
    return outcomes


def append(file: BinaryIO, lines: list[bytes]) -> None:
    """Append lines; where that fails, the file is as before."""
    size = file.seek(0, os.SEEK_END)
    try:
        file.write(b"".join(lines))
        file.flush()
    except OSError:
        os.ftruncate(file.fileno(), size)
        raise


def _check_origin(out: Path, origin: Mapping[str, Any]) -> None:
    before = read_meta(out)
    if not before:
        raise UserError(f"{out} exists and was not written by this command; choose another --out")
    for key, what in (("verifier", "another verifier"), ("sha256", "another input"), ("options", "other options")):
        if before.get(key) != origin[key]:
            raise UserError(f"{out} comes from {what}{_differing(before, origin, key)}; choose another --out")


def _differing(before: Mapping[str, Any], origin: Mapping[str, Any], key: str) -> str:
    if key != "options" or not isinstance(before.get(key), dict):
        return ""
    changed = [
        f"{name}={before[key].get(name)}" for name, value in origin[key].items() if before[key].get(name) != value
    ]
    return f" ({', '.join(changed)})"


def _outcome(line: bytes, row: Row) -> str | None:
    """The outcome that a line gives this row; None if it is not about this row."""
    passed = row.passed.encode("ascii")
    if not line.startswith(passed):
        return None
    try:
        outcome = json.loads(b"{" + line[len(passed) :])["outcome"]
    except (ValueError, KeyError, RecursionError):
        return None
    return outcome if outcome in get_args(Outcome) else None
