"""A LoRA adapter as vLLM serves it: one rank of those that it has kernels for, and no scaling.

vLLM knows one rank and one alpha an adapter. So every scaling (alpha / r, alpha / sqrt(r) under rsLoRA, or a module's
own) is folded into B, in float32; A and B are padded with zeros to the next rank that vLLM serves; and alpha = r says
that nothing is left to scale. What the engine must then hold is A and B in its own dtype: `held_form`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...parts import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM 0.32 has room for."""
PREFIX = "base_model.model."
"""PEFT's, before the base's own names of modules."""
UNSERVED = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "lora_bias": "a trained bias beside B",
    "modules_to_save": "modules trained beside the adapter (modules_to_save)",
    "layer_replication": "replicated layers",
    "trainable_token_indices": "trained token embeddings",
}
"""Keys of PEFT's configuration that must be unset, and what they stand for."""


@dataclass(frozen=True)
class Servable:
    """An adapter ready to be served: `pairs` maps a module's name to A [R, in] and B [out, R], both float32."""

    rank: int
    pairs: Mapping[str, tuple[Tensor, Tensor]]

    @property
    def targets(self) -> list[str]:
        """Last names of the modules, sorted."""
        return sorted({module.rpartition(".")[2] for module in self.pairs})


def servable(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Servable:
    """Fold and pad an adapter in PEFT's form.

    Raises:
        UserError: vLLM cannot serve it; the message says why and what else to do.
    """
    _check(config, tensors)
    downs = {name.removesuffix(".lora_A.weight"): t for name, t in tensors.items() if name.endswith(".lora_A.weight")}
    rank = served_rank(max(down.shape[0] for down in downs.values()))
    pairs = {}
    for module, down in downs.items():
        up, r = tensors[f"{module}.lora_B.weight"], down.shape[0]
        plain = module.removeprefix(PREFIX)
        wide_down, wide_up = down.new_zeros(rank, down.shape[1]).float(), up.new_zeros(up.shape[0], rank).float()
        wide_down[:r], wide_up[:, :r] = down.float(), up.float() * scaling(config, plain, r)
        pairs[plain] = (wide_down, wide_up)
    return Servable(rank, pairs)


def served_rank(rank: int) -> int:
    """The smallest rank that vLLM serves and `rank` fits in.

    Raises:
        UserError: there is none.
    """
    fitting = [known for known in RANKS if known >= rank]
    if not fitting:
        raise UserError(
            f"vLLM serves adapters of rank {RANKS[-1]} at most, this one has {rank}; lower learner.adapter.r, or set "
            "rollouts.engine.sync=merged"
        )
    return fitting[0]


def held_form(adapter: Servable, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """What the engine holds of it: `<module>.lora_A` [R, in] and `<module>.lora_B` [out, R] in its dtype.

    A pair of zeros is left out: in the engine nothing tells it from a module that the adapter does not touch.
    """
    for module, pair in adapter.pairs.items():
        down, up = (matrix.to(dtype) for matrix in pair)
        if down.any() or up.any():
            yield f"{module}.lora_A", down
            yield f"{module}.lora_B", up


def write(adapter: Servable, folder: Path) -> None:
    """Write a PEFT folder that vLLM loads, whole or not at all."""
    from safetensors.torch import save_file

    temporary = folder.with_name(f".{folder.name}.tmp")
    temporary.mkdir(parents=True)
    tensors = {}
    for module, (down, up) in adapter.pairs.items():
        tensors[f"{PREFIX}{module}.lora_A.weight"] = down.contiguous().cpu()
        tensors[f"{PREFIX}{module}.lora_B.weight"] = up.contiguous().cpu()
    save_file(tensors, temporary / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "r": adapter.rank, "lora_alpha": adapter.rank, "target_modules": adapter.targets}
    (temporary / "adapter_config.json").write_text(json.dumps({**config, "bias": "none", "task_type": "CAUSAL_LM"}))
    os.replace(temporary, folder)


def _check(config: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    way_out = "set rollouts.engine.sync=merged, or rollouts.engine=local"
    kind = str(config.get("peft_type", "LORA")).rpartition(".")[2]
    if kind != "LORA":
        raise UserError(f"vLLM serves LoRA adapters, this one is {kind}; {way_out}")
    if config.get("bias", "none") != "none":
        raise UserError(f"vLLM cannot serve trained biases (bias={config['bias']}); {way_out}")
    for key, words in UNSERVED.items():
        if config.get(key):
            raise UserError(f"vLLM cannot serve {words}; {way_out}")
    heads = sorted(n for n in tensors if "lm_head" in n or "embed_tokens" in n or "lora_embedding" in n)
    if heads:
        raise UserError(f"vLLM cannot serve an adapter on the embedding or the head ({heads[0]}); {way_out}")
    strange = sorted(n for n in tensors if not n.endswith((".lora_A.weight", ".lora_B.weight")))
    if strange or not tensors:
        raise UserError(f"vLLM cannot serve the adapter's {strange[0] if strange else 'empty form'}; {way_out}")


def scaling(config: Mapping[str, Any], module: str, r: int) -> float:
    """What PEFT multiplies a module's B A by: alpha / r, or alpha / sqrt(r) under rsLoRA.

    A module has an alpha of its own where the first pattern that its name ends in says so.
    """
    patterns = config.get("alpha_pattern") or {}
    own = (alpha for pattern, alpha in patterns.items() if module == pattern or module.endswith(f".{pattern}"))
    return next(own, config["lora_alpha"]) / (r**0.5 if config.get("use_rslora") else r)
