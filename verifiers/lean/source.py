"""What a policy writes, and the Lean text that is compiled: the data set fixes everything but the proof."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from .lexer import UnreadableError, tokens
from .scan import Company, Scan, imports_of, scan_file, scan_proof

REASONING_END = "</think>"
_FENCE = re.compile(r"^[ \t]*```[ \t]*([A-Za-z0-9]*)[^\n]*$", re.MULTILINE)
_DECLARES = frozenset(("theorem", "lemma", "def", "abbrev", "axiom", "instance", "structure", "inductive", "class"))


class TaskError(Exception):
    """A row of a data set that states no theorem; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Task:
    """A theorem to be proved: `name` as the statement writes it; `statement` ends before `:=`; `preamble` holds the
    definitions that the statement needs; `header` the imports, options and opened namespaces."""

    name: str
    header: str
    preamble: str
    statement: str


@dataclass(frozen=True, slots=True)
class Submission:
    """What was submitted for a task: what follows `:=`, or a whole file."""

    task: Task
    text: str
    whole_file: bool = False

    def scan(self, heartbeats: int) -> Scan:
        """What the filter says of it."""
        if not self.whole_file:
            return scan_proof(self.text, heartbeats)
        return scan_file(self.text, heartbeats, header_imports(self.task.header))


def task_of(info: Mapping[str, Any]) -> Task:
    """The task of a data set's row: `statement` or `formal_statement`, and `header` and `preamble` if given. The
    theorem's name is read from the statement.

    Raises:
        TaskError: it states no theorem.
    """
    fields = {key: info.get(key) or "" for key in ("header", "preamble", "statement", "formal_statement")}
    bad = [key for key, value in fields.items() if not isinstance(value, str)]
    if bad:
        raise TaskError(f"{bad[0]!r} is not a text")
    statement = cut(fields["statement"] or fields["formal_statement"])
    if not statement:
        raise TaskError("the row has no 'statement'")
    try:
        found = tokens(statement)
    except UnreadableError as error:
        raise TaskError(f"the statement cannot be read: {error}") from None
    places = [i for i, token in enumerate(found) if token.kind == "name" and token.text in ("theorem", "lemma")]
    if not places or places[-1] + 1 >= len(found) or found[places[-1] + 1].kind != "name":
        raise TaskError("the statement declares no theorem with a name")
    stated = found[places[-1] + 1].text
    return Task(stated, fields["header"], fields["preamble"], statement)


def submission_of(row: Mapping[str, Any]) -> Submission:
    """The submission of a row with `proof` or `file` beside the task's own fields.

    Raises:
        TaskError: it has neither or both, or states no theorem.
    """
    given = [(key, row[key]) for key in ("proof", "file") if row.get(key) is not None]
    if len(given) != 1 or not isinstance(given[0][1], str):
        raise TaskError("the row needs one text, 'proof' (what follows :=) or 'file' (a whole file)")
    return Submission(task_of(row), given[0][1], given[0][0] == "file")


def cut(statement: str) -> str:
    """A statement without what stands for its proof: a trailing `:= by sorry`, `:= sorry`, `:= by` or `:=`."""
    text = statement.rstrip()
    for last in ("sorry", "by", ":="):
        shorter = text.removesuffix(last)
        if shorter != text and (last == ":=" or re.search(r":=\s*(by)?\s*$", shorter)):
            text = shorter.rstrip()
    return text


def extract(completion: str, name: str) -> tuple[str, bool]:
    """What a completion submits, and whether it is a whole file.

    After the end of the reasoning: the last closed block fenced as Lean, else the only block if it is fenced as
    nothing, else all of it. A text that declares `name` is a whole file; any other is what follows `:=`, and a leading
    `:=` is dropped.
    """
    answer = completion.rpartition(REASONING_END)[2]
    blocks: list[tuple[str, str]] = []
    opening: re.Match[str] | None = None
    for fence in _FENCE.finditer(answer):
        if opening is None or fence.group(1):
            opening = fence
        else:
            blocks.append((opening.group(1).lower(), answer[opening.end() + 1 : fence.start()]))
            opening = None
    fenced = [text for language, text in blocks if language in ("lean", "lean4")]
    fenced = fenced or [text for language, text in blocks if language == "" and len(blocks) == 1]
    text = re.sub(r"\A(?:[ \t]*\n)+", "", fenced[-1] if fenced else answer).rstrip()
    whole = re.search(rf"\b(?:theorem|lemma)\s+{re.escape(name)}(?![\w.'!?])", text) is not None
    return (text, True) if whole else (re.sub(r"\A\s*:=[ \t]*\n?", "", text), False)


def header_imports(header: str) -> tuple[str, ...]:
    """The modules that a header imports."""
    try:
        return imports_of(header)[0]
    except UnreadableError:
        return ()


@dataclass(frozen=True, slots=True)
class Member:
    """A text as Lean gets it: `head` for the top of a file, `body` for a namespace below it; `shares`: nothing
    in the body can reach beyond that namespace, and it may stand in a file with others of its `company`."""

    head: str
    body: str
    shares: bool
    company: Company = "honest"


def member_of(submission: Submission, heartbeats: int) -> Member:
    """Where its texts go. A preamble that only defines things goes into the body, one that may leave rules behind
    into the head. A file that imports anything brings its own header; one that declares nothing of the preamble is
    given it."""
    task = submission.task
    scan = submission.scan(heartbeats)
    if not submission.whole_file:
        return _stated(task, submission.text, scan, heartbeats)
    head, body = _split(submission)
    preamble = "" if declared(task.preamble) & declared(submission.text) else task.preamble
    return _with_preamble(Member(head, body, scan.contained, scan.company), preamble, heartbeats)


def reference_of(task: Task, heartbeats: int) -> Member:
    """The data set's own statement, with `sorry` for a proof."""
    return _stated(task, "sorry", Scan("", True), heartbeats)


def _stated(task: Task, proof: str, scan: Scan, heartbeats: int) -> Member:
    shares = scan.contained and scan_file(task.statement, heartbeats).contained
    member = Member(task.header, f"{task.statement}\n:=\n{proof}\n", shares, scan.company)
    return _with_preamble(member, task.preamble, heartbeats)


def _with_preamble(member: Member, preamble: str, heartbeats: int) -> Member:
    if not preamble.strip():
        return member
    if scan_file(preamble, heartbeats).contained:
        return replace(member, body=f"{preamble}\n{member.body}")
    return replace(member, head=f"{member.head}\n{preamble}")


def _split(submission: Submission) -> tuple[str, str]:
    """The header of a whole file, and the rest."""
    try:
        imports, start = imports_of(submission.text)
    except UnreadableError:
        imports, start = (), 0
    if not imports:
        return submission.task.header, submission.text
    needed = dict.fromkeys((*header_imports(submission.task.header), *imports))
    return "".join(f"import {module}\n" for module in needed), submission.text[start:]


def declared(text: str) -> set[str]:
    """The names that a text declares; none when it cannot be read."""
    try:
        found = tokens(text)
    except UnreadableError:
        return set()
    pairs = pairwise(found)
    return {second.text for first, second in pairs if first.text in _DECLARES and second.kind == "name"}
