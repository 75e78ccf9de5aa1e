"""The losses are TRL's: its own `_compute_loss` on the same fixed numbers gives the same value and gradients."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from underdog.parts import find

pytestmark = pytest.mark.slow  # importing TRL takes seconds

MAX_TOKENS = 9


def trainer_of(cls: type, **settings: Any) -> Any:
    """A trainer that was never set up: only what `_compute_loss` reads, no model."""
    trainer = object.__new__(cls)
    accelerator = SimpleNamespace(num_processes=1, reduce=lambda x, reduction: x, gather=lambda x: x)
    defaults = {
        "aux_loss_enabled": False,
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "importance_sampling_level": "token",
        "beta": 0.0,
        "args": SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        "epsilon_low": 0.2,
        "epsilon_high": 0.2,
        "use_vllm": False,
        "vllm_importance_sampling_correction": False,
        "model": SimpleNamespace(training=True),
        "current_gradient_accumulation_steps": 1,
        "accelerator": accelerator,
        "max_completion_length": MAX_TOKENS,
        "_entropy_bonus_enabled": False,
        "_metrics": {"train": defaultdict(list)},
    }
    for name, value in {**defaults, **settings}.items():
        setattr(trainer, name, value)
    return trainer


def padded(arrays: list[np.ndarray]) -> torch.Tensor:
    rows = [torch.tensor(np.asarray(a, np.float64)) for a in arrays]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def trl_loss(trainer: Any, groups: list, news: dict[int, torch.Tensor], advantages: list[float]) -> torch.Tensor:
    samples = [sample for group in groups for sample in group.samples]
    logps = torch.nn.utils.rnn.pad_sequence([news[id(s.tokens_T)] for s in samples], batch_first=True)
    trainer._get_per_token_logps_and_entropies = lambda *a, **k: (logps, torch.zeros_like(logps), None)
    mask = padded([np.ones(len(s.tokens_T)) for s in samples])
    old = padded([a for g in groups for a in g.annotations["logp"]])
    ones = torch.ones(len(samples), 2, dtype=torch.long)
    return trainer._compute_loss(
        trainer.model,
        {
            "prompt_ids": ones,
            "prompt_mask": ones,
            "completion_ids": mask.long(),
            "completion_mask": mask,
            "advantages": torch.tensor(advantages, dtype=torch.float64),
            "old_per_token_logps": old,
            "old_logps": (old * mask).sum(1),
            "ref_per_token_logps": padded([a for g in groups for a in g.annotations["ref_logp"]]),
            "num_items_in_batch": mask.sum(),
            "importance_sampling_ratio": trainer_ratio(old, groups),
        },
    )


def trainer_ratio(old: torch.Tensor, groups: list) -> torch.Tensor:
    """TRL's `token_truncate` at 1.3."""
    engine = padded([s.logp_T for g in groups for s in g.samples])
    return torch.exp(old - engine).clamp(max=1.3)


CASES = [
    ("grpo", {"kl": 0.04}, {"loss_type": "grpo", "beta": 0.04}),
    ("grpo", {"kl": 0.0}, {"loss_type": "grpo"}),
    (
        "grpo",
        {"kl": 0.0, "mismatch": "truncate", "mismatch_cap": 1.3},
        {"loss_type": "grpo", "use_vllm": True, "vllm_importance_sampling_correction": True},
    ),
    ("dr_grpo", {"max_tokens": MAX_TOKENS}, {"loss_type": "dr_grpo"}),
    ("dapo", {"overlong_penalty": 0.0}, {"loss_type": "dapo", "epsilon_high": 0.28}),
    (
        "gspo",
        {},
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4},
    ),
    ("cispo", {}, {"loss_type": "cispo", "epsilon_high": 5.0}),
    ("rloo", {"kl": 0.0}, {}),
]


@pytest.mark.parametrize(("name", "options", "settings"), CASES)
def test_the_loss_is_trls(name, options, settings, make_group, pack) -> None:
    """Constant groups among them, but for DAPO and CISPO, which replace those where TRL keeps them."""
    trl = pytest.importorskip("trl")
    groups = [make_group("a", [1.0, 0.0, 0.0], [3, 5, 2]), make_group("b", [0.2, 0.4], [4, 7])]
    if name not in ("dapo", "cispo"):
        groups.append(make_group("c", [1.0, 1.0, 1.0], [6, 1, 2]))
    generator = np.random.default_rng(1)
    news = {
        id(s.tokens_T): torch.tensor(old_T + generator.normal(0, 0.3, len(old_T)), requires_grad=True)
        for g in groups
        for s, old_T in zip(g.samples, g.annotations["logp"], strict=True)
    }
    algorithm = find("algorithm", name)(**{"mismatch": "none", **options}, epochs=2)
    batch = algorithm.advantages(groups)
    given = {id(row.tokens_T): float(row.advantage_T[0]) for row in batch.rows}
    advantages = [given.get(id(s.tokens_T), 0.0) for g in groups for s in g.samples]

    leaves = list(news.values())
    loss, _ = algorithm.loss(*pack(batch.rows, [news[id(row.tokens_T)] for row in batch.rows]))
    ours = torch.autograd.grad(loss, leaves, allow_unused=True)
    trainer = trainer_of(trl.RLOOTrainer if name == "rloo" else trl.GRPOTrainer, **settings)
    their_loss = trl_loss(trainer, groups, news, advantages)
    theirs = torch.autograd.grad(their_loss, leaves)

    assert loss.item() == pytest.approx(their_loss.item(), rel=1e-6)
    for leaf, our, their in zip(leaves, ours, theirs, strict=True):
        torch.testing.assert_close(torch.zeros_like(leaf) if our is None else our, their, rtol=1e-6, atol=1e-9)
