"""LoRA (Hu et al. 2021, arXiv 2106.09685), in PEFT's form: y = W x + alpha/r B A dropout(x)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ....parts import UserError
from .base import Adapter

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..dropout import Dropout

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Lora(Adapter):
    """Low-rank updates beside frozen linear layers; defaults are Tina's (Wang et al. 2025, arXiv 2504.15777)."""

    r: int = Field(default=32, ge=1)
    """Rank of each update."""
    alpha: float = Field(default=128, gt=0)
    """Scale: each update is multiplied by alpha / r, or by alpha / sqrt(r) with `rslora`."""
    rslora: bool = False
    """Rank-stabilised scale (Kalajdzievski 2023, arXiv 2312.03732)."""
    dropout: float = Field(default=0.05, ge=0, lt=1)
    """Share of each adapter's inputs that is dropped while training."""
    targets: list[str] = Field(default=SEVEN, min_length=1)
    """Last names of the linear modules that get an update."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """The base's biases that are trained too, as in PEFT. Such a policy has no adapter to be served: it is merged."""

    def attach(self, model: nn.Module, seed: int, start: Path | None) -> nn.Module:
        """Wrap `model` by PEFT.

        Raises:
            UserError: no module has one of the targets' names, a target is the head or the embedding, or the saved
                adapter is not there or has another shape.
        """
        import torch
        from peft import LoraConfig, get_peft_model

        self._check_targets(model)
        config = LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  (PEFT multiplies by it; whole numbers stay whole)
            lora_dropout=self.dropout,
            target_modules=list(self.targets),
            use_rslora=self.rslora,
            bias=self.bias,
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            wrapped = get_peft_model(model, config)  # type: ignore[arg-type]
        if start is not None:
            self._load(wrapped, start)
        return wrapped

    def _check_targets(self, model: nn.Module) -> None:
        from torch import nn

        tied = {id(m) for m in (model.get_input_embeddings(), model.get_output_embeddings())}  # type: ignore
        last = {name.rpartition(".")[2]: module for name, module in model.named_modules()}
        linear = sorted(n for n, m in last.items() if isinstance(m, nn.Linear) and id(m) not in tied)
        missing = [t for t in self.targets if t not in last]
        if missing:
            raise UserError(
                f"learner.adapter.targets: the model has no module named {', '.join(missing)}; "
                f"its linear modules are {', '.join(linear)}"
            )
        outside = [t for t in self.targets if id(last[t]) in tied]
        if outside:
            raise UserError(
                f"learner.adapter.targets: {', '.join(outside)} is the embedding or the head, which LoRA does not "
                f"train here; choose among {', '.join(linear)}, or learner.adapter=full"
            )

    def _load(self, model: nn.Module, folder: Path) -> None:
        from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
        from safetensors.torch import load_file

        file = folder / "adapter_model.safetensors"
        if not file.is_file():
            raise UserError(f"init_adapter: {folder} holds no adapter_model.safetensors; give a PEFT adapter's folder")
        tensors, own = load_file(file), get_peft_model_state_dict(model)
        saved: Any = LoraConfig.from_pretrained(str(folder))
        factors = {name: tensor.shape for name, tensor in own.items() if ".lora_" in name}
        same_scale = saved.lora_alpha / saved.r == self.alpha / self.r and saved.use_rslora == self.rslora
        if {name: tensor.shape for name, tensor in tensors.items()} != factors or not same_scale:
            raise UserError(
                f"init_adapter: {folder} has r={saved.r}, alpha={saved.lora_alpha}, rslora={saved.use_rslora}, targets="
                f"{sorted(saved.target_modules or [])}; set learner.adapter.r, .alpha, .rslora and .targets to the same"
            )
        set_peft_model_state_dict(model, tensors)

    def linears(self, modules: Sequence[nn.Module], x_TH: Tensor, dropout: Dropout | None) -> list[Tensor]:
        """All updates of one input in one pass, with one dropout mask (PEFT draws one a module: same in law)."""
        from ..lora_linear import apply

        return apply(modules, x_TH, dropout)

    def off(self, model: nn.Module) -> AbstractContextManager[Any] | None:
        """PEFT's `disable_adapter`, which does not bring trained biases back."""
        return model.disable_adapter() if self.bias == "none" else None  # type: ignore[operator]

    def peft(self, model: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """As PEFT saves them; None with trained biases, which no server of adapters knows."""
        from peft import get_peft_model_state_dict

        if self.bias != "none":
            return None
        config = model.peft_config["default"].to_dict()  # type: ignore[index, union-attr]
        plain = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
        return {**plain, "inference_mode": True}, get_peft_model_state_dict(model)

    def base_weights(self, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """The base's own parameters, by the names that they had before PEFT wrapped them."""
        for name, parameter in model.get_base_model().named_parameters():  # type: ignore[operator]
            if ".lora_" not in name:
                yield name.replace(".base_layer.", "."), parameter

    def weights(self, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """W + s B A, summed in float32 and then rounded once to the base's dtype."""
        import torch

        wrapped: list[Any] = [module for module in model.modules() if hasattr(module, "lora_A")]
        owners = {id(module.base_layer.weight): module for module in wrapped}
        for name, parameter in self.base_weights(model):
            owner = owners.get(id(parameter))
            with torch.no_grad():
                weight = parameter.detach() if owner is None else _merged(owner)
            yield name, weight  # outside: what a suspended generator switches off, its caller finds off


def _merged(module: Any) -> Tensor:
    """The effective weight of one LoRA module."""
    weight = module.base_layer.weight.detach()
    down, up = module.lora_A["default"].weight, module.lora_B["default"].weight
    wide = weight.dtype if weight.dtype.itemsize > 4 else down.dtype
    delta = up.to(wide) @ down.to(wide)
    return (weight.to(wide) + module.scaling["default"] * delta).to(weight.dtype)
