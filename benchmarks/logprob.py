"""Time, memory and error of `underdog.kernels.logprob` against the plain path through whole logits.

    python benchmarks/logprob.py [--tokens 4096] [--hidden 896] [--vocab 151936] [--dtype float32 bfloat16]
                                 [--repeats 5] [--device cpu] [--threads 2]

Both sides compute the same: from hidden states [T, H] and a head [V, H] of one dtype, the log-probability of each
chosen token and the entropy of each distribution in float32, the entropy as a statistic without gradient; then, for
the loss sum_t weight_t logp_t, the gradient in the hidden states and, where the head is trained, in the head. The
plain side is F.linear in the dtype given, float32 log_softmax, gather, the entropy under no_grad, and autograd.

Memory is the peak of one forward and backward pass beyond what was held before, without the trained head's own
gradient, each time in a fresh process (the high-water mark of the resident set; on CUDA, of the allocator). Time is
forward plus backward: both sides in turn in one process, first one and then the other ahead, and of the ratios of
all these pairs the median. Errors are the largest against float64, at 64 tokens sampled from the model itself; those
of gradients are relative to the largest gradient. On a busy machine take `--threads 1`: with more, every operation
waits for its slowest thread, and what is then measured is the scheduler.

The last line, `ratio <memory> <time frozen> <time trained>`, is ours over plain, the worst of the dtypes (and, for
memory, of frozen and trained).
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from underdog.kernels.logprob import token_logprobs

MIB = 2**20
ERROR_TOKENS = 64
WARM_UP_TOKENS = 8


def plain(hidden_TH: Tensor, weight_VH: Tensor, tokens_T: Tensor) -> tuple[Tensor, Tensor]:
    logp_TV = functional.log_softmax(functional.linear(hidden_TH, weight_VH), dim=-1, dtype=torch.float32)
    with torch.no_grad():
        entropy_T = -(logp_TV.exp() * logp_TV).sum(-1)
    return logp_TV.gather(1, tokens_T[:, None])[:, 0], entropy_T


def reference(hidden_TH: Tensor, weight_VH: Tensor, tokens_T: Tensor) -> tuple[Tensor, Tensor]:
    logp_TV = functional.log_softmax(functional.linear(hidden_TH, weight_VH), dim=-1)
    return logp_TV.gather(1, tokens_T[:, None])[:, 0], -(logp_TV.exp() * logp_TV).sum(-1)


SIDES: dict[str, Callable[..., Any]] = {"plain": plain, "ours": token_logprobs}


@dataclass(frozen=True)
class Case:
    tokens: int
    hidden: int
    vocab: int
    dtype: str
    device: str
    threads: int
    trained: bool = False

    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Hidden states, head, tokens and the loss's weights; the logits deviate by about 3."""
        torch.set_num_threads(self.threads)
        torch.manual_seed(0)
        dtype = getattr(torch, self.dtype)
        hidden_TH = torch.randn(self.tokens, self.hidden, device=self.device).to(dtype)
        weight_VH = torch.empty(self.vocab, self.hidden, dtype=dtype, device=self.device)
        weight_VH.normal_(std=3 / self.hidden**0.5)
        tokens_T = torch.randint(self.vocab, (self.tokens,), device=self.device)
        return hidden_TH, weight_VH, tokens_T, torch.randn(self.tokens, device=self.device)

    def synchronize(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)


def once(side: Callable[..., Any], inputs: tuple[Tensor, ...], trained: bool) -> tuple[Tensor, ...]:
    """Log-probabilities, entropies, and the gradients of hidden states and, if trained, head."""
    hidden_TH, weight_VH, tokens_T, weight_T = inputs
    leaves = [hidden_TH.detach().requires_grad_(), weight_VH.detach().requires_grad_(trained)]
    logp_T, entropy_T = side(*leaves, tokens_T)
    (logp_T * weight_T).sum().backward()
    return logp_T.detach(), entropy_T.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)


def warm_up(inputs: tuple[Tensor, ...], trained: bool) -> None:
    hidden_TH, weight_VH, tokens_T, weight_T = inputs
    few = slice(WARM_UP_TOKENS)
    for side in SIDES.values():
        once(side, (hidden_TH[few], weight_VH, tokens_T[few], weight_T[few]), trained)


