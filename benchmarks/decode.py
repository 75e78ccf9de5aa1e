"""Decoding with Underdog's `local` engine against transformers' `generate`, interleaved in one process.

    python benchmarks/decode.py [--dtype float32|bfloat16] [--batch 64] [--tokens 128] [--rounds 5] [--threads 2]

A Qwen2 of 3.2 million random parameters, groups of 8 samples a prompt, completions forced to full length, plain
sampling. Prints both sides' seconds a round and decoded tokens a second; the last line is the ratio of the medians,
`ratio <transformers seconds / ours>`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from underdog.records import Problem, Request, Sampling
from underdog.rollouts.base import Surroundings
from underdog.rollouts.local import Local

GROUP = 8
PROMPT = 36


class RandomPolicy:
    """A model with random weights, as engines publish it."""

    number = 0

    def __init__(self, dtype: torch.dtype) -> None:
        self.model_config = Qwen2Config(
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=4,
            vocab_size=128,
            max_position_embeddings=2048,
        )
        torch.manual_seed(0)
        self.model = AutoModelForCausalLM.from_config(self.model_config, dtype=dtype).eval()
        words = {f"<{i}>": i for i in range(128)}
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<0>")), pad_token="<0>"
        )

    def digest(self) -> str:
        """One policy, one digest."""
        return "random"

    def adapter(self) -> None:
        """No PEFT form."""

    def weights(self) -> Iterator[tuple[str, Any]]:
        """The model's parameters."""
        yield from self.model.named_parameters()


def main() -> None:
    """Run both sides in turn and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    policy = RandomPolicy(getattr(torch, options.dtype))
    engine = Local(slots=options.batch).open(Surroundings(policy.tokenizer, "cpu", Path()))
    engine.publish(policy)
    prompts = np.random.default_rng(0).integers(1, 128, size=(options.batch // GROUP, PROMPT))
    sampling = Sampling(max_tokens=options.tokens)
    requests = [Request(Problem(str(i), ""), ids, tuple(range(GROUP)), sampling) for i, ids in enumerate(prompts)]

    def ours() -> None:
        assert all(len(s.tokens_T) == options.tokens for group in engine.generate(requests) for s in group)

    @torch.inference_mode()
    def theirs() -> None:
        ids = torch.from_numpy(prompts)
        out = policy.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            top_k=0,
            max_new_tokens=options.tokens,
            min_new_tokens=options.tokens,
            num_return_sequences=GROUP,
            pad_token_id=0,
        )
        assert out.shape == (len(prompts) * GROUP, PROMPT + options.tokens)

    seconds: dict[str, list[float]] = {"transformers": [], "underdog": []}
    for turn in range(options.rounds + 1):
        for name, side in (("transformers", theirs), ("underdog", ours)):
            start = time.perf_counter()
            side()
            if turn:  # the first round of both only warms up
                seconds[name].append(time.perf_counter() - start)
    for name, times in seconds.items():
        middle = statistics.median(times)
        rate = len(prompts) * GROUP * options.tokens / middle
        step = 1000 * middle / options.tokens
        print(
            f"{name}: {middle:.3f} s ({min(times):.3f} to {max(times):.3f}), {step:.1f} ms a step, {rate:.0f} tokens/s"
        )
    print(f"ratio {statistics.median(seconds['transformers']) / statistics.median(seconds['underdog']):.2f}")


if __name__ == "__main__":
    main()
