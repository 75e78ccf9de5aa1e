"""Perturbations: what moves, by how much, what the gradients then are, and that nothing stays moved."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from underdog.kernels.digest import tensors_digest
from underdog.parts import UserError, find
from underdog.records import Batch, Row
from underdog.rl.learner import lora_linear, shifts
from underdog.rl.learner.learner import Learner
from underdog.rl.learner.masters import Masters
from underdog.rl.learner.options import LearnerOptions
from underdog.rl.learner.perturbations.base import Perturbing, Site
from underdog.rl.learner.tally import Tally

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


# What moves, by how much


class Bench:
    """One LoRA layer of a plain model, and a perturbation of it."""

    def __init__(self, outputs: int, inputs: int, r: int, bias: bool = True) -> None:
        torch.manual_seed(1)
        model: Any = nn.Sequential(nn.Linear(inputs, outputs, bias=bias))
        model.requires_grad_(False)
        self.base = model
        get_peft_model(model, LoraConfig(r=r, lora_alpha=3 * r, target_modules=["0"]))  # type: ignore[arg-type]
        self.layer: Any = model[0]
        nn.init.normal_(self.layer.lora_B["default"].weight, std=0.3)
        self.masters = Masters([(n, p) for n, p in model.named_parameters() if p.requires_grad])
        self.optimizer = torch.optim.AdamW([p for _, p in self.masters.named], lr=1e-3)
        self.down, self.up = (getattr(self.layer, f"lora_{s}")["default"].weight for s in "AB")
        self.x = torch.randn(inputs + outputs, inputs)
        self.sent = torch.randn(inputs + outputs, outputs)
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def build(self, block: dict[str, Any]) -> Perturbing:
        options = find("perturbation", block["name"]).model_validate({k: v for k, v in block.items() if k != "name"})
        return options.build(Site(self.base, self.masters, self.masters.named, self.optimizer, seed=5, packed=True))

    def take(self, tally: Tally) -> float:
        """Notes the effective weight and the factors at which the gradients are taken."""
        eye = torch.eye(self.x.shape[1])
        weight = [lora_linear.apply([self.layer], part, None)[0] for part in eye.split(8)]
        bias = 0 if self.layer.base_layer.bias is None else self.layer.base_layer.bias
        effective = (torch.cat(weight) - bias).t().detach()
        self.seen.append((effective, self.down.detach().clone(), self.up.detach().clone()))
        (y,) = lora_linear.apply([self.layer], self.x, None)
        (y * self.sent).sum().backward()
        return 0.0

    def step(self, perturbing: Perturbing, step: int) -> None:
        perturbing.gradients(self.take, Tally(), (step, 0, 0))

    def effective(self) -> Tensor:
        scale = self.layer.scaling["default"]
        return (self.layer.base_layer.weight + scale * self.up @ self.down).detach()

    def gradient(self) -> Tensor:
        """Of both factors, in float64."""
        return torch.cat([p.grad.flatten() for _, p in self.masters.named if p.grad is not None]).double()

    def merged_gradient(self) -> Tensor:
        """s (B dA + dB A), in float64."""
        b, a, db, da = (t.detach().double() for t in (self.up, self.down, self.up.grad, self.down.grad))
        return self.layer.scaling["default"] * (b @ da + db @ a)


def row_norms(matrix: Tensor) -> Tensor:
    return matrix.double().norm(dim=1)


def check_variances(draws_NOH: Tensor, variance_O: Tensor) -> None:
    """Within 5 standard errors in each row, z-scores of variance 0.8 to 1.2, and 2 % over all."""
    draws_O = draws_NOH.shape[0] * draws_NOH.shape[2]
    ratio_O = draws_NOH.double().square().mean((0, 2)) / variance_O
    z_O = (ratio_O - 1) / math.sqrt(2 / draws_O)
    assert z_O.abs().max() < 5
    assert 0.8 < z_O.var() < 1.2
    assert abs(ratio_O.mean() - 1) < 0.02


@pytest.mark.parametrize("reading", ["effective", "summed"])
@pytest.mark.parametrize("known", [False, True], ids=["first", "later"])
def test_the_noise_on_the_effective_weight_has_the_formulas_variance(reading: str, known: bool) -> None:
    """n = 256, 200 optimizer steps, each of 512 rows by the formula in float64."""
    bench, sigma, beta = Bench(512, 256, r=4), 0.05, 1e-4 if reading == "effective" else 1e-3
    perturbing = bench.build({"name": "ggpo", "reading": reading, "sigma": sigma, "beta": beta})
    gradient_O = torch.zeros(512, dtype=torch.float64)
    if known:
        bench.step(perturbing, 0)
        gradient_O = row_norms(bench.merged_gradient())
    weight = bench.effective()
    base_O, update_O = row_norms(bench.layer.base_layer.weight), row_norms(weight - bench.layer.base_layer.weight)
    if reading == "effective":
        variance_O = sigma**2 / 256 * (row_norms(weight) ** 2 + beta * gradient_O**2)
    else:
        variance_O = (sigma * (base_O.mean() ** 2 + update_O**2).sqrt() + beta * gradient_O) ** 2 / 256
    if known:
        without = (sigma**2 / 256) * row_norms(weight) ** 2
        assert (variance_O / without).mean() > 1.05, "the gradient's part must be seen"
    saved = {name: squares.clone() for name, squares in perturbing.state_dict()["tensors"].items()}
    draws = []
    for step in range(1, 201):
        perturbing.load_state_dict({"tensors": saved, "json": {}})
        bench.masters.named[0][1].grad = bench.masters.named[1][1].grad = None
        bench.seen.clear()
        perturbing.gradients(lambda tally: noted(bench), Tally(), (step, 0, 0))
        draws.append(bench.seen[0][0] - weight)
    check_variances(torch.stack(draws), variance_O)


def noted(bench: Bench) -> float:
    """The effective weight alone, without the gradients' cost."""
    eye = torch.eye(bench.x.shape[1])
    (y,) = lora_linear.apply([bench.layer], eye, None)
    bench.seen.append(((y - bench.layer.base_layer.bias).t().detach(), bench.down, bench.up))
    return 0.0


