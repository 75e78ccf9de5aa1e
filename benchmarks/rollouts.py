"""Tokens a second of `local`, `vllm` and transformers' `generate`, interleaved; and what a publication costs.

    python benchmarks/rollouts.py [--model FOLDER] [--dtype float32|bfloat16] [--rounds 3] [--threads 2]
                                  [--samples 128] [--no-vllm]

All sides sample from the same policy (the demo's base, or a model folder, with a LoRA adapter of rank 16 whose B is not
zero) for the same prompts, at temperature 1: 128 samples a round, in groups of 1, 8 and 32, `short` (16 tokens each)
or of `mixed` lengths (one drawn for each prompt, log-uniform from 8 to 128, seed 0). Ends are forced by the lengths.

`generate` is used as for speed: one batch with the adapter merged, a dynamic cache (a static one takes twice as long on
a CPU), each row done at its own length. Only wanted tokens count, on all sides. vLLM runs in a worker of its own, as it
does in a run, with the adapter as it is and merged. Figures are medians over rounds, after one that is left out.

The last line is `ratio <local / generate>`, of mixed lengths in groups of 8.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from endless import without_end
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from underdog.records import Problem, Request, Sampling
from underdog.rl.learner.learner import Learner
from underdog.rl.learner.options import LearnerOptions
from underdog.rl.made import find_model
from underdog.rollouts.base import Engine, Surroundings
from underdog.rollouts.local import Local

PROMPT = 36
GROUPS = (1, 8, 32)
SHORT, SHORTEST, LONGEST = 16, 8, 128


def policy_of(model: Path, dtype: str) -> Learner:
    """A learner whose adapter changes what is sampled."""
    adapter = {"name": "lora", "r": 16, "alpha": 32, "dropout": 0.0}
    options = LearnerOptions.model_validate({"adapter": adapter, "dtype": dtype})
    learner = Learner(str(model), options, seed=0, steps=1, device="cpu", log=print)
    state = learner.state_dict()
    noise = torch.Generator().manual_seed(0)
    for name, tensor in state["tensors"].items():
        if "lora_B" in name:
            tensor.copy_(0.02 * torch.randn(tensor.shape, generator=noise))
    learner.load_state_dict(state)
    return learner


def requests_of(kind: str, group: int, samples: int, vocab: int) -> list[Request]:
    """The requests of one shape; the same at every call."""
    draw = np.random.default_rng(0)
    prompts = draw.integers(1, vocab - 1, size=(samples // group, PROMPT)).astype(np.int32)
    lengths = np.exp(draw.uniform(np.log(SHORTEST), np.log(LONGEST), size=len(prompts))).round().astype(int)
    most = [SHORT] * len(prompts) if kind == "short" else lengths.tolist()
    return [
        Request(Problem(str(i), ""), ids, tuple(range(i * group, (i + 1) * group)), Sampling(max_tokens=most[i]))
        for i, ids in enumerate(prompts)
    ]


class AtLengths(StoppingCriteria):
    """Ends each row at its own length."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.limits = torch.tensor(lengths) + PROMPT

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """Which rows are done."""
        return input_ids.shape[1] >= self.limits


@torch.inference_mode()
def generate(model: Any, requests: Sequence[Request]) -> int:
    """All rows in one batch; the number of wanted tokens."""
    group = len(requests[0].seeds)
    ids = torch.from_numpy(np.stack([r.prompt_ids for r in requests])).long()
    lengths = [r.sampling.max_tokens for r in requests for _ in r.seeds]
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        top_k=0,
        max_new_tokens=max(lengths),
        num_return_sequences=group,
        pad_token_id=0,
        stopping_criteria=StoppingCriteriaList([AtLengths(lengths)]),
        logits_processor=LogitsProcessorList(),
    )
    assert out.shape == (len(lengths), PROMPT + max(lengths))
    return sum(lengths)


