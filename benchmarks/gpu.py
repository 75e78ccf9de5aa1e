"""Each Triton kernel on a GPU: against the torch form, torch.compile and Liger, and against what the card can do.

    python benchmarks/gpu.py [--tokens 8192] [--hidden 1536] [--inner 8960] [--vocab 151936] [--layers 16]
                             [--repeats 9] [--sides triton torch compile liger none]

First the ceilings, measured: a product of two square bfloat16 matrices, and a copy. Then, in bfloat16:

- `logprob`: log-probs and entropies of all tokens; `frozen` and `trained` with the gradients of a weighted sum, in the
  hidden states and also in the head, `scored` under no_grad. `compile` is whole logits in float32 under torch.compile,
  `liger` its fused linear cross entropy (a plain sum, without entropies; `trained` only, for it forms both gradients).
- `noise`: a LoRA layer [inner, hidden] of rank 32 with GGPO's noise, forward and backward to x, A and B. `none` is the
  layer without noise; `compile` forms the whole noisy weight from the plain hash, forward and backward.
- `delta`: the counts of an update map on [layers · inner, hidden] weights. `torch` is a copy to the CPU and the
  counting there, `compile` the same counts (without exponents) by torch operations.

Before it is timed, each result is compared with the torch form's: a difference above 2 % ends the benchmark. All sides
take turns in one process, the order turned round each time. A JSON line a case and side: median milliseconds with their
range, the achieved fraction of the ceiling (of products, needed ones only; for `delta` of the copy's bytes), the peak
of memory beyond what was held, and the largest difference. Sides that cannot be had are named with the reason.

The last line is `ratio <frozen> <trained> <noise> <delta>`: the torch form's time over the kernel's.

Without a GPU it ends with code 2; under TRITON_INTERPRET=1 it runs on a CPU at small sizes, which measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional

from underdog.kernels.gpu import device as gpu

SIDES = ("triton", "torch", "compile", "liger", "none")
RANK = 32
INNER = 5
"""Calls between two looks at the clock."""
MOST = 0.02
"""The largest difference from the torch form, of the largest value."""
RATIOS = ("logprob frozen", "logprob trained", "noise", "delta")


@dataclass
class Case:
    """What is computed, by side; `flops` or `bytes` are those that cannot be avoided."""

    name: str
    sides: dict[str, Callable[[], tuple[Tensor, ...]]]
    flops: float = 0.0
    bytes: float = 0.0


def main() -> None:
    """Print the lines that the module's docstring describes."""
    args = arguments()
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    place = torch.device("cuda" if torch.cuda.is_available() and not interpreted else "cpu")
    if not gpu.takes(torch.empty(0, device=place)):
        print("benchmarks/gpu.py needs an NVIDIA GPU, Ampere or later, and triton; there is none here", file=sys.stderr)
        sys.exit(2)
    torch.manual_seed(0)
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else "interpreter"
    print(json.dumps({"device": name, "torch": torch.__version__, **vars(args)}), flush=True)
    product, copy = ceilings(place, args)
    print(json.dumps({"product_tflops": round(product / 1e12, 3), "copy_gb_s": round(copy / 1e9, 2)}), flush=True)
    ratios = {}
    for case in cases(place, args):
        taken = measure(case, place, args, product, copy)
        if {"torch", "triton"} <= taken.keys():
            ratios[case.name] = taken["torch"] / taken["triton"]
    print("ratio", *(f"{ratios[name]:.3f}" if name in ratios else "-" for name in RATIOS))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="The Triton kernels on a GPU, against other forms and its ceilings.")
    parser.add_argument("--tokens", type=int, default=8192, help="rows of the hidden states (default %(default)s)")
    parser.add_argument("--hidden", type=int, default=1536, help="their width (default %(default)s)")
    parser.add_argument("--inner", type=int, default=8960, help="outputs of the layer (default %(default)s)")
    parser.add_argument(
        "--layers", type=int, default=16, help="of such weights for an update map (default %(default)s)"
    )
    parser.add_argument("--vocab", type=int, default=151_936, help="rows of the head (default %(default)s)")
    parser.add_argument("--square", type=int, default=8192, help="side of the ceilings' matrices (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=9, help="turns of each side (default %(default)s)")
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES, help="what is compared")
    return parser.parse_args()


