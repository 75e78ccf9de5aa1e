"""In which dtype a processor computes best what is held in another."""

from __future__ import annotations

from functools import cache

import torch


def compute_dtype(dtype: torch.dtype, device: str) -> torch.dtype:
    """The dtype of activations and products for weights held in `dtype`: float32 where bfloat16 would be slower.

    Most processors have no quick bfloat16 products. Without any instruction each is emulated; and Intel's AVX-512
    instruction makes as many sums a cycle as float32's, and pays for the conversions (here 86 to 99 GFLOP/s a core
    against 148). Float32 is then quicker, and rounds nothing in between.
    """
    if dtype == torch.bfloat16 and torch.device(device).type == "cpu" and not _quick_bfloat16():
        return torch.float32
    return dtype


@cache
def _quick_bfloat16() -> bool:
    """By what the processor says of itself, not by a stopwatch: a resumed run must compute as it did before."""
    has = torch.cpu.get_capabilities()
    if has["architecture"] != "x86_64":
        return bool(has.get("bf16", False))
    return bool(has.get("amx_bf16")) or bool(has.get("avx512_bf16") and "Intel" not in has["cpu_name"])