def resident(mark: str) -> int:
    """Bytes, by a line of Linux's /proc/self/status: VmRSS for now, VmHWM for the highest since the last reset."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{mark}:")[1].split()[0]) * 1024


def peak_bytes(case: Case, side: str) -> int:
    inputs = case.inputs()
    warm_up(inputs, case.trained)
    if case.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(case.device)
        before = torch.cuda.memory_allocated(case.device)
        once(SIDES[side], inputs, case.trained)
        case.synchronize()
        peak = torch.cuda.max_memory_allocated(case.device) - before
    else:
        Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to VmRSS
        before = resident("VmRSS")
        once(SIDES[side], inputs, case.trained)
        peak = resident("VmHWM") - before
    return peak - (inputs[1].nbytes if case.trained else 0)


def seconds(case: Case, repeats: int) -> dict[str, list[float]]:
    inputs = case.inputs()
    warm_up(inputs, case.trained)
    taken: dict[str, list[float]] = {side: [] for side in SIDES}
    for repeat in range(repeats):
        for side in list(SIDES)[:: 1 if repeat % 2 == 0 else -1]:
            case.synchronize()
            start = perf_counter()
            once(SIDES[side], inputs, case.trained)
            case.synchronize()
            taken[side].append(perf_counter() - start)
    return taken


def errors(case: Case) -> dict[str, list[float]]:
    """Largest errors of the log-probabilities, the entropies and both gradients, side by side."""
    hidden_TH, weight_VH, _, weight_T = case.inputs()
    probabilities_TV = torch.softmax(functional.linear(hidden_TH, weight_VH).float(), dim=-1)
    inputs = (hidden_TH, weight_VH, torch.multinomial(probabilities_TV, 1)[:, 0], weight_T)
    exact = once(reference, tuple(x.double() if x.is_floating_point() else x for x in inputs), trained=True)
    found = {}
    for name, side in SIDES.items():
        got = once(side, inputs, trained=True)
        off = [float((approximate - true).abs().max()) for approximate, true in zip(got, exact, strict=True)]
        found[name] = off[:2] + [error / float(true.abs().max()) for error, true in zip(off, exact, strict=True)][2:]
    return found


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result, from a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure(case: Case, repeats: int) -> tuple[float, float, float]:
    """Prints all that was measured for one dtype; returns its ratios of memory, time frozen and time trained."""
    memory, time = [], []
    for trained in (False, True):
        head = "trained" if trained else "frozen"
        this = replace(case, trained=trained)
        peak = {side: alone(peak_bytes, this, side) / MIB for side in SIDES}
        memory.append(peak["ours"] / peak["plain"])
        print(f"{case.dtype} {head} memory MiB: {described(peak)}, ratio {memory[-1]:.4f}", flush=True)
        taken = alone(seconds, this, repeats)
        ratios = [ours / plain for ours, plain in zip(taken["ours"], taken["plain"], strict=True)]
        time.append(median(ratios))
        medians = {side: median(values) for side, values in taken.items()}
        spread = f"{min(ratios):.3f} to {max(ratios):.3f} in {repeats}"
        print(f"{case.dtype} {head} seconds: {described(medians)}, ratio {time[-1]:.3f} ({spread})", flush=True)
    for side, found in alone(errors, replace(case, tokens=min(case.tokens, ERROR_TOKENS), trained=True)).items():
        names = ("logp", "entropy", "hidden grad", "weight grad")
        listed = ", ".join(f"{name} {error:.1e}" for name, error in zip(names, found, strict=True))
        print(f"{case.dtype} largest error, {side}: {listed}", flush=True)
    print(f"{case.dtype} ratio {max(memory):.4f} {time[0]:.3f} {time[1]:.3f}", flush=True)
    return max(memory), time[0], time[1]


def described(figures: dict[str, float]) -> str:
    return ", ".join(f"{side} {figure:.2f}" for side, figure in figures.items())


def main() -> None:
    parser = argparse.ArgumentParser(description="Chosen-token log-probabilities, ours against whole logits.")
    parser.add_argument("--tokens", type=int, default=4096, help="hidden states (default %(default)s)")
    parser.add_argument("--hidden", type=int, default=896, help="their width (default %(default)s)")
    parser.add_argument("--vocab", type=int, default=151_936, help="rows of the head (default %(default)s)")
    parser.add_argument(
        "--dtype",
        nargs="+",
        default=["float32", "bfloat16"],
        choices=["float32", "bfloat16", "float16"],
        help="of hidden states and head (default %(default)s)",
    )
    parser.add_argument("--repeats", type=int, default=5, help="pairs timed for each case (default %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU (default %(default)s)")
    options = parser.parse_args()
    shape = (options.tokens, options.hidden, options.vocab)
    print(f"torch {torch.__version__}, {options.device}, {options.threads} threads, T H V {shape}", flush=True)
    cases = [Case(*shape, dtype, options.device, options.threads) for dtype in options.dtype]
    ratios = [measure(case, options.repeats) for case in cases]
    memory, frozen, trained = (max(column) for column in zip(*ratios, strict=True))
    print(f"ratio {memory:.4f} {frozen:.3f} {trained:.3f}")


if __name__ == "__main__":
    main()
