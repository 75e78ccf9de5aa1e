"""TRL's GRPOTrainer and Underdog on the same GRPO, in turns, step by step.

    python benchmarks/vs_trl.py [--model FOLDER] [--steps 12] [--max-tokens 128] [--dtype both|float32|bfloat16]
                                [--natural] [--seeds N]

The same on both sides: the base folder (default: that of the recipe `demo`, made once), the problems and their order,
8 problems x 8 samples a step, LoRA (rank 32, alpha 128, the seven projections, no dropout), temperature 1, GRPO without
KL and one update a batch, AdamW at a constant rate, gradients clipped to norm 1, the verifier, dtype, threads.

Each side is a process of its own; they take turns step by step, so that whatever else the machine does meets both. The
first steps of both are left out. Seconds are medians over steps, from one step's end (or the other side's turn) to the
next; stages are means of the same steps. Memory is the largest that the process ever held resident.

Completions are forced to full length by a copy of the base whose end token lies outside its vocabulary, with a reward
of pure noise, so that no group is without signal and both sides learn from all samples. `--natural` takes the base as
it is and the reward for right answers; Underdog then leaves groups without signal out of its update, as it always does.

`--seeds N` compares learning: N runs of each side at natural lengths, the same problems in the same order, and the
reward over the last steps.

TRL is set up for speed on this machine: no reference model, one iteration, generation by transformers with a dynamic
cache (a static one takes twice as long on a CPU), no gradient checkpointing, all 64 samples in one
forward and backward, weights in the dtype itself with bf16=True for bfloat16, nothing logged or saved.

The last line is `ratio <TRL seconds / Underdog seconds>`, the lowest of the dtypes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from sides import SIDES, Side, cores, show, take_turns, trl_over_ours
from vs_trl_worker import GROUP, PROBLEMS, Duel

WORKER = "vs_trl_worker.py"
WARM_UP = 2
"""Steps of each side that are left out."""
LEARNING_STEPS = 96
LAST = 16
"""Steps at the start and at the end whose mean reward counts as the reward there."""
RATE = 3e-4
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t, two-sided 95 %, for 1 to 9 degrees of freedom."""