def test_each_factor_gets_noise_by_its_own_rows() -> None:
    bench = Bench(512, 256, r=512)
    perturbing = bench.build({"name": "ggpo", "reading": "factors", "sigma": 0.05, "beta": 1e-6})
    bench.step(perturbing, 0)
    saved = {name: squares.clone() for name, squares in perturbing.state_dict()["tensors"].items()}
    factors = [bench.down.detach().clone(), bench.up.detach().clone()]
    norms = [(row_norms(f) ** 2, row_norms(f.grad) ** 2) for f in (bench.down, bench.up) if f.grad is not None]
    draws: list[list[Tensor]] = [[], []]
    for step in range(1, 201):
        perturbing.load_state_dict({"tensors": saved, "json": {}})
        bench.masters.named[0][1].grad = bench.masters.named[1][1].grad = None

        def take(tally: Tally) -> float:
            for kept, moved, still in zip(draws, (bench.down, bench.up), factors, strict=True):
                kept.append(moved.detach() - still)
            return 0.0

        perturbing.gradients(take, Tally(), (step, 0, 0))
    for kept, (weight_O, gradient_O), factor in zip(draws, norms, factors, strict=True):
        check_variances(torch.stack(kept), 0.05**2 / factor.shape[1] * (weight_O + 1e-6 * gradient_O))


def test_every_optimizer_step_and_tensor_draws_its_own_noise() -> None:
    bench = Bench(40, 256, r=4)
    perturbing = bench.build({"name": "ggpo"})
    weight, found = bench.effective(), []
    for place in ((1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1)):
        perturbing.gradients(lambda tally: noted(bench), Tally(), place)
        found.append((bench.seen[-1][0] - weight).flatten())
    correlations = torch.corrcoef(torch.stack(found)) - torch.eye(4)
    assert correlations.abs().max() < 5 / math.sqrt(40 * 256)


def test_the_papers_mgpo_moves_both_factors_along_the_momentum() -> None:
    bench = Bench(48, 40, r=4)
    perturbing = bench.build({"name": "mgpo", "rho": 0.02, "beta": 0.7})
    average: Any = None
    for step in range(1, 5):
        still = torch.cat([bench.down.detach().flatten(), bench.up.detach().flatten()]).double()
        states: list[Any] = [bench.optimizer.state.get(p, {}).get("exp_avg") for p in (bench.down, bench.up)]
        bench.seen.clear()
        bench.step(perturbing, step)
        effective, down, up = bench.seen[0]
        move = torch.cat([down.flatten(), up.flatten()]).double() - still
        norm = bench.gradient().norm().item()
        if step == 1:
            assert not move.any()
        else:
            moment = torch.cat([m.flatten() for m in states]).double()
            expected = 0.02 * moment / moment.norm() / average
            torch.testing.assert_close(move, expected, rtol=1e-4, atol=1e-7)
            assert perturbing.stats()["perturbation/norm"] == pytest.approx(0.02 / average, rel=1e-5)
            assert effective.shape == (48, 40)
        average = norm if average is None else 0.7 * average + 0.3 * norm
        bench.optimizer.step()
        bench.optimizer.zero_grad()


@pytest.mark.parametrize("size", [1.0, 1e-6], ids=["by its average", "at the cap"])
def test_the_codes_mgpo_moves_the_effective_weight_against_it(size: float) -> None:
    bench = Bench(48, 40, r=4)
    bench.sent *= size
    perturbing = bench.build({"name": "mgpo", "form": "code", "rho": 0.02, "beta": 0.7})
    average: Any = None
    scale = bench.layer.scaling["default"]
    for step in range(1, 6):
        weight, states = bench.effective(), [bench.optimizer.state.get(p, {}) for p in (bench.down, bench.up)]
        bench.seen.clear()
        bench.step(perturbing, step)
        move = bench.seen[0][0].double() - weight.double()
        gradient = bench.merged_gradient().norm().item()
        if step == 1:
            assert move.abs().max() < 1e-6, "nothing happens before there is a momentum"
            assert list(perturbing.state_dict()["json"].values()) == [None]
        else:
            m_a, m_b = (state["exp_avg"].double() for state in states)
            v = scale * (m_b @ bench.down.detach().double() + bench.up.detach().double() @ m_a)
            length = 0.02 * (1.0 if average is None else min(1 / average, 10.0))
            torch.testing.assert_close(move, -length * v / v.norm(), rtol=2e-3, atol=1e-6)
            assert perturbing.stats()["perturbation/norm"] == pytest.approx(length, rel=1e-5)
            average = gradient if average is None else 0.7 * average + 0.3 * gradient
            assert list(perturbing.state_dict()["json"].values()) == pytest.approx([average], rel=1e-4)
        bench.optimizer.step()
        bench.optimizer.zero_grad()
    assert size == 1.0 or length == pytest.approx(0.2)


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


def test_an_optimizer_without_momentum_is_refused() -> None:
    bench = Bench(8, 8, r=2)
    bench.optimizer = torch.optim.Adagrad([p for _, p in bench.masters.named])  # type: ignore[assignment]
    perturbing = bench.build({"name": "mgpo"})
    with pytest.raises(UserError, match="learner.optimizer=adamw"):
        bench.step(perturbing, 1)


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
