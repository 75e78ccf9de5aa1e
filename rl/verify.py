"""`underdog verify`: the verdicts of a verifier on anybody's samples, written beside them row by row. Without torch."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from ..parts import UserError
from ..records import Verdict
from .judged.judges import Judge, open_judge
from .judged.output import append, keep, meta_path, opened
from .judged.progress import Progress
from .judged.rows import BAD_ROW, BadRowError, Row, read_rows, survey
from .judged.summary import summarise
from .runs.files import digest, write_json


def verify(
    verifier: str, file: Path, out: Path | None = None, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Judge the rows of `file` (JSONL) by math, nlu or lean into `out`, and sum up what they came to.

    Each row is written as it was, with `outcome`, `reason`, `seconds` (and for lean `certificate`), in order. By
    default `out` is NAME.judged.jsonl beside the file. Where `out` holds the start of the same rows judged with the
    same options, it is continued. A bad row could not be graded, for the reason `bad_row`, and is told on stderr.

    Raises:
        UserError: there is no row that could be judged, a bad option, or `out` holds something else.
    """
    judge = open_judge(verifier, options or {})
    sha256, rows = survey(file)
    out = out or file.with_name(f"{file.name.removesuffix('.jsonl')}.judged.jsonl")
    if out.exists() and out.samefile(file):
        raise UserError(f"{out} is the input itself; choose another --out")
    origin = {"verifier": verifier, "options": judge.verifier.model_dump(mode="json"), "sha256": sha256}
    began = time.monotonic()
    try:
        with opened(out, origin) as written:
            _judge_file(judge, file, written, rows)
        summary = summarise(judge, out)
    except (KeyboardInterrupt, OSError) as error:
        error.add_note(f"the same command continues {out}")
        raise
    finally:
        judge.verifier.close()
    about = {"verifier": verifier, "file": str(file), "sha256": sha256, "out": str(out)}
    result = {**about, **summary, "wall_seconds": round(time.monotonic() - began, 3)}
    write_json(meta_path(out), {**origin, "file": str(file), "out_sha256": digest(out), **summary})
    return result


def _judge_file(judge: Judge, file: Path, written: BinaryIO, total: int) -> None:
    """Judge what is not judged yet.

    Raises:
        UserError: nothing in the whole file could be graded.
    """
    outcomes = keep(written, read_rows(file, judge.fields))
    left = islice(read_rows(file, judge.fields), outcomes.total(), None)
    told: dict[str, str] = {}
    with Progress(total, outcomes) as progress:
        for chunk in _chunks(left, judge.chunk):
            verdicts = _judge_rows(judge, chunk)
            append(written, [row.with_verdict(judge.written(v)) for row, v in zip(chunk, verdicts, strict=True)])
            for row, verdict in zip(chunk, verdicts, strict=True):
                # Every bad row is told; of what is wrong with us, the first time is enough.
                if verdict.outcome == "could_not_grade" and (verdict.reason == BAD_ROW or verdict.reason not in told):
                    said = f"{file}:{row.line}: could not grade ({verdict.reason}): {verdict.detail}"
                    told.setdefault(verdict.reason, said)
                    progress.say(said)
            progress.add(verdict.outcome for verdict in verdicts)
        os.fsync(written.fileno())
    if outcomes["right"] + outcomes["wrong"] == 0:
        raise UserError(f"no row of {file} could be graded; {next(iter(told.values()))}")


def _judge_rows(judge: Judge, rows: list[Row]) -> list[Verdict]:
    """A verdict a row, in order."""
    submissions, faults = [], {}
    for row in rows:
        try:
            if row.fault:
                raise BadRowError(row.fault)
            submissions.append(judge.submission(row))
        except BadRowError as error:
            faults[row.line] = Verdict("could_not_grade", BAD_ROW, detail=str(error))
    judged = iter(judge.judge_all(submissions))
    return [faults[row.line] if row.line in faults else next(judged) for row in rows]


def _chunks(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    rows = iter(rows)
    while chunk := list(islice(rows, size)):
        yield chunk
