"""One update of the learner against the same forward and backward by transformers and PEFT, interleaved.

    python benchmarks/learner.py --model shape:tiny-reasoner --dtype bfloat16

Both sides: LoRA on all seven projections, the same rows, policy-gradient loss, one optimizer step. The plain side
pads rows to one length and takes log-softmax and entropy of float32 logits, a micro-batch of rows at a time.
Last line: `ratio <plain seconds / Underdog seconds>`, of the fastest of each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.functional import log_softmax

from underdog.records import Batch, Row
from underdog.rl.learner.learner import Learner
from underdog.rl.learner.options import LearnerOptions


def main() -> None:
    """Measure and print."""
    args = arguments()
    torch.set_num_threads(args.threads)
    rows = make_rows(args)
    options = LearnerOptions.model_validate(
        {
            "lr": 1e-5,
            "dtype": args.dtype,
            "tokens": args.tokens,
            "adapter": {"name": "lora", "r": args.rank, "alpha": 4 * args.rank, "dropout": args.dropout},
        }
    )
    learner = Learner(args.model, options, seed=0, steps=100, log=print)
    plain = Plain(Learner(args.model, options, seed=0, steps=100, log=print), rows, args.micro)
    sides: dict[str, Callable[[int], Any]] = {
        "underdog": lambda step: learner.update(Batch(tuple(rows)), policy_gradient, step)["loss"],
        "plain": plain.step,
    }
    clock = time.thread_time if args.threads == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for step in range(1, args.repeats + 1):
        for name, side in sides.items():
            start = clock()
            loss = side(step)
            seconds[name].append(clock() - start)
            print(f"{name:9s} step {step}: {seconds[name][-1]:.3f} s, loss {loss:.6f}", flush=True)
    print(f"ratio {min(seconds['plain']) / min(seconds['underdog']):.2f}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="shape:tiny-reasoner")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--group", type=int, default=8, help="rows a group")
    parser.add_argument("--prompt", type=int, default=10, help="tokens a prompt")
    parser.add_argument("--completion", type=int, default=128, help="tokens a completion")
    parser.add_argument("--natural", action="store_true", help="completions of 1 to --completion tokens")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--tokens", type=int, default=None, help="Underdog's micro-batch, in tokens")
    parser.add_argument("--micro", type=int, default=16, help="the plain side's micro-batch, in rows")
    parser.add_argument("--threads", type=int, default=2, help="with 1, seconds are the thread's CPU time")
    parser.add_argument("--repeats", type=int, default=4)
    return parser.parse_args()


def make_rows(args: argparse.Namespace) -> list[Row]:
    """Random tokens and advantages."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(args.groups):
        prompt = rng.integers(3, 70, args.prompt)
        for _ in range(args.group):
            length = int(rng.integers(1, args.completion + 1)) if args.natural else args.completion
            advantage = np.full(length, rng.normal(), dtype=np.float32)
            rows.append(Row(prompt, rng.integers(3, 70, length), advantage, 1 / (args.groups * args.group)))
    return rows


def policy_gradient(outputs: Any, batch: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The clipless surrogate, whose value is that of its advantages."""
    ratio = torch.exp(outputs.logp_T - batch.old_logp_T)
    return -(batch.weight_T * batch.advantage_T * ratio).sum(), {}


class Plain:
    """transformers and PEFT as they come."""

    def __init__(self, learner: Learner, rows: list[Row], micro: int) -> None:
        """Take the learner's own model, and leave its ways through it."""
        self._model: Any = learner._model
        self._rows, self._micro = rows, micro
        trained = [p for p in self._model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(trained, lr=1e-5, weight_decay=0.0)
        self._model.train()

    def step(self, _: int) -> float:
        """One optimizer step; its loss."""
        total = 0.0
        for start in range(0, len(self._rows), self._micro):
            loss = self._loss(self._rows[start : start + self._micro])
            loss.backward()
            total += float(loss.detach())
        self._optimizer.step()
        self._optimizer.zero_grad()
        return total

    def _loss(self, rows: list[Row]) -> torch.Tensor:
        width = max(len(r.prompt_ids) + len(r.tokens_T) for r in rows)
        longest = max(len(r.tokens_T) for r in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.int64)
        mask = torch.zeros(len(rows), width, dtype=torch.int64)
        advantage = torch.zeros(len(rows), longest)
        for i, row in enumerate(rows):
            used = len(row.prompt_ids) + len(row.tokens_T)
            ids[i, :used] = torch.from_numpy(np.concatenate([row.prompt_ids, row.tokens_T]))
            mask[i, :used] = 1
            advantage[i, : len(row.tokens_T)] = torch.from_numpy(row.advantage_T) * row.weight
        prompt = len(rows[0].prompt_ids)
        bf16 = self._model.dtype == torch.bfloat16
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            logits = self._model(input_ids=ids, attention_mask=mask, logits_to_keep=width - prompt + 1).logits
        logps = log_softmax(logits[:, :longest].float(), -1)
        logp = logps.gather(-1, ids[:, prompt : prompt + longest, None])[..., 0]
        with torch.no_grad():
            -(logps.exp() * logps).sum(-1)
        return -(advantage * torch.exp(logp - logp.detach())).sum()


if __name__ == "__main__":
    main()
