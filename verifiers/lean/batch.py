"""Many submissions, few Lean processes: those that cannot touch each other share a file, the rest run alone.

Starting Lean and importing a library costs far more than most proofs. In a shared file each member stands in a
namespace with an unguessable name, and is sealed:

    namespace U3f…_7
    <preamble, statement, proof>
    #print "U3f…_7"
    end U3f…_7

The printed name says that Lean got past the member, so each has a clock of its own; a parser that lost its way inside
the member finds it again at `#print`; and `end` fails unless every scope that was opened has been closed. Members come
here only if the scan found them contained (`Member.shares`), so nothing should ever pass a seal: when a seal is
missing or fails all the same, its member goes on alone and the others start afresh. A file with any error leaves no
compiled module, so those without errors are compiled once more without the others. Time-outs, exhausted memory and
crashes are believed only of a member that is alone.
"""

from __future__ import annotations

import json
import secrets
import signal
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from .sandbox import Confined, Ending, Isolation, LateError, Limits
from .source import Member

MODULE = "Submission"
"""Every file has this name: it is part of the names of private declarations."""
SMALLEST = 8
"""Members that a file has at least before a second worker is used."""
MAX_DETAIL = 500
_MARGIN = f"-- {'.' * 240}\n"
"""Some builds print the start of their input: no submission's text stands there."""
_FROM_OUTSIDE = frozenset((signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT))
_MEMORY_WORDS = ("out of memory", "bad_alloc", "Cannot enlarge memory", "memory access out of bounds")


@dataclass(frozen=True, slots=True)
class Command:
    """How Lean is called: its words, what its environment must hold besides the usual, and what it may use.

    `seconds` of wall clock for one member, `start_seconds` until Lean has started and imported the header;
    `heartbeats` is Lean's own limit for one declaration; `options` are Lean's, for compiling alone.
    """

    words: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    seconds: float = 60.0
    start_seconds: float = 300.0
    heartbeats: int = 400_000
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Compiled:
    """What became of a member: without a `fault` the files of its `module` by name, and its `namespace` there.

    Faults: lean_error, timeout, out_of_memory, crash, infrastructure.
    """

    fault: str
    detail: str = ""
    seconds: float = 0.0
    module: Mapping[str, bytes] | None = None
    namespace: str = ""
    isolation: Isolation | None = None


@dataclass(slots=True)
class _Job:
    """Members that go into one file; `tries` counts runs that failed for reasons that are not theirs."""

    places: list[int]
    tries: int = 0


@dataclass(slots=True)
class _Run:
    """What one process said: when each member's seal came, its errors, and which seals failed."""

    ending: Ending
    stopped: str
    started: bool
    names: list[str]
    sealed: dict[int, float]
    errors: dict[int, list[str]]
    broken: set[int]
    head_errors: list[str]
    seconds: float
    isolation: Isolation | None


def compile_all(members: Sequence[Member], command: Command, workers: int, batch: int) -> list[Compiled]:
    """Compile members, at most `batch` in a file and `workers` processes at a time; results in order."""
    found: dict[int, Compiled] = {}
    with ThreadPoolExecutor(max(workers, 1), thread_name_prefix="lean") as threads:
        running: set[Future[list[_Job]]] = set()

        def submit(job: _Job) -> None:
            running.add(threads.submit(_work, job, members, command, found))

        for job in _jobs(members, workers, batch):
            submit(job)
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            running -= done
            for future in done:
                for job in future.result():
                    submit(job)
    return [found[place] for place in range(len(members))]


