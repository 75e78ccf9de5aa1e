"""One learner step at a real vocabulary: TRL's GRPOTrainer and Underdog on the same given batch, in turns.

    python benchmarks/paper_scale.py [--model shape:qwen2-0.5b] [--steps 3] [--checkpointing both|off|on]

A step is loss, backward and optimizer; nothing is generated, judged or published. The same on both sides: the model's
folder (random weights in bfloat16), 8 completions of 128 random tokens after a prompt of 6, their advantages, LoRA
(rank 32, alpha 128, the seven projections, no dropout), GRPO without KL at one update a batch, AdamW, gradients clipped
to norm 1, threads. TRL's trainer runs its own loop, with its own log-probs in chunks, and gets the batch in the place
of what it would generate. That both did the same work is checked by the norm of the gradient.

Each side is a process of its own, once without and once with gradient checkpointing, and the two take turns step by
step, so that whatever else the machine does meets both. The first step of both is left out. Seconds are medians of wall
time over steps. Memory is the largest that the process ever held resident, loading included. `--threads 1` is for a
machine that others use: with more, every product waits for its slowest thread.

The last line is `ratio <TRL peak / ours> <TRL seconds / ours>`, of each the lower of without and with checkpointing.
The bounds are 1 / 0.7 = 1.43 in memory and 1 / 0.67 = 1.49 in time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median
from typing import Any

from paper_scale_worker import Scale
from vs_trl import SIDES, Side, cores

WARM_UP = 1
"""Steps of each side that are left out: the first has no moments, and compiles its products."""
AGREE = 0.1
"""Relative difference of the two sides' gradient norms, by which bfloat16 may round them apart."""


def main() -> None:
    """Measure and print."""
    options = arguments()
    from underdog.rl.learner.model import save_shape

    settings = {"off": [False], "on": [True], "both": [False, True]}[options.checkpointing]
    with tempfile.TemporaryDirectory(prefix="paper_scale_") as folder:
        model = save_shape(options.model, Path(folder) / "model", seed=0, dtype="bfloat16")
        vocabulary = json.loads((model / "config.json").read_text())["vocab_size"]
        print(
            f"{options.model}, bfloat16, {options.group} completions of {options.max_tokens} tokens after a prompt of "
            f"{options.prompt}, {options.threads} threads",
            flush=True,
        )
        found = []
        for checkpointing in settings:
            job = Scale(
                base=str(model),
                model=str(model),
                folder=folder,
                dtype="bfloat16",
                steps=options.steps + WARM_UP,
                max_tokens=options.max_tokens,
                forced=True,
                seed=0,
                lr=1e-6,
                threads=options.threads,
                paced=True,
                checkpointing=checkpointing,
                group=options.group,
                prompt=options.prompt,
                vocabulary=vocabulary,
            )
            found.append(race(job))
    peaks, seconds = zip(*found, strict=True)
    print(f"ratio {min(peaks):.2f} {min(seconds):.2f}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="shape:qwen2-0.5b", help="a shape (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="measured steps of each side")
    parser.add_argument("--group", type=int, default=8, help="completions of the one prompt")
    parser.add_argument("--prompt", type=int, default=6, help="its tokens")
    parser.add_argument("--max-tokens", type=int, default=128, help="tokens of each completion")
    parser.add_argument("--checkpointing", choices=["both", "off", "on"], default="both")
    parser.add_argument("--threads", type=int, default=cores(), help="threads of each side (default: all cores)")
    options = parser.parse_args()
    if min(options.steps, options.group, options.prompt, options.max_tokens) < 1:
        parser.error("--steps, --group, --prompt and --max-tokens must be at least 1")
    return options


def race(job: Scale) -> tuple[float, float]:
    """Both sides in turns; print their figures, and return TRL's peak and seconds over Underdog's.

    Raises:
        SystemExit: a side died, or the two had different gradients.
    """
    path = Path(job.folder) / "job.json"
    path.write_text(json.dumps(asdict(job)))
    with ExitStack() as stack:
        sides = [stack.enter_context(Side(name, path, worker="paper_scale_worker.py")) for name in SIDES]
        rows: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
        for side in sides:
            side.report()
        for step in range(1, job.steps + 1):
            for side in sides:
                side.go()
                rows[side.name].append(side.report())
            told = ", ".join(f"{name} {reports[-1]['seconds']:.2f} s" for name, reports in rows.items())
            print(f"step {step} of {job.steps}: {told}", file=sys.stderr)
    theirs, ours = (rows[name][0]["figures"]["grad_norm"] for name in SIDES)
    if abs(theirs - ours) > AGREE * theirs:
        raise SystemExit(f"the sides did not do the same work: gradient norms {theirs:.4g} and {ours:.4g}")
    how = "with" if job.checkpointing else "without"
    print(f"\n{how} gradient checkpointing, gradient norms {theirs:.4g} and {ours:.4g}")
    for name, reports in rows.items():
        show(name, reports)
    peak = {name: reports[-1]["peak"] for name, reports in rows.items()}
    seconds, cpu = (
        {name: median(row[key] for row in reports[WARM_UP:]) for name, reports in rows.items()}
        for key in ("seconds", "cpu")
    )
    ratio = peak["trl"] / peak["underdog"], seconds["trl"] / seconds["underdog"]
    told = f"{ratio[0]:.2f} in memory, {ratio[1]:.2f} in seconds, {cpu['trl'] / cpu['underdog']:.2f} in CPU seconds"
    print(f"  TRL / Underdog: {told}", flush=True)
    return ratio


def show(name: str, reports: list[dict[str, Any]]) -> None:
    """One side's figures."""
    rows = reports[WARM_UP:]
    seconds = [row["seconds"] for row in rows]
    stages = {stage: mean(row["stages"].get(stage, 0.0) for row in rows) for stage in rows[-1]["stages"]}
    stages["rest"] = mean(seconds) - sum(stages.values())
    print(
        f"  {name:9s} {median(seconds):.2f} s a step ({min(seconds):.2f} to {max(seconds):.2f}), "
        f"{median(row['cpu'] for row in rows):.2f} CPU s, peak memory {rows[-1]['peak']:.0f} MiB"
    )
    print("            " + ", ".join(f"{stage} {value:.2f}" for stage, value in stages.items()))


if __name__ == "__main__":
    main()
