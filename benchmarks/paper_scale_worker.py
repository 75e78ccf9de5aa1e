"""One side of `paper_scale.py`, in a process of its own; started by it, not by hand.

    python paper_scale_worker.py trl|underdog JOB.json

It takes its turns as `side.py` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from side import LORA, Job, Pace, main, run_trl, trl_lora, trl_settings


@dataclass(frozen=True)
class Scale(Job):
    """What both sides are told, and the batch."""

    checkpointing: bool
    group: int
    prompt: int
    vocabulary: int

    def batch(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """prompt_ids, completions_GT and advantages_G: random, and the same on both sides."""
        draw = np.random.default_rng(self.seed)
        tokens = draw.integers(3, self.vocabulary, self.prompt + self.group * self.max_tokens)
        return tokens[: self.prompt], tokens[self.prompt :].reshape(self.group, -1), draw.normal(size=self.group)


def underdog(job: Scale, pace: Pace) -> None:
    """The learner alone, which holds no engine."""
    import torch

    from underdog.records import Batch, Row
    from underdog.rl.algorithms.grpo import GRPO
    from underdog.rl.learner.learner import Learner
    from underdog.rl.learner.options import LearnerOptions

    options = {
        "lr": job.lr,
        "dtype": job.dtype,
        "adapter": {"name": "lora", **LORA},
        "gradient_checkpointing": job.checkpointing,
    }
    learner = Learner(job.model, LearnerOptions.model_validate(options), seed=0, steps=job.steps, log=print)
    prompt_ids, completions_GT, advantages_G = job.batch()
    weight = 1 / (job.group * job.max_tokens)
    rows = [
        Row(prompt_ids, tokens_T, np.full(job.max_tokens, advantage, np.float32), weight)
        for tokens_T, advantage in zip(completions_GT, advantages_G, strict=True)
    ]
    loss: Any = GRPO.model_validate({"kl": 0.0}).loss
    learner._scorer.forward = pace.timed("forward", learner._scorer.forward)
    torch.Tensor.backward = pace.timed("backward", torch.Tensor.backward)
    learner._optimizer.step = pace.timed("optimizer", learner._optimizer.step)
    stats: dict[str, float] = {}
    pace.turn(dict)
    for step in range(1, job.steps + 1):
        stats = learner.update(Batch(tuple(rows)), loss, step)
        figures = {"grad_norm": stats["grad_norm"], "entropy": stats["entropy"]}
        pace.turn(lambda figures=figures: figures, last=step == job.steps)


def trl(job: Scale, pace: Pace) -> None:
    """TRL's own trainer and loop; only the batch is given instead of generated."""
    import torch
    from datasets import Dataset
    from trl.trainer.grpo_trainer import GRPOTrainer

    prompt_ids, completions_GT, advantages_G = job.batch()
    completions = torch.from_numpy(completions_GT)
    given = {
        "prompt_ids": torch.from_numpy(prompt_ids).repeat(job.group, 1),
        "prompt_mask": torch.ones(job.group, job.prompt, dtype=torch.int64),
        "completion_ids": completions,
        "completion_mask": torch.ones_like(completions),
        "advantages": torch.from_numpy(advantages_G).float(),
        "num_items_in_batch": torch.tensor(completions.numel()),
    }

    class Given(GRPOTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            return dict(given)

    trainer: Any = Given(
        model=job.model,
        args=trl_settings(job, batch=job.group, group=job.group, gradient_checkpointing=job.checkpointing),
        train_dataset=Dataset.from_list([{"prompt": "a"}] * job.steps),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        peft_config=trl_lora(),
    )
    norms: list[float] = []
    clip = trainer.accelerator.clip_grad_norm_

    def clipped(*args: Any, **kwargs: Any) -> Any:
        norms.append(float(norm := clip(*args, **kwargs)))
        return norm

    def figures() -> dict[str, float]:
        return {"grad_norm": norms[-1], "entropy": trainer._metrics["train"]["entropy"][-1]}

    trainer.accelerator.clip_grad_norm_ = clipped
    run_trl(trainer, job.steps, pace, figures)


if __name__ == "__main__":
    main(Scale, {"trl": trl, "underdog": underdog})
