"""The packed forward against transformers and PEFT themselves: values and gradients.

All is float64 but transformers' norms and rotations, which are float32 whatever the model: hence the tolerances.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from underdog.kernels import packing
from underdog.kernels.logprob import token_logprobs
from underdog.parts import find
from underdog.rl.learner.dropout import Dropout
from underdog.rl.learner.packed import PackedDecoder
from underdog.rl.learner.padded import PaddedDecoder
from underdog.rl.learner.policy import head

SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
KINDS: dict[str, dict[str, Any]] = {
    "Qwen2ForCausalLM": {"tie_word_embeddings": True},
    "Qwen3ForCausalLM": {"head_dim": 8},
    "LlamaForCausalLM": {"attention_bias": True},
    "MistralForCausalLM": {"sliding_window": 5},
    "Gemma2ForCausalLM": {
        "head_dim": 8,
        "sliding_window": 5,
        "query_pre_attn_scalar": 8,
        "final_logit_softcapping": 3.0,
    },
    "Gemma3ForCausalLM": {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 8},
}


def make(kind: str):
    import transformers

    architecture = getattr(transformers, kind)
    config_class = transformers.Gemma3TextConfig if kind.startswith("Gemma3") else architecture.config_class
    torch.manual_seed(3)
    # transformers' fused attention leaves out Gemma 2's soft cap; the eager one has it.
    eager: dict[str, Any] = {"attn_implementation": "eager"} if kind.startswith("Gemma2") else {}
    model = architecture(config_class(**SMALL, **KINDS[kind], **eager)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def rows(seed: int = 0):
    """Groups that share prompts, a lone row, and completions of one token and of many."""
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(1, 40, n) for n in (4, 1, 7)]
    lengths = [(0, 5), (0, 12), (0, 1), (1, 9), (2, 11), (2, 3), (2, 10), (2, 1)]
    return [prompts[p] for p, _ in lengths], [rng.integers(1, 40, n) for _, n in lengths]


def plain_logps(model, prompts, completions):
    """One row at a time through the model's own logits."""
    values = []
    for prompt, completion in zip(prompts, completions, strict=True):
        ids = torch.from_numpy(np.concatenate([prompt, completion]))[None]
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        values.append(logits.log_softmax(-1).gather(-1, ids[0, len(prompt) :, None])[:, 0])
    return torch.cat(values)


def packed_logps(model, decoder, prompts, completions, budget=10_000, dropout=None):
    values = {}
    for part in packing.split(prompts, completions, budget):
        packed = packing.pack(prompts, completions, part)
        weight, bias, temperature, softcap = head(model)
        targets = torch.from_numpy(packed.targets_C)
        logp, *_ = token_logprobs(
            decoder(packed, dropout), weight, targets, bias_V=bias, temperature=temperature, softcap=softcap
        )
        cuts = [len(completions[row]) for row in part]
        values |= dict(zip(part, logp.split(cuts), strict=True))
    return torch.cat([values[row] for row in range(len(prompts))])


def gradients(model, logps):
    """Of a loss in which every token has its own weight."""
    model.zero_grad()
    (logps * torch.linspace(-1, 2, len(logps), dtype=logps.dtype)).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("adapter", ["lora", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_equal_transformers(kind, adapter):
    model = make(kind)
    part = find("adapter", adapter)(**({"r": 4, "alpha": 8, "dropout": 0.0} if adapter == "lora" else {}))
    model.requires_grad_(False)
    wrapped = part.attach(model, 0, None)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    prompts, completions = rows()
    reference = plain_logps(wrapped, prompts, completions)
    expected = gradients(model, reference)
    assert PackedDecoder.knows(model)
    packed = [PackedDecoder(model, part, checkpointing=c) for c in (False, True)]
    decoders = [*packed, PaddedDecoder(model, checkpointing=False)]
    for decoder in decoders:
        for budget in (10_000, 12):
            ours = packed_logps(model, decoder, prompts, completions, budget)
            torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)
            found = gradients(model, ours)
            assert found.keys() == expected.keys()
            for name, gradient in found.items():
                scale = expected[name].abs().max().item()
                torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5 * max(scale, 1), msg=name)


def test_adapter_off_is_the_base():
    base, model = make("Qwen2ForCausalLM"), make("Qwen2ForCausalLM")
    part = find("adapter", "lora")(r=4)
    wrapped = part.attach(model.requires_grad_(False), 0, None)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    decoder = PackedDecoder(model, part, checkpointing=False)
    prompts, completions = rows()
    with torch.no_grad():
        expected = plain_logps(base, prompts, completions)
        assert (packed_logps(model, decoder, prompts, completions) - expected).abs().max() > 0.1
        with part.off(wrapped):
            torch.testing.assert_close(
                packed_logps(model, decoder, prompts, completions), expected, rtol=1e-5, atol=1e-5
            )


def test_dropout_depends_on_its_seed_only_and_is_unbiased():
    model = make("Qwen2ForCausalLM")
    part = find("adapter", "lora")(r=4, dropout=0.25)
    part.attach(model.requires_grad_(False), 0, None)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    prompts, completions = rows()
    results = []
    for checkpointing, seed in [(False, 5), (True, 5), (False, 6)]:
        torch.manual_seed(len(results))
        decoder = PackedDecoder(model, part, checkpointing=checkpointing)
        logps = packed_logps(model, decoder, prompts, completions, dropout=Dropout(seed))
        results.append((logps.detach(), gradients(model, logps)))
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(g, results[1][1][name]) for name, g in results[0][1].items())
    assert not torch.equal(results[0][0], results[2][0])

    kept, probability = Dropout(1).kept(torch.empty(500, 1001), 0.05)
    assert abs(probability - 0.95) < 1e-5
    assert abs(kept.double().mean().item() - 0.95) < 5 * np.sqrt(0.05 * 0.95 / kept.numel())


def test_dropout_of_the_fused_layers_is_that_of_the_formula():
    """y = W x + s B A (mask x) / (1 - p), and its gradients by autograd."""
    from underdog.rl.learner import lora_linear

    model = make("Qwen2ForCausalLM")
    part = find("adapter", "lora")(r=4, alpha=8, dropout=0.25)
    part.attach(model.requires_grad_(False), 0, None)
    mlp = model.model.layers[0].mlp
    modules = [mlp.gate_proj, mlp.up_proj]
    x = torch.randn(6, 32, dtype=torch.float64, requires_grad=True)
    trained = [m.lora_A["default"].weight for m in modules] + [m.lora_B["default"].weight for m in modules]
    for parameter in trained:
        torch.nn.init.normal_(parameter)
    mask, probability = Dropout(9).kept(x, 0.25)
    plain = [
        x @ m.base_layer.weight.T
        + 2.0 * (mask * x / probability) @ m.lora_A["default"].weight.T @ m.lora_B["default"].weight.T
        for m in modules
    ]
    ours = lora_linear.apply(modules, x, Dropout(9))
    sent = [torch.randn_like(y) for y in plain]
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b)
    expected = torch.autograd.grad(plain, [x, *trained], sent)
    for a, b in zip(torch.autograd.grad(ours, [x, *trained], sent), expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-6, atol=1e-6)
