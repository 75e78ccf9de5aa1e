"""The loss around a finished run: its value is the run's own, its curvature that of finite differences."""

from __future__ import annotations

import json
import math
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from underdog.rl.api import train
from underdog.rl.landscape import Landscape, ascent, open_landscapes, row_noise
from underdog.rl.learner.sharpness import hessian_product

PROBLEMS = 6
LORA = {"name": "lora", "r": 4, "alpha": 8, "dropout": 0}


def trained(recipe: Path, out: Path, adapter: Any = LORA) -> Path:
    supervised = {
        "algorithm": "supervised",
        "rollouts.engine": "gold",
        "rollouts.group": 1,
        "rollouts.max_tokens": 48,
        "learner.adapter": adapter,
        "eval": {"every": 0, "problems": PROBLEMS, "n": 1, "loss_every": 3},
    }
    train(str(recipe), out=str(out), **supervised)
    return out


@pytest.fixture(scope="module")
def run(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny_recipe, tmp_path_factory.mktemp("landscape") / "run")


def held_out(run: Path) -> dict[int, float]:
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["eval/held_out/loss"] for row in rows if "eval/held_out/loss" in row}


def test_both_spaces_hold_the_loss_that_the_run_wrote_down(run: Path) -> None:
    known = held_out(run)
    assert list(known) == [3, 6]
    assert known[3] != known[6]
    for own in open_landscapes(run, PROBLEMS).values():
        assert float(own.loss().detach()) == pytest.approx(known[6], rel=1e-5)


def test_of_a_full_model_too(tiny_recipe: Path, tmp_path: Path) -> None:
    run = trained(tiny_recipe, tmp_path / "full", "full")
    spaces = open_landscapes(run, PROBLEMS)
    assert len(spaces["trained"].parameters) > len(spaces["effective"].parameters)
    for own in spaces.values():
        assert float(own.loss().detach()) == pytest.approx(held_out(run)[6], rel=1e-5)


def test_sharpness_in_the_factors_is_that_of_a_dense_hessian(run: Path) -> None:
    part = copy(open_landscapes(run, PROBLEMS)["trained"])
    part.parameters = {name: p for name, p in part.parameters.items() if "layers.1.self_attn.k_proj" in name}
    assert sum(p.numel() for p in part.parameters.values()) == 4 * (32 + 16)
    dense = torch.stack([by_differences(part, unit) for unit in torch.eye(4 * (32 + 16), dtype=torch.float64)])
    assert (dense - dense.T).norm() < 1e-2 * dense.norm()
    found = part.sharpness(products=100, tolerance=1e-2)
    expected = float(torch.linalg.eigvalsh((dense + dense.T) / 2)[-1])
    assert abs(found.value - expected) <= 1e-2 * expected
    assert found.residual <= 1e-2


def test_curvature_in_the_effective_weights_is_that_of_finite_differences(run: Path) -> None:
    at = open_landscapes(run, PROBLEMS)["effective"]
    own = list(at.parameters.values())
    product = hessian_product(at.loss, own)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        v_N = torch.randn(sum(p.numel() for p in own), generator=generator, dtype=torch.float64)
        image_N = product(v_N)
        assert float((image_N - by_differences(at, v_N)).norm() / image_N.norm()) < 1e-3


def by_differences(at: Landscape, v_N: torch.Tensor, h: float = 3e-5) -> torch.Tensor:
    """H v: a central difference of the gradient; norms are in float32, which bounds its accuracy."""
    sides = []
    for sign in (1, -1):
        for p, piece in zip(at.parameters.values(), _split(at, v_N), strict=True):
            p.data += sign * h * piece
        sides.append(torch.cat([own.reshape(-1) for own in at.gradients().values()]))
        for p, piece in zip(at.parameters.values(), _split(at, v_N), strict=True):
            p.data -= sign * h * piece
    return (sides[0] - sides[1]) / (2 * h)


def _split(at: Landscape, v_N: torch.Tensor) -> list[torch.Tensor]:
    pieces = v_N.split([p.numel() for p in at.parameters.values()])
    return [piece.view_as(p) for piece, p in zip(pieces, at.parameters.values(), strict=True)]


def test_the_loss_along_the_gradient_has_its_slope_and_the_weights_are_put_back(run: Path) -> None:
    at = open_landscapes(run, PROBLEMS)["effective"]
    before = {name: p.detach().clone() for name, p in at.parameters.items()}
    h = 1e-4
    low, middle, high = at.along(ascent(at), [-h, 0.0, h])
    assert middle == float(at.loss().detach())
    slope = sum(float(own.norm()) for own in at.gradients().values())
    assert (high - low) / (2 * h) == pytest.approx(slope, rel=1e-5)
    assert all(torch.equal(before[name], p) for name, p in at.parameters.items())


def test_the_noise_has_the_variance_of_its_row(run: Path) -> None:
    at = open_landscapes(run, PROBLEMS)["effective"]
    gradients = at.gradients()
    draws = [row_noise(at, seed, sigma=0.5, beta=4.0) for seed in range(60)]
    for name, weight in at.parameters.items():
        n = weight.shape[1]
        expected = 0.25 / n * (weight.detach().square().sum(1) + 4.0 * gradients[name].square().sum(1))
        measured = torch.stack([draw[name] for draw in draws]).square().mean((0, 2))
        # a mean of 60 n squares of normal draws
        assert np.abs((measured / expected).numpy() - 1).max() < 6 * math.sqrt(2 / (60 * n))
    assert torch.equal(row_noise(at, 3)[name], row_noise(at, 3)[name])
