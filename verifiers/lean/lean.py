"""Lean 4: the data set states, the policy proves, Lean compiles behind walls, a certificate made outside decides."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field, PrivateAttr

from ...records import Problem, Verdict
from ..base import Verifier
from . import sandbox
from .batch import Command, Compiled, compile_all
from .certificate import Statement, StatementError, certify
from .ledger import Ledger
from .lexer import MAX_LENGTH, UnreadableError, without_comments
from .olean import OleanError
from .reader import Reader
from .repl import Repls
from .sandbox import Limits
from .scan import UNREADABLE
from .source import Member, Submission, Task, TaskError, extract, member_of, reference_of, task_of
from .toolchain import Toolchain, UnavailableError, toolchain

MAX_CACHED = 50_000
"""Verdicts that are remembered."""
_LASTING = frozenset(("proved", "lean_error", "cheat", "uncertified"))
"""Reasons that would be the same again, whatever else the machine does."""

Threshold = Literal["auto", "declarations", "replayed"]


@dataclass(frozen=True, slots=True)
class _Reference:
    """A task's own statement as Lean understood it, or why it did not."""

    statement: Statement | None = None
    fault: str = ""


class Lean(Verifier):
    """Does what the completion holds prove the problem's theorem?

    `problem.info` holds `statement` (or `formal_statement`), and `header` and `preamble` where the statement needs
    them. The completion's last Lean block, else all of it, is what follows `:=`, or a whole file if it declares the
    theorem. A scan refuses what no honest proof needs; Lean compiles the rest behind walls; then the compiled module
    is read here: the theorem must exist under its exact name, be a theorem, have the type that the data set's own
    statement has, and reach no axiom but `propext`, `Classical.choice` and `Quot.sound`. Where the toolchain has a
    kernel replay, that has the last word.

    Reasons: `proved`, which alone is right; `lean_error`, `cheat` (the detail says which), `timeout`, `out_of_memory`,
    `crash`, `uncertified` (its certificate is below `threshold`); `infrastructure`, which alone is could-not-grade.
    """

    command: str = ""
    """A command that behaves like `lean`, written as for a shell; default: `lean` from PATH."""
    project: str = ""
    """Folder of a built Lake project whose libraries the headers import; default: none."""
    repl: str = ""
    """Command of a leanprover-community/repl that finds the failing proofs first; default: `command` finds them."""
    seconds: float = Field(default=60.0, gt=0, le=3600)
    """Wall-clock seconds for one submission, without the import of its header; more is the reason timeout."""
    start_seconds: float = Field(default=300.0, gt=0, le=3600)
    """Wall-clock seconds for Lean to start and import a header; more is the reason infrastructure."""
    memory_mib: int = Field(default=4096, ge=256)
    """Memory of one Lean process and its children in MiB, files that they map apart; more is out_of_memory."""
    heartbeats: int = Field(default=400_000, ge=1000)
    """Lean's own limit for one declaration, and the most that `set_option maxHeartbeats` in a submission may ask."""
    workers: int = Field(default=0, ge=0, le=1024)
    """Lean processes at a time; 0 is one a core, eight at most."""
    batch: int = Field(default=64, ge=1, le=4096)
    """Submissions that share one Lean process at most."""
    threshold: Threshold = "auto"
    """The certificate from which on a proof counts: declarations, replayed, or auto, the best at hand."""
    scan: bool = True
    """Refuse by the scan what no honest proof needs. Off is for measuring: then nothing short of a replay earns."""
    cache: str = ""
    """File that remembers verdicts from one run to the next, and that runs may share; default: none."""

    _found: Toolchain | None = PrivateAttr(default=None)
    _version: str | None = PrivateAttr(default=None)
    _repls: Repls | None = PrivateAttr(default=None)
    _references: dict[Task, _Reference] = PrivateAttr(default_factory=dict)
    _verdicts: dict[Submission, Verdict] = PrivateAttr(default_factory=dict)
    _ledger: Ledger | None = PrivateAttr(default=None)

    def judge_all(self, submissions: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """Verdicts in order, fit to be rewarded: with the scan off, only a replayed proof is right."""
        rows = [self._submission(problem, completion) for problem, completion in submissions]
        known = iter(self.judge_proofs([row for row in rows if isinstance(row, Submission)]))
        judged = [next(known) if isinstance(row, Submission) else row for row in rows]
        return [self._earned(verdict) for verdict in judged]

    def judge_proofs(self, rows: Sequence[Submission]) -> list[Verdict]:
        """Verdicts in order; each that is right has its `certificate`. Equal rows are judged once.

        With the scan off and no replay, `proved` is a measurement: what it rests on may be an unchecked declaration.
        """
        new = [row for row in dict.fromkeys(rows) if row not in self._verdicts]
        judged = self._judge_new(new)
        found = [judged.get(row) or self._verdicts[row] for row in rows]
        self._verdicts.update({row: verdict for row, verdict in judged.items() if verdict.reason in _LASTING})
        while len(self._verdicts) > MAX_CACHED:
            del self._verdicts[next(iter(self._verdicts))]
        return found

    def essence(self, problem: Problem, completion: str) -> str:
        """What is submitted, without comments (arXiv 2506.02355's unique proofs); what cannot be read as it is."""
        row = self._submission(problem, completion)
        text = row.text if isinstance(row, Submission) else completion
        try:
            return without_comments(text)
        except UnreadableError:
            return text.strip()

    def close(self) -> None:
        """End the REPLs, if any; they start again when needed."""
        if self._repls is not None:
            self._repls.close()

    def asked(self) -> Command:
        """The limits that these options ask for."""
        return Command((), {}, Limits(self.memory_mib), self.seconds, self.start_seconds, self.heartbeats)

    def surroundings(self) -> str:
        """Which Lean, replay and walls there are, for `doctor` and reports; one line."""
        walls = sandbox.isolation()
        shown = str(walls) if walls else "isolation: no command can be run here"
        try:
            found = self._toolchain()
        except UnavailableError as error:
            return f"{error}; {shown}"
        kind = found.tool.kind if found.tool else found.doubts or "none"
        return f"{' '.join(found.command.words)}; replay: {kind}; {shown}"

    def _earned(self, verdict: Verdict) -> Verdict:
        """The verdict as a reward may use it: an unscanned proof has to be replayed."""
        if verdict.reason == "proved" and not self.scan and verdict.certificate != "replayed":
            return replace(verdict, outcome="wrong", reason="uncertified", detail="neither scanned nor replayed")
        return verdict

    def _submission(self, problem: Problem, completion: str) -> Submission | Verdict:
        """What is to be judged, or why it cannot be: the problem states nothing, or is for another Lean.

        `problem.info` may hold `opening`, the Lean block that the prompt began and the completion goes on with, and
        `lean`, the version that the statement is for.
        """
        try:
            task = task_of(problem.info)
            if wanted := problem.info.get("lean"):
                self._check_version(str(wanted))
        except (TaskError, UnavailableError) as error:
            return _ungraded(f"{problem.id}: {error}")
        if opening := problem.info.get("opening"):
            completion = f"{opening}{completion}\n```"
        return Submission(task, *extract(completion, task.name))

    def _check_version(self, wanted: str) -> None:
        """Statements for one Lean may not even parse on another, and a wrong verdict would look like the policy's.

        Raises:
            UnavailableError: this Lean is another, or does not say which it is.
        """
        if self._version is None:
            self._version = self._toolchain().version()
        have = self._version
        if have.split(".")[:2] != wanted.split(".")[:2]:
            raise UnavailableError(f"the statement is for Lean {wanted}, this is {have or 'a Lean of unknown version'}")

    def _judge_new(self, rows: Sequence[Submission]) -> dict[Submission, Verdict]:
        """Verdicts on rows that this process has not judged; the ledger, where there is one, is asked first."""
        if not self.cache:
            return dict(zip(rows, self._judge(rows), strict=True))
        try:
            ledger = self._ledger = self._ledger or Ledger(self.cache, self._described())
        except UnavailableError as error:
            return {row: _ungraded(str(error)) for row in rows}
        known = ledger.known(rows)
        left = [row for row in rows if row not in known]
        judged = dict(zip(left, self._judge(left), strict=True))
        ledger.keep({row: verdict for row, verdict in judged.items() if verdict.reason in _LASTING})
        return known | judged

    def _described(self) -> dict[str, object]:
        """What a verdict that is remembered depends on, beside the submission.

        Raises:
            UnavailableError: there is no such command or project.
        """
        found = self._toolchain()
        options = self.model_dump(include={"project", "heartbeats", "threshold", "scan"})
        return {**options, "command": list(found.command.words), "lean": found.version()}

    def _judge(self, rows: Sequence[Submission]) -> list[Verdict]:
        verdicts = {row: verdict for row in rows if (verdict := self._refused(row)) is not None}
        left = [row for row in rows if row not in verdicts]
        try:
            references = self._refer(list(dict.fromkeys(row.task for row in left)))
            sound = [row for row in left if not references[row.task].fault]
            members = [member_of(row, self.heartbeats) for row in sound]
            results = dict(zip(sound, self._compile(members), strict=True))
            reader = Reader()
            # `exact?` finds the theorems of other members too: who rests on one is compiled once more, alone.
            borrowed = [place for place, row in enumerate(sound) if reader.borrows(results[row])]
            again = self._compile([replace(members[place], shares=False) for place in borrowed], own=True)
            results |= {sound[place]: result for place, result in zip(borrowed, again, strict=True)}
            verdicts |= self._certified(results, references, reader)
        except UnavailableError as error:
            return [verdicts.get(row) or _ungraded(str(error)) for row in rows]
        for row in left:
            if row not in verdicts:
                verdicts[row] = _ungraded(f"the data set's statement: {references[row.task].fault}")
        return [verdicts[row] for row in rows]

    def _refused(self, row: Submission) -> Verdict | None:
        """The verdict that needs no Lean."""
        if len(row.text) > MAX_LENGTH or any(c == "\0" or "\ud800" <= c <= "\udfff" for c in row.text):
            return Verdict("wrong", "lean_error", detail="too long, or not valid Unicode")
        refused = row.scan(self.heartbeats).refused if self.scan else ""
        if not refused:
            return None
        reason = "lean_error" if refused.startswith(UNREADABLE) else "cheat"
        return Verdict("wrong", reason, detail=f"scan: {refused}")

    def _refer(self, tasks: Sequence[Task]) -> dict[Task, _Reference]:
        """The data set's own statements, each with `sorry` for a proof, in files that no submission shares."""
        new = [task for task in tasks if task not in self._references]
        compiled = self._compile([reference_of(task, self.heartbeats) for task in new], own=True)
        found = {}
        reader = Reader()
        for task, result in zip(new, compiled, strict=True):
            found[task] = self._reference(task, result, reader)
            if result.fault in ("", "lean_error"):  # what it would be another time as well
                self._references[task] = found[task]
        return {task: found.get(task) or self._references[task] for task in tasks}

    def _reference(self, task: Task, result: Compiled, reader: Reader) -> _Reference:
        if result.fault:
            return _Reference(fault=f"{result.fault}: {result.detail}")
        try:
            assert result.module is not None
            module = reader(result.module)
            self._toolchain().library(module)
            return _Reference(Statement.of(module, result.namespace, task.name))
        except (StatementError, OleanError) as error:
            return _Reference(fault=str(error))

    def _compile(self, members: Sequence[Member], own: bool = False) -> list[Compiled]:
        """Compile members; unless they are our `own`, a REPL weeds out the failing ones first, if there is one."""
        if not members:
            return []
        command = self._toolchain().command
        if not self.repl or own:
            return compile_all(members, command, self._workers, self.batch)
        self._repls = self._repls or Repls(self.repl, command, self._workers)
        weeded = self._repls.weed(members)
        left = [member for member, fault in zip(members, weeded, strict=True) if fault is None]
        compiled = iter(compile_all(left, command, self._workers, self.batch))
        return [fault if fault is not None else next(compiled) for fault in weeded]

    @property
    def _workers(self) -> int:
        return self.workers or min(8, os.cpu_count() or 1)

    def _toolchain(self) -> Toolchain:
        """What there is, found out once.

        Raises:
            UnavailableError: there is no such command or project.
        """
        if self._found is None:
            self._found = toolchain(self.command, self.project, self.asked())
        return self._found

    def _certified(
        self, results: Mapping[Submission, Compiled], references: Mapping[Task, _Reference], reader: Reader
    ) -> dict[Submission, Verdict]:
        """Verdicts on what Lean made of submissions."""
        verdicts = {row: self._declared(row, results[row], references[row.task], reader) for row in results}
        granted = [row for row, verdict in verdicts.items() if verdict.reason == "proved"]
        if not granted:
            return verdicts
        required = self.threshold
        if required == "auto":
            required = "replayed" if self._toolchain().tool else "declarations"
        if required == "replayed" or not self.scan:
            verdicts |= self._replayed({row: results[row] for row in granted}, verdicts)
        for row in granted:
            if required == "replayed" and verdicts[row].certificate == "declarations":
                verdicts[row] = replace(verdicts[row], outcome="wrong", reason="uncertified", detail="not replayed")
        return verdicts

    def _declared(self, row: Submission, result: Compiled, reference: _Reference, reader: Reader) -> Verdict:
        """The verdict by what the compiled module declares."""
        walls = result.isolation
        note = "" if walls is None or walls.complete else f" [{walls}]"
        if result.fault == "infrastructure":
            return _ungraded(result.detail)
        if result.fault:
            return Verdict("wrong", result.fault, result.seconds, result.detail + note)
        assert result.module is not None
        assert reference.statement is not None
        began = time.monotonic()
        try:
            module = reader(result.module)
            library = self._toolchain().library(module)
            refused = certify(module, result.namespace, reference.statement, library).refused
        except (OleanError, UnavailableError) as error:  # the reference, compiled by the same Lean, could be read
            refused = f"the compiled module cannot be read: {error}"
        seconds = result.seconds + time.monotonic() - began
        if refused:
            return Verdict("wrong", "cheat", seconds, refused + note)
        return Verdict("right", "proved", seconds, str(walls or ""), "declarations")

    def _replayed(
        self, results: Mapping[Submission, Compiled], verdicts: Mapping[Submission, Verdict]
    ) -> dict[Submission, Verdict]:
        """Verdicts after the kernel's second look. A refused module that several share is taken apart first."""
        found = self._toolchain()
        shared: dict[int, list[Submission]] = {}
        for row, result in results.items():
            alone = found.tool is not None and found.tool.kind == "comparator"  # it compiles each from its source
            shared.setdefault(id(row) if alone else id(result.module), []).append(row)
        judged: dict[Submission, Verdict] = {}
        for rows in shared.values():
            member = member_of(rows[0], self.heartbeats)
            sources = (reference_of(rows[0].task, self.heartbeats), member)
            challenge, solution = (f"{source.head}\n{source.body}" for source in sources)
            got = found.replay(results[rows[0]], challenge, solution, rows[0].task.name)
            if got.outcome == "refused" and len(rows) > 1:
                apart = [replace(member_of(row, self.heartbeats), shares=False) for row in rows]
                again = dict(zip(rows, self._compile(apart, own=True), strict=True))
                kept = {row: result for row, result in again.items() if not result.fault}
                judged |= {row: Verdict("wrong", again[row].fault, detail=again[row].detail) for row in again}
                judged |= self._replayed(kept, verdicts)
                continue
            for row in rows:
                if got.outcome == "refused":
                    judged[row] = Verdict("wrong", "cheat", verdicts[row].seconds, got.detail)
                elif got.outcome == "replayed":
                    judged[row] = replace(verdicts[row], certificate="replayed")
        return judged


def _ungraded(why: str) -> Verdict:
    return Verdict("could_not_grade", "infrastructure", detail=why)
