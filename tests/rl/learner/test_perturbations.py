"""Perturbations in a learner: what the gradients then are, and that nothing stays moved."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from underdog.kernels.digest import tensors_digest
from underdog.parts import UserError
from underdog.records import Batch, Row
from underdog.rl.learner import lora_linear, shifts
from underdog.rl.learner.learner import Learner
from underdog.rl.learner.options import LearnerOptions

METHODS: dict[str, Any] = {
    "ggpo": {"name": "ggpo"},
    "ggpo-factors": {"name": "ggpo", "reading": "factors"},
    "ggpo-summed": {"name": "ggpo", "reading": "summed"},
    "mgpo": {"name": "mgpo"},
    "mgpo-code": {"name": "mgpo", "form": "code"},
    "sam": {"name": "sam"},
}
LORA = {"name": "lora", "r": 4, "alpha": 8, "dropout": 0.0}
INSIDE = ["ggpo", "ggpo-summed", "mgpo-code"]
"""Those that act inside the LoRA layers."""


def reinforce(outputs, batch):
    return -(batch.weight_T * batch.advantage_T * outputs.logp_T).sum(), {}


def clipped(outputs, batch):
    ratio = torch.exp(outputs.logp_T - batch.old_logp_T)
    limited = torch.minimum(batch.advantage_T * ratio, batch.advantage_T * ratio.clamp(0.8, 1.2))
    return -(batch.weight_T * limited).sum(), {"ratio": ratio.detach()}


@pytest.fixture
def make(tiny_shape: str) -> Callable[..., Learner]:
    def make(method: str | dict[str, Any] = "none", model: str = tiny_shape, **options: Any) -> Learner:
        block = METHODS.get(method, method) if isinstance(method, str) else method
        parsed = LearnerOptions.model_validate({"lr": 1e-2, "adapter": LORA, "perturbation": block, **options})
        return Learner(model, parsed, seed=0, steps=10, device="cpu", log=lambda text: None)

    return make


def batch_of(seed: int = 0, **options: Any) -> Batch:
    draw = np.random.default_rng(seed)
    prompts = [draw.integers(3, 30, n) for n in (4, 9)]
    rows = []
    for i in range(8):
        length = int(draw.integers(1, 14))
        advantage = draw.normal(size=length).astype(np.float32)
        rows.append(Row(prompts[i % 2], draw.integers(3, 30, length), advantage, 0.125))
    return Batch(tuple(rows), **options)


def tensors(learner: Learner) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in learner.state_dict()["tensors"].items()}


def gradients(learner: Learner, step: int, monkeypatch: pytest.MonkeyPatch, batch: Batch | None = None) -> Any:
    """What the optimizer gets at `step`, which it then does not take."""
    caught: dict[str, Tensor] = {}

    def instead() -> None:
        caught.update({name: t.grad.clone() for name, t in learner._masters.named if t.grad is not None})

    with monkeypatch.context() as patch:
        patch.setattr(learner._optimizer, "step", instead)
        learner.update(batch or batch_of(step), reinforce, step)
    return caught


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


# What every perturbation keeps


@pytest.mark.parametrize("name", METHODS)
def test_at_zero_it_is_the_inner_optimizer_bit_for_bit(name: str, make: Any) -> None:
    zero = {"sigma": 0.0} if METHODS[name]["name"] == "ggpo" else {"rho": 0.0}
    plain, other = make(), make({**METHODS[name], **zero})
    for step in (1, 2, 3):
        batch = batch_of(step, epochs=step)
        assert plain.update(batch, clipped, step) == other.update(batch, clipped, step)
    assert same(tensors(plain), tensors(other))


@pytest.mark.parametrize("name", METHODS)
def test_it_does_move_the_gradients(name: str, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, other = make(), make(name)
    for step in (1, 2):
        other.update(batch_of(step), reinforce, step)
    plain.load_state_dict(other.state_dict())
    expected, found = (gradients(learner, 3, monkeypatch) for learner in (plain, other))
    gap = math.sqrt(sum(float((found[key] - expected[key]).square().sum()) for key in found))
    assert gap > 1e-3 * math.sqrt(sum(float(gradient.square().sum()) for gradient in expected.values()))
    assert other.update(batch_of(3), reinforce, 3)["perturbation/norm"] > 0


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("dtype", "checkpointing"), [("float32", False), ("bfloat16", True)])
def test_every_weight_has_its_bits_again(
    name: str, dtype: str, checkpointing: bool, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make(name, dtype=dtype, gradient_checkpointing=checkpointing)
    own = {id(p) for _, p in learner._trained}
    frozen = [(n, p) for n, p in learner._base.named_parameters() if id(p) not in own]
    base = tensors_digest(frozen)
    for step in (1, 2):
        learner.update(batch_of(step, epochs=2, minibatch=3), clipped, step)
    assert tensors_digest(frozen) == base
    before, digest = tensors(learner), learner.policy.digest()
    for step in (3, 4):
        gradients(learner, step, monkeypatch)
    state = tensors(learner)
    assert same(*({n: t for n, t in s.items() if not n.startswith("perturbation/")} for s in (before, state)))
    assert learner.policy.digest() == digest


@pytest.mark.parametrize("name", ["mgpo", "sam"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_full_training_has_its_bits_again(name: str, dtype: str, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = make(name, adapter="full", dtype=dtype)
    learner.update(batch_of(), clipped, 1)
    before, digest = tensors(learner), learner.policy.digest()
    gradients(learner, 2, monkeypatch)
    assert same(before, tensors(learner))
    assert learner.policy.digest() == digest


@pytest.mark.parametrize("name", METHODS)
def test_weights_are_put_back_when_a_pass_fails(name: str, make: Any) -> None:
    def broken(outputs: Any, batch: Any) -> Any:
        raise KeyboardInterrupt

    learner = make(name)
    learner.update(batch_of(), reinforce, 1)
    before = learner.policy.digest()
    with pytest.raises(KeyboardInterrupt):
        learner.update(batch_of(), broken, 2)
    assert learner.policy.digest() == before
    assert not any(shifts.KEY in vars(module) for module in learner._base.modules())


@pytest.mark.parametrize("name", METHODS)
def test_a_saved_state_goes_on_bit_for_bit(name: str, make: Any) -> None:
    straight, first = make(name), make(name)
    options = {"epochs": 2, "minibatch": 5}
    for step in (1, 2):
        for learner in (straight, first):
            learner.update(batch_of(step, **options), clipped, step)
    state = first.state_dict()
    resumed = make(name)
    resumed.load_state_dict(
        {
            "tensors": {k: v.clone() for k, v in state["tensors"].items()},
            "json": json.loads(json.dumps(state["json"])),
        }
    )
    for step in (3, 4):
        batch = batch_of(step, **options)
        assert straight.update(batch, clipped, step) == resumed.update(batch, clipped, step)
    assert same(tensors(straight), tensors(resumed))
    assert straight.state_dict()["json"] == resumed.state_dict()["json"]


@pytest.mark.parametrize("name", METHODS)
def test_micro_batches_and_recomputed_layers_meet_one_move(
    name: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row at a time, the noise acts beside the weights, tile by tile; all rows at once, in the merged ones."""
    monkeypatch.setattr(lora_linear, "TILE", 300)
    whole, parts = make(name), make(name, tokens=1, gradient_checkpointing=True)
    whole.update(batch_of(), reinforce, 1)
    parts.load_state_dict(whole.state_dict())
    expected = gradients(whole, 2, monkeypatch)
    for tensor_name, gradient in gradients(parts, 2, monkeypatch).items():
        torch.testing.assert_close(gradient, expected[tensor_name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_old_log_probs_are_those_of_the_unmoved_weights(name: str, make: Any) -> None:
    learner = make(name)
    for step in (1, 2):
        learner.update(batch_of(step), reinforce, step)
    batch, seen = batch_of(3), []
    plain = make()
    plain.load_state_dict(learner.state_dict())
    unmoved = plain._logps([r.prompt_ids for r in batch.rows], [r.tokens_T for r in batch.rows])

    def noted(outputs: Any, micro: Any) -> Any:
        seen.append((outputs.logp_T.detach(), micro.old_logp_T))
        return clipped(outputs, micro)

    learner.update(batch, noted, 3)
    total = float(np.concatenate(unmoved).sum())
    for _, old_T in seen:
        assert float(old_T.sum()) == pytest.approx(total, abs=1e-4)
    new_T, old_T = seen[-1]
    assert (new_T - old_T).abs().max() > 1e-4


def test_what_is_known_or_not_wanted_is_not_computed_again(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from underdog.records import Group, Problem, Sample, Verdict, Version
    from underdog.rl.algorithms.grpo import GRPO
    from underdog.rl.algorithms.supervised import Supervised

    samples = tuple(
        Sample("p", i, Version(0, ""), 0, r.prompt_ids, r.tokens_T, None, "", "eos")
        for i, r in enumerate(batch_of().rows)
    )
    group = Group(Problem("p", "?"), samples, tuple(Verdict("right") for _ in samples), rewards_G=np.arange(8.0))
    learner, plain, grpo = make("ggpo"), make(), GRPO.model_validate({"kl": 0.0})
    annotated = learner.annotate([group], frozenset({"logp"}))
    rows = grpo.advantages(annotated).rows
    assert all(row.old_logp_T is known for row, known in zip(rows, annotated[0].annotations["logp"], strict=True))
    rows = grpo.advantages(plain.annotate([group], frozenset({"logp"}))).rows
    assert all(row.old_logp_T is None for row in rows), "without a perturbation they are the detached new ones"
    passes = []
    real = learner._scores
    monkeypatch.setattr(learner, "_scores", lambda *arguments: passes.append(1) or real(*arguments))
    supervised = Supervised()
    learner.update(supervised.advantages([group]), supervised.loss, 1)
    learner.update(grpo.advantages(annotated), grpo.loss, 2)
    assert passes == []
    learner.update(grpo.advantages([group]), grpo.loss, 3)
    assert passes == [1]


@pytest.mark.parametrize("name", METHODS)
def test_dropout_and_moves_go_together(name: str, make: Any) -> None:
    """Small micro-batches and dropout's masks: an update is a function of the state, and finite."""
    ends = []
    for _ in range(2):
        learner = make(name, adapter={**LORA, "dropout": 0.3}, tokens=40)
        for step in (1, 2, 3):
            stats = learner.update(batch_of(step), clipped, step)
            assert math.isfinite(stats["grad_norm"])
        ends.append(learner.policy.digest())
    assert ends[0] == ends[1]


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Gradients of a plain learner whose base weights were changed by hand to the moved ones."""

    def of(moved: Learner, plain: Learner, step: int) -> dict[str, Tensor]:
        state = moved.state_dict()
        plain.load_state_dict(state)
        caught: dict[str, Any] = {}
        real = shifts.shifted
        layers = {layer.module: name for name, layer in ((x.name, x) for x in _layers(moved))}

        def noted(found: Any) -> Any:
            caught.update({layers[module]: shift for module, shift in found.items()})
            return real(found)

        monkeypatch.setattr(shifts, "shifted", noted)
        caught["gradients"] = gradients(moved, step, monkeypatch)
        for layer in _layers(plain):
            shift, weight = caught[layer.name], layer.module.base_layer.weight
            with torch.no_grad():
                if isinstance(shift, shifts.Turn):
                    weight += shift.scale * (shift.up_OR @ layer.down + layer.up @ shift.down_RH)
                else:
                    shift.add_(weight)
        return caught["gradients"]

    return of


def _layers(learner: Learner) -> list[shifts.Layer]:
    return shifts.layers(learner._base, dict(learner._masters.named))


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize(("budget", "dropout"), [(4096, 0.0), (60, 0.3)])
def test_gradients_are_those_of_a_model_whose_base_weights_were_changed(
    name: str, budget: int, dropout: float, make: Any, reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the turn's own A and B: a turn is held still while gradients are taken."""
    options = {"adapter": {**LORA, "dropout": dropout}, "tokens": budget, "max_grad_norm": None}
    block = {**METHODS[name], **({"rho": 0.5} if name == "mgpo-code" else {})}
    moved, plain = make(block, **options), make(**options)
    for step in (1, 2, 3):
        moved.update(batch_of(step), reinforce, step)
    found = reference(moved, plain, 4)
    unmoved = gradients(make(**options), 4, monkeypatch)
    for key, gradient in gradients(plain, 4, monkeypatch).items():
        assert (found[key] - gradient).norm() <= 1e-4 * gradient.norm(), key
    assert max(float((found[k] - unmoved[k]).abs().max()) for k in found) > 1e-4


def test_sam_takes_the_gradient_uphill(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sam, plain = make({"name": "sam", "rho": 0.1}, max_grad_norm=None), make(max_grad_norm=None)
    for step in (1, 2):
        plain.update(batch_of(step), reinforce, step)
    sam.load_state_dict(plain.state_dict())
    found = gradients(sam, 3, monkeypatch)
    there = gradients(plain, 3, monkeypatch)
    norm = torch.cat([g.flatten() for g in there.values()]).norm()
    with torch.no_grad():
        for name, parameter in plain._masters.named:
            parameter += 0.1 * there[name] / norm
    for name, gradient in gradients(plain, 3, monkeypatch).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(found, there, rtol=1e-3, atol=1e-6)


def test_sam_tallies_the_pass_at_the_weights_alone(make: Any) -> None:
    sam, plain = make("sam"), make()
    a, b = (learner.update(batch_of(), reinforce, 1) for learner in (sam, plain))
    for name in ("entropy", "loss", "tokens"):
        assert a[name] == b[name]
    assert a["grad_norm"] != b["grad_norm"]


# Where it cannot be


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("ggpo", {"adapter": "full"}, "learner.adapter=lora"),
        ("ggpo-factors", {"adapter": "full"}, "learner.adapter=lora"),
        ("mgpo-code", {"adapter": "full"}, "learner.adapter=lora"),
        ("ggpo", {"padded": True}, "learner.perturbation.reading=factors"),
        ("mgpo-code", {"padded": True}, "learner.perturbation.form=paper"),
    ],
)
def test_where_it_has_no_place_one_sentence_says_what_to_set(
    name: str, options: Any, words: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from underdog.rl.learner import learner as module

    if options.pop("padded", False):
        monkeypatch.setattr(module.PackedDecoder, "knows", staticmethod(lambda model: False))
    with pytest.raises(UserError, match=words):
        make(name, **options)


@pytest.mark.parametrize("name", ["ggpo-factors", "mgpo", "sam"])
def test_other_architectures_take_what_moves_trained_tensors(
    name: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from underdog.rl.learner import learner as module

    packed = make(name)
    packed.update(batch_of(), reinforce, 1)
    monkeypatch.setattr(module.PackedDecoder, "knows", staticmethod(lambda model: False))
    padded = make(name)
    padded.load_state_dict(packed.state_dict())
    expected = gradients(packed, 2, monkeypatch)
    for key, gradient in gradients(padded, 2, monkeypatch).items():
        torch.testing.assert_close(gradient, expected[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_a_gradient_that_is_not_finite_leaves_no_trace(name: str, make: Any) -> None:
    def broken(outputs: Any, batch: Any) -> Any:
        return outputs.logp_T.sum() * float("nan"), {}

    learner = make(name)
    learner.update(batch_of(), reinforce, 1)
    learner.update(batch_of(), reinforce, 2)
    before, numbers = tensors(learner), json.dumps(learner.state_dict()["json"]["perturbation"])
    assert learner.update(batch_of(), broken, 3)["updates/skipped"] == 1
    assert same(before, tensors(learner))
    assert json.dumps(learner.state_dict()["json"]["perturbation"]) == numbers
