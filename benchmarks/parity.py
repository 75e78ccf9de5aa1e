"""How near the log-probs of tokens that vLLM samples are to the learner's own, under a trained adapter.

    python benchmarks/parity.py [--run RUN] [--steps 8] [--tokens 10000]

The demo is trained for a few steps (or RUN is taken), once for both dtypes. In float32 and in bfloat16 its adapter is
published to a vLLM in this process, which samples from the demo's problems at temperature 1, and at temperature 0.7
with top-p 0.9; the learner then computes the log-probs of the same ids, teacher-forced. `wrong scaling` is the gap that
a B scaled by 1.1 leaves. Gaps are absolute, in nats a token.

The last line is `gap <float32 max> <bf16 mean> <wrong scaling>`, the last in float32 and the largest of a token.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from underdog.records import Request, Sample, Sampling
from underdog.rl.api import train
from underdog.rl.assembly import load_problems
from underdog.rl.learner.learner import Learner
from underdog.rl.made import find_model
from underdog.rl.runs.folder import read_config
from underdog.rl.trained import trained_learner
from underdog.rollouts.base import Engine, Surroundings
from underdog.rollouts.vllm.vllm import Vllm

SAMPLINGS = (Sampling(40), Sampling(40, temperature=0.7, top_p=0.9))
GROUP = 8
SCALE = 1.1


def requests_of(learner: Learner, run: Path, turn: int, count: int = 32) -> list[Request]:
    """Problems of the run's training data, half of them in each way of sampling; others at every turn."""
    prompts = load_problems(read_config(run), learner.tokenizer).train[turn * count : (turn + 1) * count]
    return [
        Request(
            prompt.problem,
            np.asarray(prompt.ids),
            tuple(range(GROUP * (turn * count + i), GROUP * (turn * count + i + 1))),
            SAMPLINGS[i % 2],
        )
        for i, prompt in enumerate(prompts)
    ]


def sampled(engine: Engine, learner: Learner, run: Path, tokens: int) -> list[Sample]:
    """At least so many tokens."""
    samples: list[Sample] = []
    turn = 0
    while sum(len(s.tokens_T) for s in samples) < tokens:
        samples += [s for group in engine.generate(requests_of(learner, run, turn)) for s in group]
        turn += 1
    return samples


def gaps(samples: list[Sample], learner: Learner) -> np.ndarray:
    """Absolute gaps [tokens] between the engine's log-probs and the learner's."""
    engine_T = np.concatenate([s.logp_T for s in samples if s.logp_T is not None]).astype(np.float64)
    return np.abs(np.concatenate(learner.logps(samples)) - engine_T)


def scale_up(learner: Learner) -> None:
    """Scale the adapter wrongly."""
    state = learner.state_dict()
    for name, tensor in state["tensors"].items():
        if "lora_B" in name and name.startswith("parameters/"):
            tensor.mul_(SCALE)
    learner.load_state_dict(state)


def measure(run: Path, dtype: str, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaps of the right adapter and of the wrongly scaled one."""
    model = find_model(read_config(run).model)
    learner = trained_learner(run, model, overrides={"learner.dtype": dtype})
    engine = Vllm().open(Surroundings(learner.tokenizer, "cpu", run, model, dtype))
    try:
        engine.publish(learner.policy)
        (receipt,) = engine.receipts()
        assert receipt.held == receipt.expected
        samples = sampled(engine, learner, run, tokens)
    finally:
        engine.close()
    right = gaps(samples, learner)
    scale_up(learner)
    return right, gaps(samples, learner)


def main() -> None:
    """Measure both dtypes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="underdog-parity-") as scratch:
        run = options.run or Path(scratch) / "run"
        if options.run is None:
            train("demo", out=str(run), steps=options.steps, **{"eval.problems": 0, "checkpoint.every": options.steps})
        results = {dtype: measure(run, dtype, options.tokens) for dtype in ("float32", "bfloat16")}
    report(results)


def report(results: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """A table, and the last line."""
    print(f"\n{'':<10}{'tokens':>8}{'mean':>11}{'largest':>11}{'wrong, mean':>13}{'wrong, largest':>16}")
    for dtype, (right, wrong) in results.items():
        print(
            f"{dtype:<10}{len(right):8}{right.mean():11.2e}{right.max():11.2e}{wrong.mean():13.2e}{wrong.max():16.2e}"
        )
    (right, wrong), (narrow, _) = results["float32"], results["bfloat16"]
    print(f"gap {right.max():.2e} {narrow.mean():.2e} {wrong.max():.2e}")


if __name__ == "__main__":
    main()
