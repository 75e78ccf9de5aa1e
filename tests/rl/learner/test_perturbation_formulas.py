"""What a perturbation moves, and by how much, against the formulas of the papers: one LoRA layer at a time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from underdog.parts import UserError, find
from underdog.rl.learner import lora_linear
from underdog.rl.learner.masters import Masters
from underdog.rl.learner.perturbations.base import Perturbing, Site
from underdog.rl.learner.tally import Tally


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


def test_an_optimizer_without_momentum_is_refused() -> None:
    bench = Bench(8, 8, r=2)
    bench.optimizer = torch.optim.Adagrad([p for _, p in bench.masters.named])  # type: ignore[assignment]
    perturbing = bench.build({"name": "mgpo"})
    with pytest.raises(UserError, match="learner.optimizer=adamw"):
        bench.step(perturbing, 1)