def ceilings(place: torch.device, args: argparse.Namespace) -> tuple[float, float]:
    """Flops and bytes a second of a large product and of a large copy."""
    left, right = (torch.randn(args.square, args.square, device=place).bfloat16() for _ in range(2))
    source, target = torch.empty(2, 8 * args.square**2, dtype=torch.uint8, device=place)
    sides = {"product": lambda: torch.mm(left, right), "copy": lambda: target.copy_(source)}
    taken = {name: median(times) for name, times in turns(sides, place, args.repeats).items()}
    return 2 * args.square**3 / taken["product"], 2 * source.nbytes / taken["copy"]


def cases(place: torch.device, args: argparse.Namespace) -> Iterator[Case]:
    """One after the other, so that only one's tensors are held."""
    for form in ("scored", "frozen", "trained"):
        yield logprob_case(place, args, form)
    yield noise_case(place, args)
    yield delta_case(place, args)


@contextmanager
def torch_form() -> Iterator[None]:
    """Within it no tensor goes through the kernels."""
    with patch.object(gpu, "_able", lambda index: False), patch.dict(os.environ, TRITON_INTERPRET="0"):
        yield


def by_torch(side: Callable[[], Any]) -> Callable[[], Any]:
    """The same through the torch form."""

    def run() -> Any:
        with torch_form():
            return side()

    return run


def by_compiler(function: Callable[..., Any], args: argparse.Namespace) -> Callable[..., Any]:
    """torch.compile's form, where it is asked for: its import alone takes seconds."""
    return torch.compile(function) if "compile" in args.sides else function


def logprob_case(place: torch.device, args: argparse.Namespace, form: str) -> Case:
    """Sides of one kind of log-probs."""
    from underdog.kernels.logprob import token_logprobs

    hidden_TH = torch.randn(args.tokens, args.hidden, device=place).bfloat16()
    weight_VH = torch.empty(args.vocab, args.hidden, device=place, dtype=torch.bfloat16)
    weight_VH.normal_(std=3 / args.hidden**0.5)
    tokens_T = torch.randint(args.vocab, (args.tokens,), device=place)
    factor_T = torch.randn(args.tokens, device=place)

    def whole(hidden_TH: Tensor, weight_VH: Tensor, tokens_T: Tensor) -> tuple[Tensor, Tensor]:
        logp_TV = functional.log_softmax(functional.linear(hidden_TH, weight_VH), -1, dtype=torch.float32)
        with torch.no_grad():
            entropy_T = -(logp_TV.exp() * logp_TV).sum(-1)
        return logp_TV.gather(1, tokens_T[:, None])[:, 0], entropy_T

    def run(read: Callable[..., Any]) -> tuple[Tensor, ...]:
        leaves = [hidden_TH.detach().requires_grad_(), weight_VH.detach().requires_grad_(form == "trained")]
        with torch.set_grad_enabled(form != "scored"):
            logp_T, entropy_T, *_ = read(*leaves, tokens_T)
        if form == "scored":
            return logp_T, entropy_T
        (logp_T * factor_T).sum().backward()
        return logp_T.detach(), entropy_T.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)

    compiled = by_compiler(whole, args)
    sides = {"triton": lambda: run(token_logprobs), "compile": lambda: run(compiled)}
    sides["torch"] = by_torch(sides["triton"])
    if form == "trained" and "liger" in args.sides and (loss := liger()) is not None:
        sides["liger"] = lambda: liger_step(loss, hidden_TH, weight_VH, tokens_T)
    products = {"scored": 1, "frozen": 2, "trained": 4}[form]
    return Case(f"logprob {form}", sides, flops=2.0 * products * args.tokens * args.hidden * args.vocab)


def liger() -> Any:
    """Liger's fused linear cross entropy, where it is installed."""
    try:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss  # type: ignore[import-not-found]
    except ImportError as error:
        print(json.dumps({"side": "liger", "left_out": str(error)}), flush=True)
        return None
    return LigerFusedLinearCrossEntropyLoss(reduction="sum")


