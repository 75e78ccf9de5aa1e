from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch

from underdog.kernels.digest import tensors_digest
from underdog.kernels.logprob import token_logprobs
from underdog.parts import UserError
from underdog.records import Batch, Group, Problem, Row, Sample, Verdict, Version
from underdog.rl.learner.learner import Learner
from underdog.rl.learner.options import LearnerOptions


def reinforce(outputs, batch):
    return -(batch.weight_T * batch.advantage_T * outputs.logp_T).sum(), {"twice": 2 * outputs.logp_T.detach()}


def clipped(outputs, batch):
    ratio = torch.exp(outputs.logp_T - batch.old_logp_T)
    return -(batch.weight_T * batch.advantage_T * ratio).sum(), {"ratio": ratio.detach()}


@pytest.fixture
def make(tiny_shape):
    def make(seed: int = 0, steps: int = 10, model: str = tiny_shape, **options: Any) -> Learner:
        options = {"lr": 1e-2, "adapter": {"name": "lora", "r": 4, "alpha": 8, "dropout": 0.0}, **options}
        return Learner(
            model, LearnerOptions.model_validate(options), seed=seed, steps=steps, device="cpu", log=lambda text: None
        )

    return make


def make_batch(seed: int = 0, engine: bool = True, **options: Any) -> Batch:
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(3, 30, n) for n in (4, 9)]
    rows = []
    for i in range(8):
        length = int(rng.integers(1, 14))
        logp = np.log(rng.uniform(0.01, 0.1, length)).astype(np.float32)
        advantage = rng.normal(size=length).astype(np.float32)
        tokens = rng.integers(3, 30, length)
        rows.append(Row(prompts[i % 2], tokens, advantage, 0.125, engine_logp_T=logp if engine else None))
    return Batch(tuple(rows), **options)


def make_groups(batch: Batch) -> list[Group]:
    version = Version(0, "")
    groups = []
    for part in (batch.rows[::2], batch.rows[1::2]):
        samples = tuple(
            Sample("p", i, version, 0, r.prompt_ids, r.tokens_T, r.engine_logp_T, "", "eos") for i, r in enumerate(part)
        )
        groups.append(Group(Problem("p", "?"), samples, tuple(Verdict("right") for _ in samples)))
    return groups


def tensors(learner: Learner) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in learner.state_dict()["tensors"].items()}


def gradients(learner: Learner, batch: Batch, monkeypatch, loss=reinforce) -> dict[str, torch.Tensor]:
    """Of the first optimizer step, caught as the optimizer gets them."""
    caught: dict[str, torch.Tensor] = {}

    def step() -> None:
        caught.update({n: p.grad.clone() for n, p in learner._masters.named if p.grad is not None})

    monkeypatch.setattr(learner._optimizer, "step", step)
    learner.update(batch, loss, 1)
    return caught


def teacher_forced(model, row: Row) -> torch.Tensor:
    ids = torch.from_numpy(np.concatenate([row.prompt_ids, row.tokens_T]))[None]
    logits = model(input_ids=ids).logits[0, len(row.prompt_ids) - 1 : -1].float()
    return logits.log_softmax(-1).gather(-1, ids[0, len(row.prompt_ids) :, None])[:, 0]


def test_an_update_raises_what_was_rewarded_and_reports(make):
    learner, batch = make(), make_batch()
    before = learner.annotate(make_groups(batch), frozenset({"logp"}))
    stats = learner.update(batch, reinforce, 1)
    after = learner.annotate(make_groups(batch), frozenset({"logp"}))
    gain = 0.0
    for old, new, rows in zip(before, after, (batch.rows[::2], batch.rows[1::2]), strict=True):
        for a, b, row in zip(old.annotations["logp"], new.annotations["logp"], rows, strict=True):
            gain += float(((b - a) * row.advantage_T).sum())
    assert gain > 0
    logps = np.concatenate([a for g in before for a in g.annotations["logp"]])
    assert stats["twice"] == pytest.approx(2 * logps.mean(), rel=1e-5)
    assert stats["tokens"] == len(logps)
    gap = logps - np.concatenate([s.logp_T for g in before for s in g.samples])
    assert stats["mismatch_kl"] == pytest.approx(np.mean(np.expm1(gap) - gap), rel=1e-3)
    assert stats["mismatch_gap"] == pytest.approx(np.abs(gap).max(), rel=1e-4)
    assert stats["updates/steps"] == 1
    assert learner.policy.number == 1
    assert json.dumps(stats, allow_nan=False)


