"""LoRA over a base in 4 bits (Dettmers et al. 2023, arXiv 2305.14314), by bitsandbytes."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ....parts import UserError
from .lora import Lora

if TYPE_CHECKING:
    from torch import Tensor, nn


class QLora(Lora):
    """LoRA whose frozen base is held in 4 bits; needs a CUDA device and bitsandbytes."""

    merges: ClassVar[bool] = False

    quantisation: Literal["nf4", "fp4"] = "nf4"
    """The 4-bit data type."""
    double: bool = True
    """Quantise the quantisation constants too: 0.4 bits a parameter less."""

    def load_options(self) -> dict[str, Any]:
        """transformers' 4-bit loading.

        Raises:
            UserError: bitsandbytes is not installed.
        """
        if importlib.util.find_spec("bitsandbytes") is None:
            raise UserError(
                "learner.adapter=qlora needs bitsandbytes: run `pip install bitsandbytes`, or set learner.adapter=lora"
            )
        import torch
        from transformers import BitsAndBytesConfig

        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.quantisation,
            bnb_4bit_use_double_quant=self.double,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
        return {"quantization_config": config}

    def attach(self, model: nn.Module, seed: int, start: Path | None) -> nn.Module:
        """As LoRA.

        Raises:
            UserError: biases are to be trained: such a policy is served merged, and this base cannot be.
        """
        if self.bias != "none":
            raise UserError("learner.adapter=qlora cannot train biases (its base cannot be merged): set bias=none")
        return super().attach(model, seed, start)

    def weights(self, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """Not available.

        Raises:
            UserError: always; merging into a 4-bit base would round the adapter away.
        """
        raise UserError("a 4-bit base cannot be merged exactly: export the adapter, and merge it into the base")