def liger_step(loss: Any, hidden_TH: Tensor, weight_VH: Tensor, tokens_T: Tensor) -> tuple[Tensor, ...]:
    """Its loss is another, so nothing is compared."""
    leaves = [hidden_TH.detach().requires_grad_(), weight_VH.detach().requires_grad_()]
    loss(leaves[1], leaves[0], tokens_T).backward()
    return ()


def noise_case(place: torch.device, args: argparse.Namespace) -> Case:
    """A LoRA layer with noise, in the learner's own way."""
    from peft import LoraConfig, inject_adapter_in_model

    from underdog.kernels.noise import DEVIATION, Noise, integers
    from underdog.rl.learner.lora_linear import apply
    from underdog.rl.learner.shifts import shifted

    model = nn.ModuleDict({"layer": nn.Linear(args.hidden, args.inner, bias=False, device=place, dtype=torch.bfloat16)})
    config = LoraConfig(r=RANK, lora_alpha=4 * RANK, target_modules=["layer"], init_lora_weights=False)
    layer: Any = inject_adapter_in_model(config, model)["layer"].to(place)  # type: ignore[index]
    weight_OH = layer.base_layer.weight.detach()
    x_TH = torch.randn(args.tokens, args.hidden, device=place).bfloat16()
    sent_TO = torch.randn(args.tokens, args.inner, device=place).bfloat16()
    noise = Noise(7, torch.full((args.inner,), 1e-3, device=place), args.hidden)
    places_OH = torch.arange(args.inner * args.hidden, device=place).view(args.inner, args.hidden)

    def run(read: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        factors = [layer.lora_A["default"].weight, layer.lora_B["default"].weight]
        x = x_TH.detach().requires_grad_()
        y = read(x)
        return (y.detach(), *torch.autograd.grad(y, [x, *factors], sent_TO))

    def ours(x: Tensor) -> Tensor:
        with shifted({layer: noise}):
            return apply([layer], x, None)[0]

    def whole(x: Tensor) -> Tensor:
        k_OH = integers(noise.seed, places_OH).float() * (noise.std_R / DEVIATION)[:, None]
        low_TR = x @ layer.lora_A["default"].weight.to(x.dtype).t()
        moved_OH = (weight_OH.float() + k_OH).to(x.dtype)
        return x @ moved_OH.t() + 4 * low_TR @ layer.lora_B["default"].weight.to(x.dtype).t()

    compiled = by_compiler(whole, args)
    sides = {"triton": lambda: run(ours), "compile": lambda: run(compiled)}
    sides |= {"none": lambda: run(lambda x: apply([layer], x, None)[0]), "torch": by_torch(sides["triton"])}
    wide = args.hidden * args.inner + 2.5 * RANK * (args.hidden + args.inner)  # A and B: two products, and their own
    return Case("noise", sides, flops=4.0 * args.tokens * wide)


def delta_case(place: torch.device, args: argparse.Namespace) -> Case:
    """An update of a tenth of a last place, so that some weights change."""
    from underdog.kernels import delta

    base = torch.randn(args.layers * args.inner, args.hidden, device=place).bfloat16() * 0.02
    tuned = (base.float() + 1e-5 * torch.randn_like(base, dtype=torch.float32)).bfloat16()

    def numbers(found: Any, touched_C: Any) -> tuple[Tensor, ...]:
        tensors = (found.counts, found.squares, found.binades, [found.rows], touched_C)
        return tuple(torch.as_tensor(part).double().cpu() for part in tensors)

    def ours() -> tuple[Tensor, ...]:
        from underdog.kernels.gpu.delta import count

        touched_C = torch.zeros(args.hidden, dtype=torch.uint8, device=place)
        return numbers(count(base, tuned, touched_C), touched_C)

    def on_cpu() -> tuple[Tensor, ...]:
        touched = torch.zeros(args.hidden, dtype=torch.uint8).numpy()
        bits = [part.cpu().view(torch.uint16).numpy() for part in (base, tuned)]
        return numbers(delta.count(bits[0], bits[1], touched), touched)

    def operations(base: Tensor, tuned: Tensor) -> tuple[Tensor, ...]:
        def places(values: Tensor) -> Tensor:
            whole = values.view(torch.int16).int()
            return torch.where(whole < 0, -(whole & 0x7FFF), whole)

        moved = tuned.float() - base.float()
        apart, size = (places(tuned) - places(base)).abs(), moved.abs()
        counts = [(apart > 0).sum(), *((size > t).sum() for t in delta.TOLERANCES)]
        counts += [(apart > n).sum() for n in delta.ULPS]
        squares = [moved.square().sum(), base.float().square().sum()]
        return torch.stack(counts), torch.stack(squares), (apart > 0).any(1).sum(), (apart > 0).any(0)

    compiled = by_compiler(operations, args)
    sides: dict[str, Any] = {"triton": ours, "torch": on_cpu}
    sides["compile"] = lambda: compiled(base, tuned)
    return Case("delta", sides, bytes=2.0 * base.nbytes)


def measure(case: Case, place: torch.device, args: argparse.Namespace, product: float, copy: float) -> dict[str, float]:
    """Prints a line a side; returns median seconds."""
    sides = {name: case.sides[name] for name in args.sides if name in case.sides}
    true = case.sides["torch"]()
    lines: dict[str, dict[str, Any]] = {}
    for name, side in list(sides.items()):
        try:
            lines[name] = {"peak_mib": peak_mib(side, place), "difference": difference(name, side(), true)}
        except Exception as error:  # a compiler that fails, or a card too small for whole logits
            print(json.dumps({"case": case.name, "side": name, "left_out": f"{type(error).__name__}: {error}"[:300]}))
            del sides[name]
            if name in ("triton", "torch"):
                raise
    taken = turns(sides, place, args.repeats)
    for name, times in taken.items():
        seconds = median(times)
        ceiling = case.flops / product if case.flops else case.bytes / copy
        figures = {"ms": seconds, "least": min(times), "most": max(times)}
        line = {"case": case.name, "side": name, **{key: round(1e3 * value, 4) for key, value in figures.items()}}
        print(json.dumps({**line, "fraction": round(ceiling / seconds, 4), **lines[name]}), flush=True)
    return {name: median(times) for name, times in taken.items()}


def difference(name: str, found: tuple[Tensor, ...], true: tuple[Tensor, ...]) -> float | None:
    """The largest, over the largest value, of a side that computes the same as the torch form; it ends a wrong run."""
    if name in ("none", "liger") or len(found) != len(true):  # another result
        return None
    apart = 0.0
    for got, expected in zip(found, true, strict=True):
        largest = max(float(expected.abs().max()), 1e-30)
        apart = max(apart, float((got.float() - expected.float()).abs().max()) / largest)
    if name == "triton" and not apart <= MOST:
        sys.exit(f"the kernel is {apart:.3g} off the torch form: nothing is measured")
    return apart


def turns(sides: dict[str, Callable[[], Any]], place: torch.device, repeats: int) -> dict[str, list[float]]:
    """Seconds a call of each side, all taking turns, after one call that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name in list(sides)[:: 1 if repeat % 2 == 0 else -1]:
            synchronize(place)
            start = perf_counter()
            for _ in range(INNER if place.type == "cuda" else 1):
                sides[name]()
            synchronize(place)
            taken[name].append((perf_counter() - start) / (INNER if place.type == "cuda" else 1))
    return {name: times[1:] for name, times in taken.items()}


def peak_mib(side: Callable[[], Any], place: torch.device) -> float | None:
    """Of a second call, beyond what was held before; None on a CPU."""
    side()
    if place.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(place)
    before = torch.cuda.memory_allocated(place)
    side()
    synchronize(place)
    return round((torch.cuda.max_memory_allocated(place) - before) / 2**20, 1)


def synchronize(place: torch.device) -> None:
    """Wait for the GPU."""
    if place.type == "cuda":
        torch.cuda.synchronize(place)


if __name__ == "__main__":
    main()
