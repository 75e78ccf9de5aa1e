"""The supervised arm is TRL's: SFTTrainer on the same batches in the same order loses the same at each of 20 steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from underdog.records import Group, Problem, Sample, Verdict, Version
from underdog.rl.algorithms.supervised import Supervised
from underdog.rl.learner.learner import Learner
from underdog.rl.learner.options import LearnerOptions

pytestmark = pytest.mark.slow  # importing TRL takes seconds

STEPS, ROWS, RATE = 20, 4, 5e-3


def drawn() -> list[tuple[list[int], list[int]]]:
    """Prompts and completions of many lengths, in the order in which both learn from them."""
    rng = np.random.default_rng(0)
    sizes = zip(rng.integers(3, 20, STEPS * ROWS), rng.integers(1, 12, STEPS * ROWS), strict=True)
    return [(rng.integers(3, 30, p).tolist(), rng.integers(3, 30, c).tolist()) for p, c in sizes]


def our_losses(learner: Learner, rows: list[tuple[list[int], list[int]]]) -> list[float]:
    algorithm, losses = Supervised(), []
    for step in range(STEPS):
        samples = tuple(
            Sample("p", i, Version(step, ""), 0, np.array(prompt), np.array(completion), None, "", "gold")
            for i, (prompt, completion) in enumerate(rows[step * ROWS : (step + 1) * ROWS])
        )
        batch = algorithm.advantages([Group(Problem("p", "?"), samples, tuple(Verdict("right") for _ in samples))])
        losses.append(learner.update(batch, algorithm.loss, step + 1)["loss"])
    return losses


def trl_losses(model: Any, tokenizer: Any, rows: list[tuple[list[int], list[int]]], out: Path) -> list[float]:
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")

    class InOrder(trl.SFTTrainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    data = datasets.Dataset.from_list(
        [{"input_ids": p + c, "completion_mask": [0] * len(p) + [1] * len(c)} for p, c in rows]
    )
    settings = trl.SFTConfig(
        output_dir=str(out), max_steps=STEPS, per_device_train_batch_size=ROWS, learning_rate=RATE,
        lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=1.0, logging_steps=1, save_strategy="no",
        report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False, packing=False, max_length=None,
        completion_only_loss=True, disable_tqdm=True, dataloader_num_workers=0,
    )  # fmt: skip
    trainer = InOrder(model=model, args=settings, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_twenty_losses_are_those_of_sfttrainer(tiny_shape: str, tmp_path: Path) -> None:
    adapter = {"name": "lora", "r": 16, "alpha": 32, "rslora": True, "dropout": 0.0, "targets": ["q_proj", "v_proj"]}
    options = LearnerOptions.model_validate({"lr": RATE, "adapter": adapter})

    def fresh() -> Learner:
        return Learner(tiny_shape, options, seed=0, steps=STEPS, device="cpu", log=lambda text: None)

    rows, theirs = drawn(), fresh()
    ours = our_losses(fresh(), rows)
    reference = trl_losses(theirs._model, theirs.tokenizer, rows, tmp_path)
    assert len(reference) == STEPS
    assert np.ptp(ours) > 0.05
    np.testing.assert_allclose(ours, reference, rtol=1e-3)
    frozen = [our_losses(fresh(), rows[:ROWS] * STEPS)[i] for i in (0, -1)]
    assert frozen[1] < frozen[0] - 0.05  # at this rate the steps count: losses of an idle learner would not agree
