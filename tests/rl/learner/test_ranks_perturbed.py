"""Ranks that share a perturbed update move by what one process moves by, and take its step."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from underdog.records import Batch, Row
from underdog.rl.learner.group import LearnerGroup
from underdog.rl.learner.learner import Learner
from underdog.rl.learner.options import LearnerOptions

pytest.importorskip("ray")
pytestmark = pytest.mark.slow
BLOCKS: dict[str, Any] = {
    "ggpo": {"name": "ggpo"},
    "mgpo-code": {"name": "mgpo", "form": "code"},
    "sam": {"name": "sam"},
}


def clipped(outputs: Any, batch: Any) -> Any:
    ratio = torch.exp(outputs.logp_T - batch.old_logp_T)
    return -(batch.weight_T * batch.advantage_T * ratio).sum(), {}


def batch_of(seed: int) -> Batch:
    """Uneven rows: at 40 tokens a micro-batch the last one of a rank may be empty."""
    draw = np.random.default_rng(seed)
    rows = []
    for _ in range(9):
        length = int(draw.integers(2, 16))
        advantage_T = draw.normal(size=length).astype(np.float32)
        rows.append(Row(draw.integers(3, 30, 5), draw.integers(3, 30, length), advantage_T, 1 / 64))
    return Batch(tuple(rows))


@pytest.mark.parametrize("name", BLOCKS)
def test_two_ranks_are_perturbed_as_one(name: str, tiny_shape: str, tmp_path: Path) -> None:
    """Three steps, and one more of each from the state of the other."""
    adapter = {"name": "lora", "r": 4, "alpha": 8, "dropout": 0.0}
    options = LearnerOptions.model_validate(
        {"lr": 1e-3, "adapter": adapter, "tokens": 40, "perturbation": BLOCKS[name], "ranks": 2}
    )
    settings: dict[str, Any] = {"seed": 0, "steps": 9, "log": lambda text: None}
    one = Learner(tiny_shape, options, device="cpu", **settings)
    two = LearnerGroup(tiny_shape, options, tmp_path, **settings)
    try:
        for step in (1, 2, 3, 4):
            stats = [learner.update(batch_of(step), clipped, step) for learner in (one, two)]
            for key in ("perturbation/norm", "grad_norm"):
                assert stats[1][key] == pytest.approx(stats[0][key], rel=1e-3), (step, key)
            assert step == 1 or stats[0]["perturbation/norm"] > 0
            if step == 3:
                states = copy.deepcopy(one.state_dict()), two.state_dict()
                one.load_state_dict(states[1])
                two.load_state_dict(states[0])
        alone, shared = one.state_dict(), two.state_dict()
        assert alone["tensors"].keys() == shared["tensors"].keys()
        for key, tensor in alone["tensors"].items():
            assert (tensor - shared["tensors"][key]).norm() <= 1e-3 * tensor.norm() + 1e-7, key
        assert alone["json"]["perturbation"] == pytest.approx(shared["json"]["perturbation"], rel=1e-3)
    finally:
        two.close()
