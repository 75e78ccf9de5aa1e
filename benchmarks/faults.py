"""Ten workers killed in ten steps: what a killed rollout worker costs, and that no sample is lost or counted twice.

    python benchmarks/faults.py [--engine vllm] [--deaths 10] [--steps 12]

Trains the demo with two rollout workers. In each of `--deaths` consecutive steps the older of the two gets a SIGKILL,
somewhere in the step. Prints seconds of the steps with and without a death, and how many replacements the run counted.
The last line is `samples <once> <missing> <twice>`: how many (step, problem, sample index) are there exactly once, how
many are not there, and how many more than once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil


def actors(run: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The run's rollout workers, oldest first."""
    found = []
    for child in psutil.Process(run.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [child] if child.name().startswith("ray::Worker") else []
    return sorted(found, key=lambda process: process.create_time())


def lines(path: Path) -> list[dict[str, float]]:
    """A jsonl file so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def disturb(run: subprocess.Popen[bytes], out: Path, deaths: int) -> None:
    """A SIGKILL for the older worker in each of the steps 2 to `deaths` + 1, soon after it begins."""
    draw = random.Random(0)
    for step in range(1, deaths + 1):
        while len(lines(out / "metrics.jsonl")) < step or len(actors(run)) < 2:
            if run.poll() is not None:
                return
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 0.1))
        actors(run)[0].kill()


def count(out: Path, problems: int, group: int, steps: int) -> tuple[int, int, int]:
    """(step, problem, sample index) that are there once, not at all, and more than once."""
    once = missing = twice = 0
    for step in range(1, steps + 1):
        rows = lines(out / "rollouts" / f"step_{step}.jsonl")
        seen = Counter((row["problem"], row["index"]) for row in rows)
        twice += sum(number > 1 for number in seen.values())
        once += sum(number == 1 for number in seen.values())
        missing += problems * group - len(seen)
    return once, missing, twice


def main() -> None:
    """Read the options, train, kill, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="vllm")
    parser.add_argument("--deaths", type=int, default=10)
    parser.add_argument("--steps", type=int, default=12)
    asked = parser.parse_args()
    problems, group = 16, 16
    with tempfile.TemporaryDirectory(prefix="underdog-faults-") as place:
        out = Path(place) / "run"
        rollouts = [f"rollouts.{key}" for key in (f"engine={asked.engine}", "workers=2", f"problems={problems}")]
        options = [*rollouts, f"rollouts.group={group}", f"steps={asked.steps}", "eval.problems=0", "eval.every=0"]
        command = [sys.executable, "-m", "underdog.rl.cli", "train", "demo", f"out={out}", *options]
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=sys.stderr)
        disturb(run, out, asked.deaths)
        code = run.wait()
        metrics = lines(out / "metrics.jsonl")
        died = [sum(value for key, value in row.items() if key.startswith("faults/")) for row in metrics]
        hit = [row["time/step"] for row, deaths in zip(metrics, died, strict=True) if deaths]
        calm = [row["time/step"] for row, deaths in zip(metrics, died, strict=True) if not deaths]
        print(f"exit code {code}, {len(metrics)} steps, {sum(died):.0f} replacements in {len(hit)} steps")
        for name, seconds in (("with", hit), ("without", calm)):
            print(f"median step {name} a death: {statistics.median(seconds or [0]):.1f} s")
        print("samples {} {} {}".format(*count(out, problems, group, len(metrics))))


if __name__ == "__main__":
    main()
