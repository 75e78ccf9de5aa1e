"""Several LoRA layers in one pass against PEFT's own modules, in all ways through."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from underdog.rl.learner import lora_linear


class Three(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(12, 20), nn.Linear(12, 8)
        self.v_proj = nn.Linear(12, 8, bias=False)


@pytest.fixture
def layers() -> list[Any]:
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=12, lora_dropout=0.0, target_modules=["q_proj", "k_proj", "v_proj"])
    model: Any = get_peft_model(Three(), config)  # type: ignore[arg-type]
    own = [model.base_model.model.q_proj, model.base_model.model.k_proj, model.base_model.model.v_proj]
    for layer in own:
        nn.init.normal_(layer.lora_B["default"].weight)
    return own


@pytest.mark.parametrize("tokens", [5, 20, 300])
def test_outputs_and_gradients_are_those_of_peft(layers, tokens):
    """Few tokens keep the update apart, more tokens than a weight has rows merge it."""
    x = torch.randn(tokens, 12, requires_grad=True)
    sent = [torch.randn(tokens, layer.base_layer.out_features) for layer in layers]
    factors = [layer.lora_A["default"].weight for layer in layers] + [
        layer.lora_B["default"].weight for layer in layers
    ]

    def gradients(outputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        total = sum((y * g).sum() for y, g in zip(outputs, sent, strict=True))
        assert isinstance(total, torch.Tensor)
        return torch.autograd.grad(total, [x, *factors])

    ours, theirs = lora_linear.apply(layers, x, None), [layer(x) for layer in layers]
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    for a, b in zip(gradients(ours), gradients(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_both_ways_are_taken(layers, monkeypatch):
    taken = []
    for name in ("_LoraLinears", "_MergedLinears"):
        function = getattr(lora_linear, name)

        def noted(*arguments: Any, name: str = name, apply: Any = function.apply) -> Any:
            taken.append(name)
            return apply(*arguments)

        monkeypatch.setattr(function, "apply", noted)
    lora_linear.apply(layers, torch.randn(19, 12), None)
    lora_linear.apply(layers, torch.randn(20, 12), None)
    lora_linear.apply([layer.bfloat16() for layer in layers], torch.randn(20, 12, dtype=torch.bfloat16), None)
    assert taken == ["_LoraLinears", "_MergedLinears", "_LoraLinears"]
