"""Reading a run folder back, whether its run has finished, goes on, or was killed in the middle of a line.

What cannot be read is left out and said in `Run.notes`; nothing here needs torch.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeGuard

from ...parts import UserError
from .locks import is_taken

Status = Literal["finished", "running", "failed", "stopped"]
"""Finished has a summary, running holds its folder's lock, failed left a reason; stopped has none of these."""

Block = tuple[str, str, float, float]
"""Stage, lane, begin and end in seconds."""

LOCK = Path("logs") / "lock"
"""Held by the process that trains in a run folder."""

_PASS = re.compile(r"pass@(\d+)")
_STEP = re.compile(r"step_(\d+)")


@dataclass(frozen=True)
class PassAt:
    """pass@`n` (or its change) with the ends of its 95 % interval, which are None where there is none."""

    n: int
    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """One file of `evaluations/`: pass@N of one policy on one set of problems."""

    name: str
    set: str
    version: int
    problems: int
    samples: int
    passes: tuple[PassAt, ...]


@dataclass(frozen=True)
class Run:
    """A run folder. `metrics` holds one mapping a step, ascending; a step written twice counts as written last."""

    folder: Path
    name: str
    config: Mapping[str, Any]
    config_text: str
    metrics: tuple[Mapping[str, float], ...]
    summary: Mapping[str, Any] | None
    evaluations: tuple[Evaluation, ...]
    notes: tuple[str, ...]
    status: Status
    error: str
    """Why the run failed, else empty."""
    idle: float
    """Seconds since the run last wrote its metrics or summary."""
    recipe: str
    data: Mapping[str, Any]
    """How many problems were kept and left out, and the chat template."""
    timeline: tuple[tuple[int, tuple[Block, ...]], ...] = ()
    """Each step, and when its stages ran."""
    updates: Mapping[str, Any] | None = None
    """What changed since the run's model, at its newest checkpoint: see docs/updates.md."""

    @property
    def step(self) -> int:
        """The last step with metrics; 0 before the first."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The metrics' names, sorted, without `step`."""
        return tuple(sorted({key for row in self.metrics for key in row} - {"step"}))

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """Steps and values of one metric, where it was written and is finite."""
        points = [(int(row["step"]), row[key]) for row in self.metrics if key in row]
        points = [(step, value) for step, value in points if math.isfinite(value)]
        return [step for step, _ in points], [value for _, value in points]

    @property
    def turns(self) -> list[tuple[int, int]]:
        """Turning points: updates done when each began, and the step at which it was seen."""
        return [(int(step), seen) for seen, step in zip(*self.series("turning/step"), strict=True)]

    def passes(self, which: Literal["base", "final"]) -> tuple[PassAt, ...]:
        """pass@N of the base, or of the trained model: the summary's, else the newest evaluation's."""
        if self.summary is not None and isinstance(self.summary.get(which), Mapping):
            return pass_at(self.summary[which])
        base = [e for e in self.evaluations if e.name == "base" or e.version == 0]
        later = [e for e in self.evaluations if e not in base]
        found = base if which == "base" else sorted(later, key=lambda e: (e.version, e.name == "final"))
        return found[-1].passes if found else ()

    def change(self) -> tuple[PassAt, ...]:
        """The paired change of pass@N from base to trained, where the run has come that far."""
        change = (self.summary or {}).get("change")
        return pass_at(change) if isinstance(change, Mapping) else ()


def pass_at(block: Mapping[str, Any]) -> tuple[PassAt, ...]:
    """The pass@N of a block of `summary.json` or of an evaluation, by ascending N; anything else in it is ignored."""
    found = []
    for key, value in block.items():
        match = _PASS.fullmatch(key)
        if match is None:
            continue
        if isinstance(value, Mapping):
            mean, ends = value.get("mean"), value.get("ci95")
        else:
            mean, ends = value, (block.get("ci95") or {}).get(key)
        if not is_number(mean):
            continue
        whole = isinstance(ends, Sequence) and len(ends) == 2 and all(is_number(end) for end in ends)
        low, high = ends if whole and ends is not None else (None, None)
        found.append(PassAt(int(match[1]), mean, low, high))
    return tuple(sorted(found, key=lambda p: p.n))


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite number (a bool is none)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        UserError: the folder holds no run.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; name the folder of a run, such as runs/demo-1")
    if not ((folder / "config.yaml").is_file() or (folder / "metrics.jsonl").is_file()):
        raise UserError(
            f"{folder} is no run: neither config.yaml nor metrics.jsonl is in it; name the folder that train made"
        )
    notes: list[str] = []
    summary = _object(folder / "summary.json", notes)
    failure = _object(folder / "failure.json", notes) or {}
    recipe = summary or _object(folder / "recipe.json", notes) or {}
    config_text, config = _config(folder / "config.yaml", notes)
    written = [f.stat().st_mtime for f in (folder / "metrics.jsonl", folder / "summary.json") if f.is_file()]
    metrics = _metrics(folder / "metrics.jsonl", notes)
    evaluations = _evaluations(folder / "evaluations", notes)
    data = _object(folder / "data.json", notes) or {}
    return Run(
        folder=folder,
        name=folder.resolve().name,
        config=config,
        config_text=config_text,
        metrics=metrics,
        summary=summary,
        evaluations=evaluations,
        notes=tuple(notes),
        status=_status(folder, summary, failure),
        error=str(failure.get("error", "")),
        idle=max(0.0, time.time() - max(written)) if written else 0.0,
        recipe=str(recipe.get("recipe", "")),
        data=data,
        timeline=_timeline(folder / "logs" / "timeline.jsonl"),
        updates=_newest_map(folder / "updates", notes),
    )


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read several run folders, and give runs of one name the names of their parents too.

    Raises:
        UserError: one of the folders holds no run.
    """
    runs = [read_run(folder) for folder in folders]
    names = [run.name for run in runs]
    for i, run in enumerate(runs):
        if names.count(run.name) > 1:
            whole = run.folder.resolve()
            runs[i] = replace(run, name=f"{whole.parent.name}/{whole.name}")
    return runs


def rollout_files(folder: Path) -> list[tuple[int, Path]]:
    """The rollout files of a run folder by ascending step."""
    matches = ((_STEP.fullmatch(path.stem), path) for path in (folder / "rollouts").glob("step_*.jsonl"))
    return sorted((int(match[1]), path) for match, path in matches if match)


def objects(lines: Iterator[bytes]) -> Iterator[dict[str, Any] | None]:
    """Each line's JSON object; None for a line that holds none. Blank lines are passed over."""
    for line in lines:
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        yield value if isinstance(value, dict) else None


