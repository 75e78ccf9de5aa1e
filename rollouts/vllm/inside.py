"""Looking into a running vLLM: what its model runner holds, and under which adapter each request really ran.

Nothing here believes what the engine was asked for: adapters are read from the buffers that the kernels multiply with,
merged weights from what the layers answer, and a request's adapter from the indices that the kernels were given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import product


@dataclass(frozen=True)
class _Pass:
    """One forward pass: its requests, how many tokens each has in it, and the slot [T] of each token (-1: none)."""

    requests: list[str]
    counts: list[int]
    slots_T: Tensor
    ids: tuple[int | None, ...]
    """The id of the adapter in each slot at that time."""


class Inside:
    """The model runner of an engine in this process."""

    def __init__(self, llm: Any) -> None:
        """Watch `llm`, a `vllm.LLM` whose engine core is in this process."""
        executor = llm.llm_engine.engine_core.engine_core.model_executor
        self._runner = executor.driver_worker.worker.model_runner
        self._passes: list[_Pass] = []
        if self._runner.lora_config is not None:
            (self._wrapper,) = self._manager.punica_wrapper_mapping.values()
            if self._runner.device.type == "cpu":
                product.install(self._wrapper)
            self._watch()

    @property
    def _manager(self) -> Any:
        """Of the adapters, their slots and the layers that have them."""
        return self._runner.lora_manager._adapter_manager

    @property
    def model(self) -> Any:
        """The model as vLLM built it."""
        return self._runner.get_model()

    def adapters_run(self) -> dict[str, set[int]]:
        """Of each request since this was last asked: the ids of the adapters that its tokens ran under, 0 for none."""
        passes, self._passes = self._passes, []
        ran: dict[str, set[int]] = {}
        for one in passes:
            rows = zip(one.requests, one.slots_T.cpu().split(one.counts), strict=True)
            for request, slots_T in rows:
                ids = {one.ids[slot] or 0 if slot >= 0 else 0 for slot in slots_T.unique().tolist()}
                ran.setdefault(request, set()).update(ids)
        return ran

    def adapter(self, number: int) -> Iterator[tuple[str, Tensor]]:
        """The tensors of adapter `number` in the slot where the kernels find it, as `adapter.held_form` names them.

        Raises:
            LookupError: no slot holds it.
        """
        manager = self._manager
        if number not in manager.lora_index_to_id:
            raise LookupError(f"vLLM holds no adapter {number}")
        slot = manager.lora_index_to_id.index(number)
        for name, module in manager.modules.items():
            parent, _, last = name.rpartition(".")
            parts = manager.packed_modules_mapping.get(last, [last])
            for part, a, b in zip(parts, module.lora_a_stacked, module.lora_b_stacked, strict=True):
                down, up = a[slot, 0], b[slot, 0]
                if down.any() or up.any():  # what the adapter leaves alone has a slot of zeros
                    yield f"{parent}.{part}.lora_A", down
                    yield f"{parent}.{part}.lora_B", up

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The model's weights by its own names (joined projections), and the head's also where it is tied.

        On a CPU layers multiply with a copy in a kernel's own order. What they then hold are their responses to unit
        vectors: a sum of one product and zeros is exact.
        """
        for name, module in self.model.named_modules():
            for key, parameter in module.named_parameters(recurse=False):
                packed = key == "weight" and hasattr(module, "cpu_linear")
                if not name.startswith("lm_head"):
                    yield f"{name}.{key}", _responses(module) if packed else parameter.detach()
        head = self.model.lm_head
        yield "lm_head.weight", _responses(head) if hasattr(head, "cpu_linear") else head.weight.detach()

    def repack_head(self) -> None:
        """Renew the head's copy in a kernel's own order: vLLM 0.32 forgets that of a tied head when it reloads."""
        head = self.model.lm_head
        if hasattr(head, "cpu_linear"):
            head.quant_method.process_weights_after_loading(head)

    def _watch(self) -> None:
        """Keep, whenever adapters are set for a forward pass, the slots that the kernels are given for its tokens."""
        inner = self._runner.set_active_loras

        def set_active_loras(input_batch: Any, scheduled_N: Any, *rest: Any, **options: Any) -> None:
            inner(input_batch, scheduled_N, *rest, **options)
            # Read later: on a GPU that would wait here for the pass before.
            slots_T = self._wrapper.token_lora_indices.clone()
            names = [name.rpartition("-")[0] for name in input_batch.req_ids]  # vLLM adds a random end to each
            self._passes.append(_Pass(names, scheduled_N.tolist(), slots_T, tuple(self._manager.lora_index_to_id)))

        self._runner.set_active_loras = set_active_loras


@torch.inference_mode()
def _responses(module: Any) -> Tensor:
    """The weight [out, in] that a layer multiplies with, from what it answers to unit vectors."""
    width = getattr(module, "input_size", None) or module.embedding_dim
    return module.cpu_linear(torch.eye(width, dtype=module.weight.dtype), module.weight, None).t()
