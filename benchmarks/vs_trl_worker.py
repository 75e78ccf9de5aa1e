"""One side of `vs_trl.py`, in a process of its own; started by it, not by hand.

    python vs_trl_worker.py prepare|trl|underdog JOB.json

It takes its turns as `side.py` says.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endless import without_end
from side import LORA, Job, Pace, main, run_trl, trl_lora, trl_settings

PROBLEMS, GROUP = 8, 8
REWARD = str(Path(__file__).with_name("vs_trl_reward.py")) + ":Checksum"
VERIFIER = {"name": "math", "numbers_only": True}


@dataclass(frozen=True)
class Duel(Job):
    """What both sides are told."""

    base: str
    """The model's folder as it is; `model` is the same, or for forced lengths a copy that cannot end."""
    forced: bool

    @property
    def prompts(self) -> Path:
        """The problems in the order in which Underdog draws them, one JSON object a line."""
        return Path(self.folder) / "prompts.jsonl"

    def tree(self) -> dict[str, Any]:
        """Underdog's recipe."""
        return {
            "model": self.model,
            "out": str(Path(self.folder) / "run"),
            "seed": self.seed,
            "steps": self.steps + 1,  # never reached: the checkpoint after a last step is no part of a step
            "data": {"name": "arithmetic", "part": "train", "held_out": 256},
            "rollouts": {"engine": "local", "problems": PROBLEMS, "group": GROUP, "max_tokens": self.max_tokens},
            "verifier": VERIFIER,
            "rewards": {REWARD if self.forced else "accuracy": 1},
            "algorithm": {"name": "grpo", "kl": 0},
            "learner": {
                "lr": self.lr,
                "dtype": self.dtype,
                "schedule": "constant",
                "adapter": {"name": "lora", **LORA},
            },
            "eval": {"problems": 0},
            "checkpoint": {"every": 10**9},
        }


def prepare(job: Duel, _: Pace) -> None:
    """Write the problems in Underdog's order and, for forced lengths, the model that cannot end."""
    import numpy as np
    from transformers import AutoTokenizer

    from underdog.records import derive_seed
    from underdog.rl.assembly import load_problems
    from underdog.rl.config import resolve

    tokenizer = AutoTokenizer.from_pretrained(job.base)
    problems = load_problems(resolve(job.tree()), tokenizer).train
    order = np.random.default_rng(derive_seed(job.seed, "order", 0)).permutation(len(problems))
    need = job.steps * PROBLEMS
    if need > len(problems):
        raise SystemExit(f"{job.steps} steps need {need} problems, there are {len(problems)}; lower --steps")
    with job.prompts.open("w") as file:
        for place in order[:need]:
            problem, ids = problems[place].problem, problems[place].ids.tolist()
            text = tokenizer.decode(ids)
            if tokenizer(text)["input_ids"] != ids:
                raise SystemExit("TRL would tokenise the prompts otherwise than Underdog; choose another --model")
            print(json.dumps({"prompt": text, "answer": problem.answer}), file=file)
    target = Path(job.model)
    if job.forced and not target.exists():
        without_end(job.base, target)


def underdog(job: Duel, pace: Pace) -> None:
    """Train as `underdog train` does; only the steps wait for their turn."""
    from underdog.rl.config import resolve
    from underdog.rl.loop import train
    from underdog.rl.runs.folder import Run

    remaining_steps = Run.remaining_steps

    def figures() -> dict[str, float]:
        row = json.loads((Path(job.folder) / "run" / "metrics.jsonl").read_text().splitlines()[-1])
        pace.stages |= {
            k.removeprefix("time/"): v for k, v in row.items() if k.startswith("time/") and k != "time/step"
        }
        return _figures(row)

    def paced(self: Run) -> Any:
        for step in remaining_steps(self):
            pace.turn(figures, last=step > job.steps)
            if step > job.steps:
                return
            yield step

    Run.remaining_steps = paced
    train(resolve(job.tree()), recipe="vs_trl")


def trl(job: Duel, pace: Pace) -> None:
    """Train with TRL's GRPOTrainer; generation and judging are timed by wrapping its methods."""
    from datasets import Dataset
    from trl.trainer.grpo_trainer import GRPOTrainer

    from underdog.rl.reward_func import reward_func

    rows = [json.loads(line) for line in job.prompts.read_text().splitlines()]
    trainer = GRPOTrainer(
        model=job.model,
        args=trl_settings(job, batch=PROBLEMS * GROUP, group=GROUP),
        train_dataset=Dataset.from_list(rows),
        reward_funcs=reward_func(REWARD if job.forced else "accuracy", verifier=VERIFIER),
        peft_config=trl_lora(),
    )

    def figures() -> dict[str, float]:
        return _figures({name: values[-1] for name, values in trainer._metrics["train"].items() if values})

    parts: Any = trainer
    parts._generate_single_turn = pace.timed("generate", parts._generate_single_turn)
    parts._calculate_rewards = pace.timed("verify", parts._calculate_rewards)
    run_trl(trainer, job.steps, pace, figures)


def _figures(metrics: dict[str, float]) -> dict[str, float]:
    """What both sides call by the same name."""
    return {
        "reward": metrics["reward"],
        "length": metrics["completions/mean_length"],
        "clipped": metrics["completions/clipped_ratio"],
        "no_signal": metrics["frac_reward_zero_std"],
        "grad_norm": metrics.get("grad_norm", 0.0),
    }


if __name__ == "__main__":
    main(Duel, {"prepare": prepare, "trl": trl, "underdog": underdog})