def sample(engine: Engine, requests: Sequence[Request]) -> int:
    """The number of tokens, each sample as long as asked."""
    answered = engine.generate(requests)
    for request, samples in zip(requests, answered, strict=True):
        assert all(len(s.tokens_T) == request.sampling.max_tokens for s in samples)
    return sum(len(s.tokens_T) for samples in answered for s in samples)


def measure(sides: dict[str, Callable[[Sequence[Request]], int]], requests: Sequence[Request], rounds: int) -> Any:
    """Tokens a second of each side, taking turns: {side: [one a round]}."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            start = time.perf_counter()
            tokens = side(requests)
            if turn:
                rates[name].append(tokens / (time.perf_counter() - start))
    return rates


def publications(engine: Engine, learner: Learner, times: int = 4) -> float:
    """Median seconds to publish another version of the adapter and have it read back; the first, which loads, apart."""
    seconds = []
    state = learner.state_dict()
    for _ in range(times):
        for name, tensor in state["tensors"].items():
            if "lora_B" in name:
                tensor.mul_(1.0001)
        learner.load_state_dict(state)
        start = time.perf_counter()
        engine.publish(learner.policy)
        engine.receipts()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def vllm_engines(surroundings: Surroundings, threads: int) -> dict[str, Engine]:
    """vLLM in workers: the adapter as it is, and merged."""
    from underdog.rollouts.vllm.vllm import Vllm
    from underdog.rollouts.workers.options import Resources
    from underdog.rollouts.workers.pool import WorkerPool

    resources = Resources(threads=threads)
    return {f"vllm, {sync}": WorkerPool(Vllm(sync=sync), surroundings, 1, resources) for sync in ("adapter", "merged")}


def main() -> None:
    """Measure all shapes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="recipe:demo-base")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--no-vllm", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="underdog-rollouts-") as scratch:
        run(Path(scratch), options)


def run(scratch: Path, options: Any) -> None:
    """All engines, on one policy."""
    model = without_end(find_model(options.model), scratch / "model")
    learner = policy_of(model, options.dtype)
    surroundings = Surroundings(learner.tokenizer, "cpu", scratch, str(model), options.dtype)
    engines: dict[str, Engine] = {"local": Local().open(surroundings)}
    if not options.no_vllm and importlib.util.find_spec("vllm"):
        engines |= vllm_engines(surroundings, options.threads)
    try:
        for name, engine in engines.items():
            engine.publish(learner.policy)
            print(f"{name:<14} publishes a version, read back, in {publications(engine, learner):.3f} s")
        for engine in engines.values():
            engine.publish(learner.policy)
        compare(engines, learner, scratch, options)
    finally:
        for engine in engines.values():
            engine.close()


def compare(engines: dict[str, Engine], learner: Learner, scratch: Path, options: Any) -> None:
    """The table of all shapes."""
    from transformers import AutoModelForCausalLM

    learner.save_merged(scratch / "merged")
    merged = AutoModelForCausalLM.from_pretrained(scratch / "merged", dtype=getattr(torch, options.dtype)).eval()
    sides: dict[str, Callable[[Sequence[Request]], int]] = {
        "generate": lambda requests: generate(merged, requests),
        **{name: lambda requests, engine=engine: sample(engine, requests) for name, engine in engines.items()},
    }
    print(f"\ntokens a second, {options.dtype}, {options.threads} threads, {options.samples} samples a round")
    print(f"{'':<18}" + "".join(f"{name:>16}" for name in sides) + "   local / generate")
    headline = 0.0
    for kind in ("short", "mixed"):
        for group in GROUPS:
            requests = requests_of(kind, group, options.samples, merged.config.vocab_size)
            rates = {name: statistics.median(r) for name, r in measure(sides, requests, options.rounds).items()}
            ratio = rates["local"] / rates["generate"]
            headline = ratio if (kind, group) == ("mixed", 8) else headline
            row = "".join(f"{rates[name]:16.0f}" for name in sides)
            print(f"{kind}, groups of {group:<3}{row}   {ratio:.2f}", flush=True)
    print(f"ratio {headline:.2f}")


if __name__ == "__main__":
    main()
