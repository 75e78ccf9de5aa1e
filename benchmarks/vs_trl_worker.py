"""One side of `vs_trl.py`, in a process of its own; started by it, not by hand.

    python vs_trl_worker.py prepare|trl|underdog JOB.json

Before each step a side says `{"ready": …}` (with the figures of the step before) on its standard output and waits for
a line on its standard input, so that the two sides take turns step by step.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from endless import without_end

PROBLEMS, GROUP = 8, 8
REWARD = str(Path(__file__).with_name("vs_trl_reward.py")) + ":Checksum"
VERIFIER = {"name": "math", "numbers_only": True}
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Job:
    """What both sides are told."""

    base: str
    """The model's folder as it is."""
    model: str
    """The model's folder as it is trained: `base`, or for forced lengths a copy that cannot end."""
    folder: str
    dtype: str
    steps: int
    max_tokens: int
    forced: bool
    seed: int
    lr: float
    threads: int
    paced: bool
    """Whether to wait for a line before each step."""

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
                "adapter": {"name": "lora", "r": 32, "alpha": 128, "dropout": 0},
            },
            "eval": {"problems": 0},
            "checkpoint": {"every": 10**9},
        }


@dataclass
class Pace:
    """Takes turns with the other side and times what lies between."""

    paced: bool
    pipe: Any
    started: tuple[float, float] | None = None
    stages: dict[str, float] = field(default_factory=dict)

    def turn(self, figures: Callable[[], dict[str, float]], *, last: bool = False) -> None:
        """End the step that is under way, report it, wait to begin the next."""
        now = time.perf_counter(), time.process_time()
        report: dict[str, Any] = {"peak": high_water(), "last": last}
        if self.started is not None:
            report |= {"seconds": now[0] - self.started[0], "cpu": now[1] - self.started[1]}
            report |= {"figures": figures(), "stages": self.stages}
        self.stages = {}
        print(json.dumps(report), file=self.pipe, flush=True)
        if self.paced and not last and not sys.stdin.readline():
            sys.exit("nobody waits for this side any more")
        self.started = time.perf_counter(), time.process_time()

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, its seconds added to `stage`."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.stages[stage] = self.stages.get(stage, 0.0) + time.perf_counter() - start

        return wrapped


def high_water() -> float:
    """The process's largest resident memory so far, MiB. Not ru_maxrss: a child inherits its parent's."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    from underdog.rl.runs.clock import peak_mib

    return peak_mib()


def prepare(job: Job) -> None:
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


def underdog(job: Job, pace: Pace) -> None:
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


def trl_settings(
    job: Job, batch: int = PROBLEMS * GROUP, group: int = GROUP, gradient_checkpointing: bool = False
) -> Any:
    """The GRPOConfig that stands for the same run, set up for speed."""
    from trl.trainer.grpo_config import GRPOConfig

    return GRPOConfig(
        output_dir=str(Path(job.folder) / "trl"),
        use_cpu=True,
        bf16=job.dtype == "bfloat16",
        model_init_kwargs={"dtype": job.dtype},
        max_steps=job.steps,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=1,
        num_generations=group,
        max_completion_length=job.max_tokens,
        temperature=1.0,
        beta=0.0,
        num_iterations=1,
        epsilon=0.2,
        loss_type="grpo",
        learning_rate=job.lr,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        gradient_checkpointing=gradient_checkpointing,
        shuffle_dataset=False,
        seed=job.seed,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def trl(job: Job, pace: Pace) -> None:
    """Train with TRL's GRPOTrainer; its stages are timed by wrapping its methods."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl.trainer.grpo_trainer import GRPOTrainer

    from underdog.rl.reward_func import reward_func

    rows = [json.loads(line) for line in job.prompts.read_text().splitlines()]
    trainer = GRPOTrainer(
        model=job.model,
        args=trl_settings(job),
        train_dataset=Dataset.from_list(rows),
        reward_funcs=reward_func(REWARD if job.forced else "accuracy", verifier=VERIFIER),
        peft_config=LoraConfig(r=32, lora_alpha=128, lora_dropout=0.0, target_modules=SEVEN, task_type="CAUSAL_LM"),
    )

    def figures() -> dict[str, float]:
        return _figures({name: values[-1] for name, values in trainer._metrics["train"].items() if values})

    class Turns(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            pace.turn(figures)

        def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            self.before = time.perf_counter()

        def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            pace.stages["optimizer"] = time.perf_counter() - self.before

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            pace.turn(figures, last=state.global_step == job.steps)

    trainer.add_callback(Turns())
    parts: Any = trainer
    parts._generate_single_turn = pace.timed("generate", parts._generate_single_turn)
    parts._calculate_rewards = pace.timed("verify", parts._calculate_rewards)
    parts.compute_loss = pace.timed("forward", parts.compute_loss)
    parts.accelerator.backward = pace.timed("backward", parts.accelerator.backward)
    trainer.train()


def _figures(metrics: dict[str, float]) -> dict[str, float]:
    """What both sides call by the same name."""
    return {
        "reward": metrics["reward"],
        "length": metrics["completions/mean_length"],
        "clipped": metrics["completions/clipped_ratio"],
        "no_signal": metrics["frac_reward_zero_std"],
        "grad_norm": metrics.get("grad_norm", 0.0),
    }


def main() -> None:
    """Do what the command line says; what libraries print goes to the standard error."""
    side, path = sys.argv[1:]
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    job = Job(**json.loads(Path(path).read_text()))
    if side == "prepare":
        prepare(job)
    else:
        import torch

        torch.set_num_threads(job.threads)
        {"trl": trl, "underdog": underdog}[side](job, Pace(job.paced, pipe))


if __name__ == "__main__":
    main()
