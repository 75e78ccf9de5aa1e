"""What a perturbation costs an update: with GGPO and with MGPO against one without, in turns.

    python benchmarks/perturb.py --case demo
    python benchmarks/perturb.py --case layer --memory

`demo`: 16 problems x 16 samples at a model of the demo's shape, LoRA of rank 32; annotated with the log-probs that the
demo's reward shaping asks for, then GRPO's update. Decoding, the larger part of the demo's step, is left out. With
`--unannotated` no shaping has asked, and a perturbed learner computes its old log-probs itself.
`layer`: 1,024 tokens through one layer of the shape qwen2-0.5b and back, with a vocabulary too small to count and old
log-probs known.

A turn is one update of each side; ratios are medians over turns, of the thread's CPU time with `--threads 1`. Memory is
the largest that a process with one side alone ever held resident, numba loaded in each, as in every run that keeps
update maps. Last line: `ratio <perturbed / plain seconds>` of the dearest method, SAM aside.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from underdog.kernels import delta
from underdog.records import Group, Problem, Sample, Verdict, Version
from underdog.rl.algorithms.grpo import GRPO
from underdog.rl.learner.learner import Learner
from underdog.rl.learner.options import LearnerOptions

SIDES: dict[str, Any] = {
    "none": "none",
    "ggpo": {"name": "ggpo"},
    "mgpo": {"name": "mgpo"},
    "mgpo-code": {"name": "mgpo", "form": "code"},
    "sam": {"name": "sam"},
}
WARM_UP = 2
"""Updates of each side that are left out: the first has no momentum, and compiles."""


def main() -> None:
    """Measure and print."""
    args = arguments()
    torch.set_num_threads(args.threads)
    if args.alone:
        print(alone(args))
        return
    learners = {side: make(args, side) for side in args.sides}
    groups = {side: known(learner, args) for side, learner in learners.items()}
    clock = time.thread_time if args.threads == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {side: [] for side in args.sides}
    for step in range(1, args.repeats + WARM_UP + 1):
        for side, learner in learners.items():
            start = clock()
            update(learner, groups[side], step, args)
            if step > WARM_UP:
                seconds[side].append(clock() - start)
    ratios = {side: median(a / b for a, b in zip(own, seconds["none"], strict=True)) for side, own in seconds.items()}
    for side, own in seconds.items():
        print(f"{side:9s} {median(own):.4f} s, {ratios[side]:.3f} of none", flush=True)
    peaks = {side: peak(side) for side in args.sides if args.memory}
    for side, bytes_held in peaks.items():
        print(f"{side:9s} {bytes_held / 2**20:.0f} MiB, {bytes_held / peaks['none']:.3f} of none", flush=True)
    print(f"ratio {max(ratio for side, ratio in ratios.items() if side != 'sam'):.3f}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--case", default="demo", choices=["demo", "layer"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--unannotated", action="store_true", help="no log-probs from the shaping")
    parser.add_argument("--completion", type=int, default=40, help="the demo's completions: 1 to this many tokens")
    parser.add_argument("--threads", type=int, default=1, help="with 1, seconds are the thread's CPU time")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=list(SIDES), help="`none` among them")
    parser.add_argument("--memory", action="store_true", help="measure memory too, each side in a process of its own")
    parser.add_argument("--alone", default="", help="for the measurement of memory: update this side only")
    return parser.parse_args()


def make(args: argparse.Namespace, side: str) -> Learner:
    """A learner of the case's model."""
    options = {
        "lr": 1e-5,
        "dtype": args.dtype,
        "adapter": {"name": "lora", "r": 32, "alpha": 128, "dropout": 0.0},
        "perturbation": SIDES[side],
    }
    with tempfile.TemporaryDirectory() as folder:
        return Learner(model(args, Path(folder)), LearnerOptions.model_validate(options), seed=0, steps=100, log=print)


def model(args: argparse.Namespace, folder: Path) -> str:
    """The demo's shape, or one layer of another with the bytes alone for its vocabulary."""
    if args.case == "demo":
        return "shape:tiny-reasoner"
    source = Path(__file__).parents[1] / "recipes" / "shapes" / "qwen2-0.5b.json"
    shape = json.loads(source.read_text())
    del shape["config"]["vocab_size"]
    shape["config"]["num_hidden_layers"] = 1
    file = folder / "layer.json"
    file.write_text(json.dumps(shape))
    return f"shape:{file}"


def make_groups(args: argparse.Namespace) -> list[Group]:
    """Random tokens and rewards: the demo's 256 samples, or 8 that fill 1,024 tokens."""
    draw = np.random.default_rng(0)
    problems, each, prompt = (16, 16, 10) if args.case == "demo" else (2, 4, 16)
    groups = []
    for p in range(problems):
        prompt_ids, samples = draw.integers(3, 70, prompt), []
        for i in range(each):
            length = int(draw.integers(1, args.completion + 1)) if args.case == "demo" else 112 + 12 * (i > 0)
            logp_T = draw.uniform(-5, -4, length).astype(np.float32)
            tokens_T = draw.integers(3, 70, length)
            samples.append(Sample(str(p), i, Version(0, ""), 0, prompt_ids, tokens_T, logp_T, "", "eos"))
        verdicts = tuple(Verdict("right") for _ in samples)
        groups.append(Group(Problem(str(p), "?"), tuple(samples), verdicts, rewards_G=draw.normal(size=each)))
    return groups


def known(learner: Learner, args: argparse.Namespace) -> list[Group]:
    """The groups, in the case of the layer annotated before any clock runs."""
    groups = make_groups(args)
    return groups if args.case == "demo" else learner.annotate(groups, frozenset({"logp"}))


def update(learner: Learner, groups: list[Group], step: int, args: argparse.Namespace) -> None:
    """What a run does with judged, scored groups."""
    if args.case == "demo" and not args.unannotated:
        groups = learner.annotate(groups, frozenset({"logp"}))
    algorithm = GRPO.model_validate({"kl": 0.0})
    learner.update(algorithm.advantages(groups), algorithm.loss, step)


def peak(side: str) -> int:
    """Bytes, of a process that updates this side only."""
    command = [sys.executable, *sys.argv, "--alone", side]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def alone(args: argparse.Namespace) -> int:
    """The largest number of bytes that this process held resident over a few updates of one side."""
    delta.warm()
    learner = make(args, args.alone)
    groups = known(learner, args)
    for step in range(1, WARM_UP + 2):
        update(learner, groups, step, args)
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    main()