def _jobs(members: Sequence[Member], workers: int, batch: int) -> list[_Job]:
    groups: dict[tuple[str, str], list[int]] = {}
    jobs = []
    for place, member in enumerate(members):
        if member.shares:
            groups.setdefault((member.head, member.company), []).append(place)
        else:
            jobs.append(_Job([place]))
    for places in groups.values():
        size = min(batch, max(SMALLEST, -(-len(places) // max(workers, 1))))
        jobs += [_Job(places[start : start + size]) for start in range(0, len(places), size)]
    return jobs


def _work(job: _Job, members: Sequence[Member], command: Command, found: dict[int, Compiled]) -> list[_Job]:
    """Run one file; store what is decided, return what is left to do."""
    try:
        run = _run([members[place] for place in job.places], command)
    except OSError as error:
        return _again(job, found, f"no process could be started: {error}")
    if run.ending.cause == "unstarted" and not run.stopped:
        return _again(job, found, f"Lean could not be started: {run.ending.errors[-MAX_DETAIL:]}")
    if _killed(run) and job.tries == 0 and (len(job.places) == 1 or not run.started):
        return [_Job(job.places, 1)]
    if len(job.places) == 1:
        return _alone(job, run, found)
    if not run.started or run.head_errors:  # ended before it was at the first member, or its words were lost
        return _halves(job)
    return _shared(job, run, found)


def _halves(job: _Job) -> list[_Job]:
    middle = len(job.places) // 2
    return [_Job(job.places[:middle]), _Job(job.places[middle:])]


def _again(job: _Job, found: dict[int, Compiled], why: str) -> list[_Job]:
    """What failed for reasons of ours is tried once more, then given up."""
    if job.tries == 0:
        return [_Job(job.places, 1)]
    found.update({place: Compiled("infrastructure", why) for place in job.places})
    return []


def _alone(job: _Job, run: _Run, found: dict[int, Compiled]) -> list[_Job]:
    """The verdict on a member that had a process for itself: nobody else can have caused it. Nor can its header, since
    the data set's own statement has been compiled under it before."""
    ending = run.ending
    errors = [*run.head_errors, *run.errors.get(0, [])]
    detail = errors[0] if errors else ending.errors[-MAX_DETAIL:]
    if run.stopped:
        fault = run.stopped
    elif ending.cause == "memory":
        fault = "out_of_memory"
    elif errors:
        fault = fault_of(errors)
    elif ending.cause == "exit" and ending.code == 0 and f"{MODULE}.olean" in (ending.files or {}):
        fault, detail = "", ""
    elif any(word in ending.errors for word in _MEMORY_WORDS):
        fault = "out_of_memory"
    elif ending.code == -signal.SIGXCPU:
        fault = "timeout"
    else:
        fault = "crash"
        detail = detail or f"Lean ended with {ending.cause} {ending.code} and left no module"
    module = ending.files if not fault else None
    (place,) = job.places
    found[place] = Compiled(fault, detail, run.seconds, module, run.names[0], run.isolation)
    return []


def _killed(run: _Run) -> bool:
    """Whether somebody killed Lean, or all that is around it. A submission that kills its own Lean does so again."""
    ending = run.ending
    signals = (-ending.code, ending.code - 128)  # the latter where Lean ran below a shell
    outside = ending.cause == "outside" or (ending.cause == "exit" and not _FROM_OUTSIDE.isdisjoint(signals))
    return outside and not run.stopped


def _shared(job: _Job, run: _Run, found: dict[int, Compiled]) -> list[_Job]:
    """Decide what a shared run can decide: honest errors when all seals held, everything when there is no error."""
    count = len(job.places)
    missing = [i for i in range(count) if i not in run.sealed]
    whole = run.ending.cause == "exit" and not run.stopped and not missing and not run.broken
    if whole and not run.errors and run.ending.code == 0 and f"{MODULE}.olean" in (run.ending.files or {}):
        for i, place in enumerate(job.places):
            found[place] = Compiled("", "", run.sealed[i], run.ending.files, run.names[i], run.isolation)
        return []
    if run.broken:  # something passed a seal: nothing that this file said is believed
        others = [place for i, place in enumerate(job.places) if i not in run.broken]
        return [_Job([job.places[i]]) for i in sorted(run.broken)] + ([_Job(others)] if others else [])
    if not missing and not run.errors:  # no error, and no module either
        return _halves(job)
    for i, errors in run.errors.items():
        if i in run.sealed:
            fault = fault_of(errors)
            found[job.places[i]] = Compiled(fault, errors[0], run.sealed[i], isolation=run.isolation)
    left = [place for i, place in enumerate(job.places) if not (i in run.sealed and i in run.errors)]
    if not missing:
        return [_Job(left)] if left else []
    suspect = job.places[missing[0]]
    left.remove(suspect)
    return [_Job([suspect]), *([_Job(left)] if left else [])]


def fault_of(errors: Sequence[str]) -> str:
    """The fault that error messages show: Lean's own limit is a time-out."""
    return "timeout" if any("(deterministic) timeout" in text for text in errors) else "lean_error"


def _text(members: Sequence[Member], command: Command, names: Sequence[str]) -> tuple[str, list[range]]:
    """The file, and for each member the lines (from 1) that are its own: up to the line of its seal."""
    text = f'{_MARGIN}{members[0].head}\nset_option maxHeartbeats {command.heartbeats}\n#print "{names[0]}:"\n'
    regions = []
    for member, name in zip(members, names, strict=True):
        start = text.count("\n") + 1
        text += f"namespace {name}\n{member.body}\n"
        if member.shares:
            text += f'#print "{name}"\nend {name}\n'
            regions.append(range(start, text.count("\n")))
        else:
            regions.append(range(start, 1 << 60))
    return text, regions


def _run(members: Sequence[Member], command: Command) -> _Run:
    """Compile one file and read what Lean says of it, with a clock for each member.

    Raises:
        OSError: no process, pipe or folder could be made.
    """
    nonce = secrets.token_hex(8)
    names = [f"U{nonce}_{i}" for i in range(len(members))]
    text, regions = _text(members, command, names)
    limits = command.limits
    cpu = int(2 * (command.start_seconds + command.seconds * len(members))) + 10
    words = [*command.words, *command.options, "-j1", "--json", "-R", "{folder}", "-o", f"{{folder}}/{MODULE}.olean"]
    process = Confined(
        [*words, f"{{folder}}/{MODULE}.lean"],
        Limits(limits.memory_mib, limits.folder_mib, cpu),
        {f"{MODULE}.lean": text},
        [f"{MODULE}.olean", f"{MODULE}.olean.*"],
        command.environment,
    )
    process.end_input()
    run = _Run(Ending("outside"), "", False, names, {}, {}, set(), [], 0.0, None)
    try:
        _listen(process, run, regions, command)
    finally:
        process.close()
        run.isolation = process.isolation
    return run


def _listen(process: Confined, run: _Run, regions: Sequence[range], command: Command) -> None:
    places = {name: i for i, name in enumerate(run.names)}
    last = began = time.monotonic()
    deadline = began + command.start_seconds
    try:
        while (line := process.line(deadline)) is not None:
            message = _message(line)
            if message is None:
                continue
            severity, data, row = message
            now = time.monotonic()
            if data == f"{run.names[0]}:" and not run.started:
                run.started, last, began, deadline = True, now, now, now + command.seconds
            elif data in places and row == regions[places[data]].stop - 1:
                run.sealed[places[data]] = now - last
                last, deadline = now, now + command.seconds
            elif severity == "error":
                _note_error(run, regions, row, data)
        run.ending = process.ending(deadline)
    except LateError:
        run.stopped = "timeout"
    run.seconds = time.monotonic() - began


def _note_error(run: _Run, regions: Sequence[range], row: int, data: str) -> None:
    for i, region in enumerate(regions):
        if row in region:
            run.errors.setdefault(i, []).append(data[:MAX_DETAIL])
            return
        if row == region.stop or (i == len(regions) - 1 and row > region.stop):  # the `end` of its seal
            run.errors.setdefault(i, []).append(data[:MAX_DETAIL])
            run.broken.add(i)
            return
    run.head_errors.append(data[:MAX_DETAIL])


def _message(line: bytes) -> tuple[str, str, int] | None:
    """Severity, text and line of one of Lean's messages; None for any other output."""
    if not line.startswith(b"{"):
        return None
    try:
        found = json.loads(line)
        severity, data, row = found["severity"], found["data"], found["pos"]["line"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not (isinstance(severity, str) and isinstance(data, str) and isinstance(row, int)):
        return None
    return severity, data, row
