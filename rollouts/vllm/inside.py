"""Looking into a running vLLM: what its model runner holds, and under which adapter each request really ran.

Nothing here believes what the engine was asked for: adapters are read from the buffers that the kernels multiply with,
merged weights from what the layers answer, and a request's adapter from the indices that the kernels were given.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class Inside:
    """The model runner of an engine in this process."""

    def __init__(self, llm: Any) -> None:
        """Watch `llm`, a `vllm.LLM` whose engine core is in this process."""
        executor = llm.llm_engine.engine_core.engine_core.model_executor
        self._runner = executor.driver_worker.worker.model_runner
        self._ran: dict[str, set[int]] = {}
        if self._runner.lora_config is not None:
            self._watch()

    @property
    def model(self) -> Any:
        """The model as vLLM built it."""
        return self._runner.get_model()

    def adapters_run(self, request: str) -> set[int]:
        """Ids of the adapters under which the tokens of `request` ran, 0 for none; forgotten once asked for."""
        return self._ran.pop(request, set())

    def adapter(self, number: int) -> Iterator[tuple[str, Tensor]]:
        """The tensors of adapter `number` in the slot where the kernels find it, as `adapter.held_form` names them.

        Raises:
            LookupError: no slot holds it.
        """
        manager = self._runner.lora_manager._adapter_manager
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
        """Note, whenever adapters are set for a forward pass, which slot the tokens of each request were given."""
        manager, inner = self._runner.lora_manager._adapter_manager, self._runner.set_active_loras

        def set_active_loras(input_batch: Any, scheduled_N: Any, *rest: Any, **options: Any) -> None:
            inner(input_batch, scheduled_N, *rest, **options)
            (wrapper,) = manager.punica_wrapper_mapping.values()
            slots_T = wrapper.token_lora_indices.tolist()
            start = 0
            for request, count in zip(input_batch.req_ids, scheduled_N.tolist(), strict=False):
                slots = set(slots_T[start : start + count])
                ids = {manager.lora_index_to_id[slot] or 0 if slot >= 0 else 0 for slot in slots}
                self._ran.setdefault(request.rpartition("-")[0], set()).update(ids)
                start += count

        self._runner.set_active_loras = set_active_loras


@torch.inference_mode()
def _responses(module: Any) -> Tensor:
    """The weight [out, in] that a layer multiplies with, from what it answers to unit vectors."""
    width = getattr(module, "input_size", None) or module.embedding_dim
    return module.cpu_linear(torch.eye(width, dtype=module.weight.dtype), module.weight, None).t()
