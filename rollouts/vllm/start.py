"""Bringing vLLM up inside this process, where it can be looked into, and leaving the process as it was."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapter import Servable
    from .vllm import Vllm

PASS_TOKENS = 32768
"""Tokens of a forward pass at most on a CPU, and so of a prompt."""
BLOCK = 32
"""Positions in a block of vLLM's cache on a CPU. Only whole blocks of a prompt are shared: vLLM's own 128 gives half
the tokens a second at prompts of 36 tokens in groups of 8 and mixed lengths, and less than a third at short ones."""


def start(part: Vllm, model: str, config: Any, adapter: Servable | None) -> Any:
    """A `vllm.LLM` of the base `model`, with room for one adapter of this form; None for none."""
    import torch

    cpu = not torch.cuda.is_available()
    # `inside` looks into an engine core of this process and its first model runner, which a CPU has too.
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_USE_V2_MODEL_RUNNER": "0"}
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    options: dict[str, Any] = {"gpu_memory_utilization": part.gpu_memory, "max_model_len": part.context or -1}
    if cpu:
        cache = int(part.cache_gib * 2**30)
        options = {
            "kv_cache_memory_bytes": cache,
            "block_size": BLOCK,
            "max_model_len": part.context or room(config, cache),
            # On a CPU vLLM 0.32 cannot put off a part of the prompt of a request that has a seed of its own.
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": PASS_TOKENS,
        }
    if adapter is not None:
        options |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": adapter.rank}
        options["lora_target_modules"] = adapter.targets
    _mend_llvmlite()
    with _process_as_it_was():
        from vllm import LLM

        return LLM(
            model,
            dtype=config.dtype,
            enforce_eager=cpu if part.eager is None else part.eager,
            generation_config="vllm",
            enable_prefix_caching=True,
            seed=0,
            **options,
        )


def room(config: Any, cache: int) -> int:
    """Tokens of the longest sequence on a CPU: the model's positions, as far as `cache` bytes and a pass hold them.

    vLLM keeps one block of the cache for itself.
    """
    text = config.get_text_config()
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    kv_heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    token = 2 * text.num_hidden_layers * kv_heads * head_dim * config.dtype.itemsize
    return max(1, min(text.max_position_embeddings, PASS_TOKENS, (cache // (token * BLOCK) - 1) * BLOCK))


def _mend_llvmlite() -> None:
    """Where numba is loaded, let llvmlite's handle of its library have no `__dict__`, as it says of any other object.

    It takes every attribute for a function of the library, and vLLM 0.32, which looks for kernels in what each loaded
    module holds, stumbles over it.
    """
    ffi = sys.modules.get("llvmlite.binding.ffi")
    if ffi is None or not hasattr(ffi.lib, "__dict__"):
        return
    handle: Any = type(ffi.lib)
    function = handle.__getattr__

    def attribute(self: Any, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return function(self, name)

    handle.__getattr__ = attribute


@contextmanager
def _process_as_it_was() -> Iterator[None]:
    """vLLM on a CPU preloads its allocator into every process started later, and disables `torch.set_num_threads`."""
    import torch

    preload, set_num_threads = os.environ.get("LD_PRELOAD"), torch.set_num_threads
    try:
        yield
    finally:
        torch.set_num_threads = set_num_threads
        os.environ.pop("LD_PRELOAD", None)
        if preload is not None:
            os.environ["LD_PRELOAD"] = preload
