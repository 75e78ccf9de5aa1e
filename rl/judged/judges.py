"""What `underdog verify` can judge: for each verifier, how a row becomes a submission, and how many go at a time."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ...parts import UserError, find, nearest
from ...records import Problem, Verdict
from ..suggestions import explain
from .rows import BadRowError, Row

FIELDS = ("outcome", "reason", "seconds")
"""What a verdict adds to a row."""


@dataclass(frozen=True)
class Judge:
    """One verifier at work on rows: `submission` raises `BadRowError`; `judge_all` takes what it returns, best `chunk`
    at a time; `fields` is what a row gains."""

    name: str
    verifier: Any
    submission: Callable[[Row], Any]
    judge_all: Callable[[Sequence[Any]], list[Verdict]]
    chunk: int
    fields: tuple[str, ...] = FIELDS

    def written(self, verdict: Verdict) -> dict[str, Any]:
        """What a row gains by a verdict."""
        values = {"seconds": round(verdict.seconds, 6)}
        return {name: values.get(name, getattr(verdict, name)) for name in self.fields}


def open_judge(name: str, options: Mapping[str, Any]) -> Judge:
    """The verifier `name` (math, nlu or lean) with `options`, ready to judge rows.

    Raises:
        UserError: there is no such verifier or option, or the option `task` of nlu is missing.
    """
    if name not in _OPENERS:
        close = nearest(name, tuple(_OPENERS))
        hint = f"did you mean {close}?" if close else f"choose one of {', '.join(_OPENERS)}"
        raise UserError(f"underdog verify knows no verifier {name!r}; {hint}")
    part = find("verifier", name)
    try:
        verifier = part(**options)
    except ValidationError as error:
        raise UserError(f"{name}: {explain(error, part, options)}") from None
    return _OPENERS[name](verifier)


def problem_of(row: Row) -> Problem:
    """A row of mathematics or language understanding as a problem; a row without an id is a problem of its own."""
    known = {key: row.fields[key] for key in ("question", "answers") if key in row.fields}
    return Problem(id=problem_id(row.fields) or f"line {row.line}", prompt="", answer=_answer(row), info=known)


def problem_id(fields: Mapping[str, Any]) -> str | None:
    """The id of a row's problem as a text, or None: its `problem`, or where Lean judges, its `name`."""
    names = ("problem", "name") if "certificate" in fields or "statement" in fields else ("problem",)
    found = next((fields[name] for name in names if fields.get(name) is not None), None)
    return str(found) if isinstance(found, str | int) and not isinstance(found, bool) else None


def _math(verifier: Any) -> Judge:
    return Judge("math", verifier, _pair, verifier.judge_all, chunk=256)


def _nlu(verifier: Any) -> Judge:
    if verifier.task is None:
        raise UserError("nlu needs to know the task of the rows; add --task, such as --task cola")
    return Judge("nlu", verifier, _pair, verifier.judge_all, chunk=4096)


def _lean(verifier: Any) -> Judge:
    from ...verifiers.lean.toolchain import UnavailableError, toolchain

    try:
        toolchain(verifier.command, verifier.project, verifier.asked())
    except UnavailableError as error:
        raise UserError(f"{error} (--lean CMD, --project DIR)") from None
    # `judge_proofs` measures; `judge_all` would turn what may not be rewarded into wrong answers.
    at_once = verifier.batch * (verifier.workers or min(8, os.cpu_count() or 1))
    return Judge("lean", verifier, _proof, verifier.judge_proofs, at_once, (*FIELDS, "certificate"))


_OPENERS: dict[str, Callable[[Any], Judge]] = {"math": _math, "nlu": _nlu, "lean": _lean}


def _pair(row: Row) -> tuple[Problem, str]:
    problem, completion = problem_of(row), row.fields.get("completion")
    if not isinstance(completion, str):
        raise BadRowError(f"'completion' {'is not a text' if 'completion' in row.fields else 'is missing'}")
    return problem, completion


def _proof(row: Row) -> Any:
    from ...verifiers.lean.source import TaskError, submission_of

    try:
        return submission_of(row.fields)
    except TaskError as error:
        raise BadRowError(str(error)) from None


def _answer(row: Row) -> str:
    """The gold answer; data sets write numbers as numbers too."""
    answer = row.fields.get("answer")
    if isinstance(answer, str):
        return answer
    if isinstance(answer, int | float) and not isinstance(answer, bool) and math.isfinite(answer):
        return str(answer)
    raise BadRowError(f"'answer' {'is neither a text nor a number' if 'answer' in row.fields else 'is missing'}")