def test_annotations_are_the_models_own_log_probs(make):
    learner, batch = make(), make_batch()
    learner.update(batch, reinforce, 1)
    groups = learner.annotate(make_groups(batch), frozenset({"logp", "ref_logp", "entropy"}))
    assert set(groups[0].annotations) == {"logp", "ref_logp"}
    for name in ("logp", "ref_logp"):
        with torch.no_grad(), learner._options.adapter.off(learner._model) if name == "ref_logp" else torch.no_grad():
            expected = [teacher_forced(learner._model, row).numpy() for row in batch.rows]
        found: list[Any] = [None] * 8
        found[::2], found[1::2] = groups[0].annotations[name], groups[1].annotations[name]
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)
            assert a.dtype == np.float32
    again = learner.annotate(groups, frozenset({"logp"}))
    assert again[0].annotations["logp"] is groups[0].annotations["logp"]


def test_full_reference_is_the_base_as_it_was(make):
    learner = make(adapter="full")
    batch = make_batch()
    before = learner.annotate(make_groups(batch), frozenset({"logp"}))
    learner.update(batch, reinforce, 1)
    after = learner.annotate(make_groups(batch), frozenset({"logp", "ref_logp"}))
    for a, b in zip(before[0].annotations["logp"], after[0].annotations["ref_logp"], strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(before[0].annotations["logp"][0], after[0].annotations["logp"][0])


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_the_gradient_does_not_depend_on_the_token_budget(make, adapter, monkeypatch):
    block = {"name": "lora", "r": 4, "alpha": 8, "dropout": 0.0} if adapter == "lora" else "full"
    results = [gradients(make(adapter=block, tokens=n), make_batch(), monkeypatch) for n in (1, 20, 4096)]
    for other in results[1:]:
        assert results[0].keys() == other.keys()
        for name, gradient in other.items():
            torch.testing.assert_close(gradient, results[0][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_gradient_is_that_of_the_plain_loss(make, monkeypatch, checkpointing):
    learner, batch = make(adapter="full", gradient_checkpointing=checkpointing), make_batch()
    found = gradients(learner, batch, monkeypatch)
    model = learner._model
    terms = [row.weight * (torch.from_numpy(row.advantage_T) * teacher_forced(model, row)).sum() for row in batch.rows]
    torch.stack(terms).sum().neg().backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    for name, parameter in model.named_parameters():
        expected = parameter.grad / max(1.0, norm.item())
        torch.testing.assert_close(found[name], expected, rtol=1e-3, atol=1e-5)


def test_minibatches_use_every_row_once_an_epoch_at_the_size_of_a_whole_step(make, monkeypatch):
    learner, batch = make(max_grad_norm=None), make_batch()
    whole = gradients(learner, batch, monkeypatch)
    total: dict[str, torch.Tensor] = {}

    def step() -> None:
        for name, parameter in learner._masters.named:
            total[name] = total.get(name, 0) + parameter.grad / 4

    monkeypatch.setattr(learner._optimizer, "step", step)
    stats = learner.update(dataclasses.replace(batch, minibatch=2), reinforce, 1)
    assert stats["updates/steps"] == 4
    for name, gradient in whole.items():
        torch.testing.assert_close(total[name], gradient, rtol=1e-4, atol=1e-6)


def test_with_several_steps_a_batch_old_log_probs_stay_those_of_the_start(make):
    learner, batch = make(), make_batch(epochs=3)
    start = [teacher_forced(learner._model, row).detach() for row in batch.rows]
    seen = []

    def loss(outputs, micro):
        seen.append(micro.old_logp_T)
        return clipped(outputs, micro)

    stats = learner.update(batch, loss, 1)
    assert stats["updates/steps"] == 3
    assert stats["ratio"] != pytest.approx(1, abs=1e-4)
    assert all(torch.equal(old, seen[0]) for old in seen)
    torch.testing.assert_close(seen[0].sum(), torch.cat(start).sum(), rtol=1e-4, atol=1e-4)


def test_tokens_that_only_fill_a_micro_batch_change_no_gradient(make, monkeypatch):
    """bfloat16 micro-batches are filled up to few sizes; in float32 the comparison is exact enough to see it."""
    batch = make_batch()
    plain = gradients(make(), batch, monkeypatch)
    learner = make()
    learner._multiple = 50
    for name, gradient in gradients(learner, batch, monkeypatch).items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-4, atol=1e-7)


def test_prompts_and_samples_without_advantage_send_nothing(make, monkeypatch):
    """Whatever the prompt's own log-probs are, only the completions' count."""
    rows = [dataclasses.replace(row, advantage_T=row.advantage_T * 0) for row in make_batch().rows]
    found = gradients(make(), Batch(tuple(rows)), monkeypatch)
    assert all(not gradient.any() for gradient in found.values())


def test_abnormal_steps_are_left_out_and_counted(make):
    learner = make(skip_grad_norm=1e-9)
    before = tensors(learner)
    stats = learner.update(make_batch(), reinforce, 1)
    assert (stats["updates/skipped"], stats["updates/steps"]) == (1, 0)
    assert stats["grad_norm"] > 1e-9
    assert all(torch.equal(v, before[k]) for k, v in tensors(learner).items())

    def broken(outputs, batch):
        return outputs.logp_T.sum() * float("nan"), {}

    learner = make()
    stats = learner.update(make_batch(), broken, 1)
    assert stats["updates/skipped"] == 1
    assert all(torch.isfinite(v).all() for v in tensors(learner).values())


def test_gradients_are_clipped(make, monkeypatch):
    free = gradients(make(max_grad_norm=None), make_batch(), monkeypatch)
    held = gradients(make(max_grad_norm=1e-3), make_batch(), monkeypatch)
    norm = torch.cat([g.flatten() for g in free.values()]).norm().item()
    for name, gradient in held.items():
        torch.testing.assert_close(gradient, free[name] * (1e-3 / norm), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("adapter", [{"name": "lora", "r": 4, "dropout": 0.1}, "full"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_a_saved_state_goes_on_bit_for_bit(make, adapter, dtype, optimizer):
    options = {"adapter": adapter, "dtype": dtype, "schedule": {"name": "cosine", "warmup": 0.2}}
    options["optimizer"] = optimizer
    straight, first = make(**options), make(**options)
    for learner in (straight, first):
        for step in (1, 2):
            learner.update(make_batch(step), clipped, step)
    state = first.state_dict()
    state = {
        "tensors": {k: v.clone() for k, v in state["tensors"].items()},
        "json": json.loads(json.dumps(state["json"])),
    }
    resumed = make(**options)
    resumed.load_state_dict(state)
    assert resumed.policy.digest() == first.policy.digest()
    assert resumed.policy.number == 2
    for step in (3, 4):
        a = straight.update(make_batch(step), clipped, step)
        b = resumed.update(make_batch(step), clipped, step)
        assert a == b
    one, two = tensors(straight), tensors(resumed)
    assert one.keys() == two.keys()
    assert all(torch.equal(v, two[k]) for k, v in one.items())
    assert straight.policy.digest() == resumed.policy.digest() != first.policy.digest()


def test_the_base_stays_bit_identical_and_defines_the_digest(make):
    learner = make()
    own = {id(p) for _, p in learner._trained}
    frozen = [(n, p) for n, p in learner._base.named_parameters() if id(p) not in own]
    before, start = tensors_digest(frozen), learner.policy.digest()
    learner.update(make_batch(), reinforce, 1)
    assert tensors_digest(frozen) == before
    assert learner.policy.digest() != start
    assert make().policy.digest() == start
    assert make(seed=1).policy.digest() != start


def test_bfloat16_weights_move_by_less_than_their_own_rounding(make):
    """Ten steps of a thousandth of a rounding step each are lost without float32 masters."""
    learner = make(adapter="full", dtype="bfloat16", lr=1e-6)
    start = {n: p.clone() for n, p in learner._masters.named}
    for step in range(1, 11):
        learner.update(make_batch(step), reinforce, step)
    moved = torch.cat([(p - start[n]).abs().flatten() for n, p in learner._masters.named])
    assert 2e-6 < moved[moved > 0].median() < 2e-5
    for (_, weight), (_, master) in zip(learner._trained, learner._masters.named, strict=True):
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight, master.to(torch.bfloat16))


def test_bfloat16_is_near_float32(make):
    stats = [make(dtype=d).update(make_batch(), reinforce, 1) for d in ("float32", "bfloat16")]
    assert stats[0]["entropy"] == pytest.approx(stats[1]["entropy"], rel=0.01)
    assert stats[0]["grad_norm"] == pytest.approx(stats[1]["grad_norm"], rel=0.1)


def test_the_adapter_folder_loads_in_peft_with_the_same_logits(make, tmp_path):
    from peft import PeftModel

    learner = make()
    learner.update(make_batch(), reinforce, 1)
    assert learner.save_adapter(tmp_path / "adapter") == "adapter"
    loaded = PeftModel.from_pretrained(fresh_base(make), str(tmp_path / "adapter"))
    row = make_batch().rows[1]
    with torch.no_grad():
        torch.testing.assert_close(teacher_forced(loaded, row), teacher_forced(learner._model, row))
    config, state = learner.policy.adapter()
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (4, 8, "LORA")
    assert all(name.startswith("base_model.model.model.layers.") for name in state)
    again = make()
    other = Learner(
        again._name, again._options, seed=0, steps=1, device="cpu", init_adapter=str(tmp_path / "adapter"), log=print
    )
    assert other.policy.digest() == learner.policy.digest()


def fresh_base(make):
    """The base without any adapter."""
    return make(adapter="full")._base


def test_the_merged_folder_is_the_policy(make, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    learner = make()
    for step in (1, 2, 3):
        learner.update(make_batch(step), reinforce, step)
    learner.save_merged(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    row = make_batch().rows[0]
    with torch.no_grad():
        torch.testing.assert_close(
            teacher_forced(model, row), teacher_forced(learner._model, row), atol=1e-5, rtol=1e-5
        )
    weights = dict(learner.policy.weights())
    assert {n for n, _ in model.named_parameters()} == set(weights)
    assert AutoTokenizer.from_pretrained(tmp_path).decode([5, 6]) == learner.tokenizer.decode([5, 6])
    reloaded = make(model=str(tmp_path))
    with torch.no_grad():
        assert torch.equal(teacher_forced(reloaded._model, row), teacher_forced(model, row))


def test_an_unknown_architecture_is_padded_and_learns_the_same(make, monkeypatch):
    from underdog.rl.learner import learner as module

    expected = gradients(make(), make_batch(), monkeypatch)
    monkeypatch.setattr(module.PackedDecoder, "knows", staticmethod(lambda model: False))
    said: list[str] = []
    known = make()
    other = Learner(known._name, known._options, seed=0, steps=1, device="cpu", log=said.append)
    assert len(said) == 1
    assert "qwen2" in said[0]
    for name, gradient in gradients(other, make_batch(), monkeypatch).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


def test_entropy_gradients_flow_only_where_asked(make, monkeypatch):
    def bonus(outputs, batch):
        return reinforce(outputs, batch)[0] - outputs.entropy_T.sum(), {}

    plain = gradients(make(max_grad_norm=None), make_batch(), monkeypatch, reinforce)
    without = gradients(make(max_grad_norm=None), make_batch(), monkeypatch, bonus)
    assert all(torch.equal(plain[n], without[n]) for n in plain)
    learner = make()
    before = learner.update(make_batch(), bonus, 1, frozenset({"entropy"}))["entropy"]
    assert learner.update(make_batch(), bonus, 2, frozenset({"entropy"}))["entropy"] != pytest.approx(before, abs=1e-7)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"adapter": {"name": "lora", "targets": ["q_projj"]}}, "q_proj"),
        ({"adapter": {"name": "lora", "targets": ["lm_head"]}}, "head"),
        ({"adapter": {"name": "lora", "targets": ["embed_tokens"]}}, "embedding"),
        ({"model": "/nowhere/model"}, "no folder"),
        ({"model": "shape:tiny-reasonerr"}, "shape:tiny-reasoner"),
    ],
)
def test_bad_input_is_one_sentence(make, options, words):
    with pytest.raises(UserError, match=words):
        make(**options)


def test_a_folder_without_an_adapter_is_refused(make, tmp_path):
    known = make()
    with pytest.raises(UserError, match="adapter_model.safetensors"):
        Learner(known._name, known._options, seed=0, steps=1, device="cpu", init_adapter=tmp_path, log=print)
    known.save_adapter(tmp_path)
    other = LearnerOptions.model_validate({"adapter": {"name": "lora", "r": 8}})
    with pytest.raises(UserError, match="r=4"):
        Learner(known._name, other, seed=0, steps=1, device="cpu", init_adapter=tmp_path, log=print)


def test_qlora_says_what_to_install(make):
    pytest.importorskip("torch")
    import importlib.util

    if importlib.util.find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is installed")
    with pytest.raises(UserError, match="pip install bitsandbytes"):
        make(adapter="qlora")


def test_token_logprobs_is_what_the_learner_reports(make):
    """The head that the learner hands to the kernel is the model's own."""
    learner, row = make(), make_batch().rows[1]
    ids = torch.from_numpy(np.concatenate([row.prompt_ids, row.tokens_T]))[None]
    with torch.no_grad():
        hidden = learner._model.get_base_model().model(input_ids=ids).last_hidden_state[0, len(row.prompt_ids) - 1 : -1]
        logp, *_ = token_logprobs(hidden, learner._base.lm_head.weight, torch.from_numpy(row.tokens_T))
        torch.testing.assert_close(logp, teacher_forced(learner._model, row), rtol=1e-5, atol=1e-5)


def test_an_empty_completion_has_no_log_probs_and_disturbs_no_other(make):
    learner = make()
    (group, *_) = make_groups(make_batch())
    empty = dataclasses.replace(group.samples[1], tokens_T=np.zeros(0, np.int64))
    samples = (group.samples[0], empty, *group.samples[2:])
    wanted, found = learner.logps(list(group.samples)), learner.logps(list(samples))
    assert len(found[1]) == 0
    for i in (0, 2, 3):
        np.testing.assert_allclose(found[i], wanted[i], atol=1e-6)
