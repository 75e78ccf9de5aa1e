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
import tempfile
from dataclasses import asdict
from pathlib import Path

from paper_scale_worker import Scale
from sides import SIDES, cores, show, take_turns, trl_over_ours

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
                model=str(model),
                folder=folder,
                dtype="bfloat16",
                steps=options.steps + WARM_UP,
                max_tokens=options.max_tokens,
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
    how = "with" if job.checkpointing else "without"
    rows = take_turns(path, "paper_scale_worker.py", job.steps, f"{how} checkpointing,")
    theirs, ours = (rows[name][0]["figures"]["grad_norm"] for name in SIDES)
    if abs(theirs - ours) > AGREE * theirs:
        raise SystemExit(f"the sides did not do the same work: gradient norms {theirs:.4g} and {ours:.4g}")
    print(f"\n{how} gradient checkpointing, gradient norms {theirs:.4g} and {ours:.4g}")
    measured = {name: reports[WARM_UP:] for name, reports in rows.items()}
    for name, reports in measured.items():
        show(name, reports)
    peaks = [rows[name][-1]["peak"] for name in SIDES]
    memory, seconds, cpu = peaks[0] / peaks[1], *(trl_over_ours(measured, key) for key in ("seconds", "cpu"))
    print(f"  TRL / Underdog: {memory:.2f} in memory, {seconds:.2f} in seconds, {cpu:.2f} in CPU seconds", flush=True)
    return memory, seconds


if __name__ == "__main__":
    main()