def main() -> None:
    """Measure and print."""
    options = arguments()
    threads = options.threads
    dtypes = ["bfloat16", "float32"] if options.dtype == "both" else [options.dtype]
    base = find_base(options.model)
    lengths = "natural lengths" if options.natural else "forced to full length"
    print(f"{PROBLEMS} x {GROUP} samples a step, {options.max_tokens} new tokens, {lengths}, {threads} threads, {base}")
    with tempfile.TemporaryDirectory(prefix="vs_trl_") as folder:
        common = {"base": base, "max_tokens": options.max_tokens, "lr": RATE}
        ratios = []
        for dtype in dtypes:
            job = Duel(
                **common,
                model=base if options.natural else str(Path(folder) / "endless"),
                folder=str(Path(folder) / dtype),
                dtype=dtype,
                steps=options.steps + WARM_UP,
                forced=not options.natural,
                seed=0,
                threads=threads,
                paced=True,
            )
            ratios.append(race(job))
        if options.seeds:
            jobs = [
                Duel(
                    **common,
                    model=base,
                    folder=str(Path(folder) / f"seed{seed}"),
                    dtype=dtypes[0],
                    steps=LEARNING_STEPS,
                    forced=False,
                    seed=seed,
                    threads=max(1, threads // 2),
                    paced=False,
                )
                for seed in range(1, options.seeds + 1)
            ]
            compare_learning([learn(job) for job in jobs])
    print(f"ratio {min(ratios):.2f}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="recipe:demo-base", help="a model folder or id (default: the demo's base)")
    parser.add_argument("--steps", type=int, default=12, help="measured steps of each side")
    parser.add_argument("--max-tokens", type=int, default=128, help="longest completion")
    parser.add_argument("--dtype", choices=["both", "float32", "bfloat16"], default="both")
    parser.add_argument("--natural", action="store_true", help="let completions end by themselves")
    parser.add_argument("--seeds", type=int, default=0, help="runs of each side to compare learning by (2 to 10)")
    parser.add_argument("--threads", type=int, default=cores(), help="threads of each side (default: all cores)")
    options = parser.parse_args()
    if options.steps < 1 or options.max_tokens < 1:
        parser.error("--steps and --max-tokens must be at least 1")
    if options.seeds and not 2 <= options.seeds <= len(T95) + 1:
        parser.error(f"--seeds must be from 2 to {len(T95) + 1}: an interval needs at least two pairs")
    return options


def find_base(model: str) -> str:
    """The base's folder; the demo's is made where there is none."""
    from underdog.rl.made import find_model

    folder = find_model(model)
    if not Path(folder).is_dir():
        from huggingface_hub import snapshot_download

        folder = snapshot_download(folder)
    return folder


def prepare(job: Duel) -> Path:
    """The job's file, with the problems (and the model that cannot end) beside it."""
    path = Path(job.folder) / "job.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(asdict(job)))
    with Side("prepare", path, WORKER) as side:
        if side.process.wait():
            raise SystemExit(side.log.read_text())
    return path


def race(job: Duel) -> float:
    """Both sides in turns; print their figures, and return TRL's seconds over Underdog's."""
    path = prepare(job)
    rows = take_turns(path, WORKER, job.steps, job.dtype)
    check_prompts(job)
    if job.forced:
        for name, reports in rows.items():
            if any(row["figures"]["length"] != job.max_tokens for row in reports):
                raise SystemExit(f"{name}: not all completions have {job.max_tokens} tokens; choose another --model")
    print(f"\n{job.dtype}")
    measured = {name: reports[WARM_UP:] for name, reports in rows.items()}
    for name, reports in measured.items():
        show(name, reports)
        show_samples(reports)
    ratio = trl_over_ours(measured, "seconds")
    print(f"  TRL / Underdog: {ratio:.2f} in seconds, {trl_over_ours(measured, 'cpu'):.2f} in CPU seconds")
    return ratio


def show_samples(rows: Sequence[dict[str, Any]]) -> None:
    """One side's completions."""
    figures = {key: mean(row["figures"][key] for row in rows) for key in rows[-1]["figures"]}
    print(
        f"            reward {figures['reward']:.3f}, {figures['length']:.1f} tokens a completion, "
        f"{figures['no_signal']:.2f} of groups without signal"
    )


def check_prompts(job: Duel) -> None:
    """Both sides answered the same problems, step by step.

    Raises:
        SystemExit: they did not.
    """
    given = [json.loads(line)["prompt"] for line in job.prompts.read_text().splitlines()]
    for step in range(1, job.steps + 1):
        samples = (Path(job.folder) / "run" / "rollouts" / f"step_{step}.jsonl").read_text().splitlines()
        ours = {json.loads(line)["prompt"] for line in samples}
        if ours != set(given[(step - 1) * PROBLEMS : step * PROBLEMS]):
            raise SystemExit(f"step {step}: the two sides had different problems")


def learn(job: Duel) -> dict[str, list[float]]:
    """Both sides at once, each on its share of the threads: every step's mean reward."""
    path = prepare(job)
    with ExitStack() as stack, ThreadPoolExecutor(len(SIDES)) as pool:
        sides = [stack.enter_context(Side(name, path, WORKER)) for name in SIDES]
        rows = list(pool.map(lambda side: list(side.reports()), sides))
    check_prompts(job)
    return {name: [row["figures"]["reward"] for row in own] for name, own in zip(SIDES, rows, strict=True)}


def compare_learning(runs: Sequence[dict[str, list[float]]]) -> None:
    """Print both sides' rewards and the interval of their difference."""
    samples = LEARNING_STEPS * PROBLEMS * GROUP
    print(f"\nlearning: {samples} samples a run at natural lengths, rate {RATE}; reward over the last {LAST} steps")
    rises = []
    for seed, rewards in enumerate(runs, 1):
        ends = {name: mean(own[-LAST:]) for name, own in rewards.items()}
        starts = {name: mean(own[: LAST // 4]) for name, own in rewards.items()}
        rises.append(ends["trl"] - starts["trl"])
        told = ", ".join(f"{name} {starts[name]:.3f} to {ends[name]:.3f}" for name in SIDES)
        print(f"  seed {seed}: {told}, difference {ends['underdog'] - ends['trl']:+.3f}")
    gaps = [mean(run["underdog"][-LAST:]) - mean(run["trl"][-LAST:]) for run in runs]
    half = T95[len(gaps) - 2] * stdev(gaps) / len(gaps) ** 0.5
    print(f"  TRL's reward rose by {mean(rises):.3f} (mean); by 0.15 or more is wanted for the comparison to count")
    print(f"  Underdog - TRL: {mean(gaps):+.3f}, 95 % interval {mean(gaps) - half:+.3f} to {mean(gaps) + half:+.3f}")


if __name__ == "__main__":
    main()