def _timeline(path: Path) -> tuple[tuple[int, tuple[Block, ...]], ...]:
    """What can be read of it: a lane more or less in a chart is not worth a note."""
    if not path.is_file():
        return ()
    steps = []
    with path.open("rb") as file:
        for row in objects(file):
            spans = row.get("spans") if row else None
            if row and isinstance(row.get("step"), int) and isinstance(spans, list):
                whole = [s for s in spans if isinstance(s, list) and len(s) == 4 and all(map(is_number, s[2:]))]
                steps.append((row["step"], tuple((str(s[0]), str(s[1]), s[2], s[3]) for s in whole)))
    return tuple(steps)


def _config(path: Path, notes: list[str]) -> tuple[str, Mapping[str, Any]]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        notes.append("config.yaml is missing, so the configuration is not shown")
        return "", {}
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError):
        value = None
    if not isinstance(value, Mapping):
        notes.append("config.yaml is no mapping, so nothing is read from it")
        return text, {}
    return text, value


def _status(folder: Path, summary: object, failure: object) -> Status:
    if summary:
        return "finished"
    if is_taken(folder / LOCK):
        return "running"
    return "failed" if failure else "stopped"


def _metrics(path: Path, notes: list[str]) -> tuple[Mapping[str, float], ...]:
    if not path.is_file():
        notes.append("metrics.jsonl is not there yet")
        return ()
    data = path.read_bytes()
    whole, _, half = data.rpartition(b"\n")
    if half.strip():
        notes.append("the last line of metrics.jsonl is half-written and left out")
    rows: dict[int, Mapping[str, float]] = {}
    damaged = 0
    for value in objects(iter(whole.split(b"\n"))):
        if value is None or not is_number(value.get("step")):
            damaged += 1
        else:
            rows[int(value["step"])] = {k: v for k, v in value.items() if is_number(v)}
    if damaged:
        notes.append(f"{damaged} lines of metrics.jsonl cannot be read and are left out")
    return tuple(rows[step] for step in sorted(rows))


def _object(path: Path, notes: list[str]) -> Mapping[str, Any] | None:
    if not path.is_file():
        return None
    value = next(objects(iter([path.read_bytes()])), None)
    if value is None:
        notes.append(f"{path.name} cannot be read and is left out")
    return value


def _newest_map(folder: Path, notes: list[str]) -> Mapping[str, Any] | None:
    """The update map of the newest checkpoint, if it is of the form that this version writes."""
    paths = sorted(folder.glob("step_*/updates.json"), key=lambda path: int(path.parent.name.removeprefix("step_")))
    tree = _object(paths[-1], notes) if paths else None
    return tree if tree is not None and tree.get("schema") == 1 else None


def _evaluations(folder: Path, notes: list[str]) -> tuple[Evaluation, ...]:
    found = []
    for path in sorted(folder.glob("*.json")):
        value = _object(path, notes)
        if value is None:
            continue
        step = _STEP.fullmatch(path.stem)
        version, problems, samples = value.get("version"), value.get("problems"), value.get("samples")
        found.append(
            Evaluation(
                name=path.stem,
                set=str(value.get("set", "")),
                version=int(version) if is_number(version) else int(step[1]) if step else 0,
                problems=len(problems) if isinstance(problems, list) else 0,
                samples=int(samples) if is_number(samples) else 0,
                passes=pass_at(value),
            )
        )
    return tuple(sorted(found, key=lambda e: (e.version, e.name)))
