"""What generating while the learner works saves, and whether the reward pays for it.

    python benchmarks/overlap.py [--seeds 8] [--steps 32] [key=value …]

Trains the demo, in batches that take about as long to generate as to learn from, one worker and one thread a stage:
strictly on policy (`rollouts.max_staleness=0`) and one update off it (`1`), on the same seeds, interleaved, each in a
process of its own. Prints seconds a step (medians, without the first two), the rise of the on-policy arm's reward (its
last eight steps above its first), and the 95 % interval (paired, Student's t) of the difference that staleness makes
to the last eight steps.

A third arm, two workers on policy, is trained on the first seed: with the second it checks the model of step time
(`rl/runs/scaling.py`), which knows only the first arm's stage times. Overrides go to every arm.

The last line is `ratio <seconds a step, one update off / on policy>`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy import stats

from underdog.rl.runs.scaling import StageTimes, step_seconds

ARMS = {"on policy": (1, 0), "one update off": (1, 1), "two workers": (2, 0)}
"""Workers and staleness."""
LAST = 8
"""Steps whose mean reward is the final one."""
BALANCED = ["rollouts.problems=8", "rollouts.group=8", "shaping=none"]
"""Batches that take as long to draw as to learn from; without annotations."""
SKIPPED = 2
"""Steps left out of the times: processes still load what they need."""
Metrics = list[dict[str, float]]


def train(arm: str, seed: int, steps: int, overrides: list[str], place: Path) -> Metrics:
    """One run of the demo on one thread a process; its metrics."""
    workers, staleness = ARMS[arm]
    out = place / f"{arm} {seed}".replace(" ", "-")
    options = [f"rollouts.workers={workers}", f"rollouts.max_staleness={staleness}", f"seed={seed}", f"steps={steps}"]
    alone = ["eval.problems=0", "eval.every=0", f"out={out}", *BALANCED, *overrides]
    subprocess.run(
        [sys.executable, "-m", "underdog.rl.cli", "train", "demo", *options, *alone],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def seconds(metrics: Metrics) -> float:
    """The median step."""
    return statistics.median(row["time/step"] for row in metrics[SKIPPED:])


def reward(metrics: Metrics) -> float:
    """The mean over the last steps."""
    return statistics.fmean(row["reward"] for row in metrics[-LAST:])


def stage(metrics: Metrics, name: str) -> float:
    """A stage's median seconds a step."""
    return statistics.median(row.get(f"time/{name}", 0.0) for row in metrics[SKIPPED:])


def show_seed(seed: int, runs: dict[str, Metrics]) -> None:
    """One line a seed."""
    on, off = runs["on policy"], runs["one update off"]
    print(
        f"seed {seed}  s/step {seconds(on):.2f} -> {seconds(off):.2f} ({seconds(off) / seconds(on):.2f})  "
        f"generate {stage(on, 'generate'):.2f}  update {stage(on, 'update'):.2f}  "
        f"reward {on[0]['reward']:.3f} -> {reward(on):.3f} on, {reward(off):.3f} off",
        flush=True,
    )


def show_reward(pairs: list[dict[str, Metrics]]) -> None:
    """The rise on policy, and the paired difference."""
    rises = [reward(runs["on policy"]) - runs["on policy"][0]["reward"] for runs in pairs]
    differences = np.array([reward(runs["one update off"]) - reward(runs["on policy"]) for runs in pairs])
    print(f"rise on policy     {statistics.fmean(rises):+.3f} (least {min(rises):+.3f})")
    if len(pairs) > 1:
        low, high = stats.t.interval(0.95, len(pairs) - 1, differences.mean(), stats.sem(differences))
        print(f"reward, off - on   {differences.mean():+.3f}, 95 % interval [{low:+.3f}, {high:+.3f}]")


def show_model(runs: dict[str, Metrics], cores: int) -> None:
    """What the stage times of the first arm predict for the other two, beside what was measured."""
    times = StageTimes.of(runs["on policy"][SKIPPED:], workers=1, overlapped=False)
    for arm in ("one update off", "two workers"):
        workers, staleness = ARMS[arm]
        predicted = step_seconds(times, workers, overlapped=staleness > 0, cores=cores)
        error = predicted / statistics.fmean(row["time/step"] for row in runs[arm][SKIPPED:]) - 1
        print(f"{arm:<18} {predicted:.2f} s a step predicted, {predicted / (1 + error):.2f} measured ({error:+.0%})")


def main() -> None:
    """Read the options, train, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    asked = parser.parse_args()
    pairs: list[dict[str, Metrics]] = []
    with tempfile.TemporaryDirectory(prefix="underdog-overlap-") as place:
        for seed in range(asked.seeds):
            arms = list(ARMS) if seed == 0 else list(ARMS)[:2]
            order = arms if seed % 2 == 0 else arms[::-1]
            pairs.append({arm: train(arm, seed, asked.steps, asked.overrides, Path(place)) for arm in order})
            show_seed(seed, pairs[-1])
    show_reward(pairs)
    show_model(pairs[0], os.cpu_count() or 1)
    ratios = [seconds(runs["one update off"]) / seconds(runs["on policy"]) for runs in pairs]
    print(f"ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
