"""TRL and Underdog, each in a process of its own, which take turns step by step: what the comparisons share.

`side.py` is the other end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import mean, median
from typing import Any

SIDES = ("trl", "underdog")


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Side:
    """A worker process: `worker`, a file beside this one, called with the side's name and the job's file."""

    def __init__(self, name: str, job: Path, worker: str) -> None:
        self.name, self.log = name, job.with_name(f"{name}.log")
        environment = {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": str(json.loads(job.read_text())["threads"]),
            # Threads that spin long at a barrier make steps ten times longer where other programs want the cores too.
            "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "1000"),
            "TOKENIZERS_PARALLELISM": "false",
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name(worker)), name, str(job)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def go(self) -> None:
        """Let it begin a step."""
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)

    def report(self) -> dict[str, Any]:
        """What it says at the end of a step.

        Raises:
            SystemExit: it died; its last words follow.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} died:\n" + "\n".join(self.log.read_text().splitlines()[-20:]))
        return json.loads(line)

    def reports(self) -> Iterator[dict[str, Any]]:
        """What it says when nobody makes it wait: one report a step."""
        while not (report := self.report())["last"]:
            if "seconds" in report:
                yield report
        yield report


def take_turns(job: Path, worker: str, steps: int, label: str) -> dict[str, list[dict[str, Any]]]:
    """Both sides, step by step; `label` says in the progress what is measured. Each side's reports, one a step.

    Raises:
        SystemExit: a side died.
    """
    with ExitStack() as stack:
        sides = [stack.enter_context(Side(name, job, worker)) for name in SIDES]
        rows: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
        for side in sides:
            side.report()
        for step in range(1, steps + 1):
            for side in sides:
                side.go()
                rows[side.name].append(side.report())
            told = ", ".join(f"{name} {reports[-1]['seconds']:.2f} s" for name, reports in rows.items())
            print(f"{label} step {step} of {steps}: {told}", file=sys.stderr)
    return rows


def trl_over_ours(rows: dict[str, list[dict[str, Any]]], key: str) -> float:
    """The ratio of the medians of a report's figure over steps."""
    theirs, ours = (median(row[key] for row in rows[name]) for name in SIDES)
    return theirs / ours


def show(name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print one side's time, memory and stages."""
    seconds = [row["seconds"] for row in rows]
    stages = {stage: mean(row["stages"].get(stage, 0.0) for row in rows) for stage in rows[-1]["stages"]}
    stages["rest"] = mean(seconds) - sum(stages.values())
    print(
        f"  {name:9s} {median(seconds):.3f} s a step ({min(seconds):.3f} to {max(seconds):.3f}), "
        f"{median(row['cpu'] for row in rows):.3f} CPU s, peak memory {rows[-1]['peak']:.0f} MiB"
    )
    print("            " + ", ".join(f"{stage} {value:.3f}" for stage, value in stages.items()))
