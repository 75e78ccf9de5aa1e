"""The adapter's scale by the root of its rank, and biases that are trained beside it, against PEFT and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from underdog.parts import UserError
from underdog.records import Batch, Group, Problem, Row, Sample, Verdict, Version
from underdog.rl.learner.adapters.qlora import QLora
from underdog.rl.learner.learner import Learner
from underdog.rl.learner.options import LearnerOptions
from underdog.rollouts.vllm.adapter import scaling


def reinforce(outputs, batch):
    return -(batch.weight_T * batch.advantage_T * outputs.logp_T).sum(), {}


@pytest.fixture
def make(tiny_shape):
    def make(adapter: Any, **options: Any) -> Learner:
        chosen = LearnerOptions.model_validate({"lr": 1e-2, "adapter": adapter, **options})
        return Learner(tiny_shape, chosen, seed=0, steps=9, device="cpu", log=lambda text: None)

    return make


def lora(**options: Any) -> dict[str, Any]:
    return {"name": "lora", "r": 4, "alpha": 8, "dropout": 0.0, **options}


def rows() -> tuple[Row, ...]:
    rng = np.random.default_rng(0)
    lengths = (5, 9, 60)  # few tokens and many: both ways through a LoRA layer
    return tuple(
        Row(rng.integers(3, 30, 4), rng.integers(3, 30, n), rng.normal(size=n).astype(np.float32), 1 / 3)
        for n in lengths
    )


def groups() -> list[Group]:
    samples = tuple(
        Sample("p", i, Version(0, ""), 0, row.prompt_ids, row.tokens_T, None, "", "eos") for i, row in enumerate(rows())
    )
    return [Group(Problem("p", "?"), samples, tuple(Verdict("right") for _ in samples))]


def annotated(learner: Learner, name: str) -> np.ndarray:
    return np.concatenate(learner.annotate(groups(), frozenset({name}))[0].annotations[name])


def teacher_forced(model: Any, row: Row) -> np.ndarray:
    ids = torch.from_numpy(np.concatenate([row.prompt_ids, row.tokens_T]))[None]
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, len(row.prompt_ids) - 1 : -1].float()
    return logits.log_softmax(-1).gather(-1, ids[0, len(row.prompt_ids) :, None])[:, 0].numpy()


def test_the_stabilised_scale_is_alpha_over_the_root_of_the_rank(make, tmp_path):
    """In the learner's own passes, in the merged weights, in what vLLM is told and in PEFT's reading of the folder."""
    from peft import PeftModel

    learner = make(lora(r=16, alpha=32, rslora=True))
    learner.update(Batch(rows()), reinforce, 1)
    modules = [m for m in learner._model.modules() if hasattr(m, "lora_A")]
    assert {m.scaling["default"] for m in modules} == {8.0}
    merged, base = dict(learner.policy.weights()), dict(learner.base_weights())
    name = "model.layers.0.self_attn.q_proj"
    owner = learner._base.get_submodule(name)
    product = owner.lora_B["default"].weight @ owner.lora_A["default"].weight
    torch.testing.assert_close(merged[f"{name}.weight"], base[f"{name}.weight"] + 8 * product)
    form = learner.policy.adapter()
    assert form is not None
    assert scaling(form[0], name, 16) == 8.0
    learner.save_adapter(tmp_path)
    loaded = PeftModel.from_pretrained(make("full")._base, str(tmp_path))
    ours = annotated(learner, "logp")
    np.testing.assert_allclose(ours, np.concatenate([teacher_forced(loaded, row) for row in rows()]), atol=1e-5)


def test_a_saved_adapter_of_another_scale_is_refused(make, tmp_path):
    make(lora()).save_adapter(tmp_path)
    options = LearnerOptions.model_validate({"adapter": lora(rslora=True)})
    with pytest.raises(UserError, match=r"rslora=False.*\.rslora"):
        Learner(
            make(lora())._name,
            options,
            seed=0,
            steps=1,
            device="cpu",
            init_adapter=str(tmp_path),
            log=lambda text: None,
        )


@pytest.mark.parametrize("bias", ["all", "lora_only"])
@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["q_proj", "k_proj", "v_proj"]])
def test_trained_biases_are_in_the_policy_and_not_in_the_reference(make, tmp_path, bias, targets):
    """Qwen2's queries, keys and values have biases; PEFT's `lora_only` leaves alone those that have no update."""
    from transformers import AutoModelForCausalLM

    learner = make(lora(bias=bias, targets=targets))
    start = {name: p.detach().clone() for name, p in learner.base_weights()}
    before = annotated(learner, "logp")
    np.testing.assert_array_equal(annotated(learner, "ref_logp"), before)
    learner.update(Batch(rows()), reinforce, 1)
    moved = {name for name, p in learner.base_weights() if not torch.equal(p, start[name])}
    own = ["q_proj", "k_proj", "v_proj"] if bias == "all" else targets
    assert moved == {f"model.layers.{i}.self_attn.{module}.bias" for i in (0, 1) for module in own}
    assert learner.policy.adapter() is None
    np.testing.assert_allclose(annotated(learner, "ref_logp"), before, atol=1e-6)
    after = annotated(learner, "logp")
    assert np.abs(after - before).max() > 1e-3
    assert learner.save_adapter(tmp_path) == "merged"
    merged = AutoModelForCausalLM.from_pretrained(tmp_path)
    np.testing.assert_allclose(after, np.concatenate([teacher_forced(merged, row) for row in rows()]), atol=1e-5)


def test_the_gradient_of_a_trained_bias_is_that_of_the_plain_model(make, monkeypatch):
    learner = make(lora(bias="all", targets=["q_proj", "v_proj"]), max_grad_norm=None)
    caught: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(
        learner._optimizer, "step", lambda: caught.update({n: p.grad.clone() for n, p in learner._masters.named})
    )
    learner.update(Batch(rows()), reinforce, 1)
    total = torch.zeros(())
    for row in rows():
        ids = torch.from_numpy(np.concatenate([row.prompt_ids, row.tokens_T]))[None]
        logits = learner._model(input_ids=ids).logits[0, len(row.prompt_ids) - 1 : -1]
        logp = logits.log_softmax(-1).gather(-1, ids[0, len(row.prompt_ids) :, None])[:, 0]
        total = total - row.weight * (torch.from_numpy(row.advantage_T) * logp).sum()
    total.backward()
    biases = {name: p for name, p in learner._masters.named if name.endswith("bias")}
    assert len(biases) == 6
    for name, parameter in biases.items():
        torch.testing.assert_close(caught[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_a_base_in_four_bits_has_no_trained_biases(make):
    with pytest.raises(UserError, match="bias=none"):
        QLora(bias="all").attach(make("full")._base, 0, None)


def test_adafactor_is_the_published_step(make):
    """One step from nothing: the factored second moment, the clip at a root mean square of 1, the rate as given."""
    learner = make("full", optimizer="adafactor", lr=1e-3, max_grad_norm=None)
    named = learner._masters.named
    start = {name: p.detach().double().clone() for name, p in named}
    gradients: dict[str, torch.Tensor] = {}
    step = learner._optimizer.step

    def noted() -> None:
        gradients.update({name: p.grad.double().clone() for name, p in named})
        step()

    learner._optimizer.step = noted
    learner.update(Batch(rows()), reinforce, 1)
    for name, parameter in named:
        square = gradients[name] ** 2 + 1e-30
        if square.dim() == 2:
            row, column = square.mean(1, keepdim=True), square.mean(0, keepdim=True)
            square = row * column / row.mean()
        update = gradients[name] / square.sqrt()
        update = update / max(1.0, float(update.pow(2).mean().sqrt()))
        torch.testing.assert_close(parameter.detach().double(), start[name] - 1e-3 * update, rtol=1e-4, atol=2e-6)


def test_a_state_that_is_not_shaped_as_the_parameters_is_not_sharded():
    with pytest.raises(ValidationError, match=r"learner\.ranks=1"):
        LearnerOptions.model_validate({"optimizer": "adafactor", "ranks": 2})
