"""The learner's policy as engines and exports take it: a live view, never a copy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from ...kernels.digest import tensors_digest
from .model import without_bars

if TYPE_CHECKING:
    from .adapters.base import Adapter


class LivePolicy:
    """See `records.Policy`; what it gives out shares memory with the learner where nothing had to be merged."""

    def __init__(self, model: Any, base: Any, tokenizer: Any, adapter: Adapter) -> None:
        """`model` is `base` as `adapter` wrapped it: exactly its trained parameters require gradients."""
        self.number = 0
        self.model_config = base.config
        self.tokenizer = tokenizer
        self._model, self._base, self._adapter = model, base, adapter
        self._trained = [(name, p) for name, p in base.named_parameters() if p.requires_grad]
        frozen = [(name, p) for name, p in base.named_parameters() if not p.requires_grad]
        self._identity = tensors_digest(frozen)

    def digest(self) -> str:
        """SHA-256 over the trained tensors' names, dtypes, shapes and bytes, and over those of the frozen base."""
        return tensors_digest(self._trained, salt=self._identity)

    def adapter(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """PEFT's configuration and state dict, or None where the policy has no PEFT form."""
        return self._adapter.peft(self._model)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The effective weights by the base's parameter names, in its dtype and on its device, one at a time."""
        return self._adapter.weights(self._model)

    def save_adapter(self, folder: Path) -> Literal["adapter", "merged"]:
        """Write the PEFT folder, which `PeftModel` and vLLM load, or the merged model where there is no such form.

        Returns:
            Which of the two was written.
        """
        from safetensors.torch import save_file

        form = self.adapter()
        if form is None:
            self.save_merged(folder)
            return "merged"
        config, tensors = form
        folder.mkdir(parents=True, exist_ok=True)
        save_file(_on_cpu(tensors.items()), folder / "adapter_model.safetensors", metadata={"format": "pt"})
        text = json.dumps(config, indent=2, sort_keys=True, default=str)
        (folder / "adapter_config.json").write_text(text)
        return "adapter"

    def save_merged(self, folder: Path) -> None:
        """Write an ordinary Hugging Face model folder, tokenizer included; sums in float32, then rounded once."""
        with without_bars():
            self._base.save_pretrained(folder, state_dict=_on_cpu(self.weights()))
        self.tokenizer.save_pretrained(folder)


def _on_cpu(named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in named}


def head(model: nn.Module) -> tuple[Tensor, Tensor | None, float, float | None]:
    """The output head's weight, bias, temperature and soft cap (None: no cap) by `model`'s configuration."""
    output: Any = model.get_output_embeddings()  # type: ignore[operator]
    config: Any = model.config
    temperature = float(getattr(config, "logits_scaling", None) or 1.0)
    temperature /= float(getattr(config, "logit_scale", None) or 1.0)
    return output.weight, output.bias, temperature, getattr(config, "final_logit_softcapping", None)
