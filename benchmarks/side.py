"""One side of a comparison, in a process of its own that `sides.py` starts.

Before each step a side reports on its standard output (the figures of the step before) and waits for
a line on its standard input, so that the two sides take turns step by step.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

LORA = {"r": 32, "alpha": 128, "dropout": 0}
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Job:
    """What both sides are told."""

    model: str
    """The model's folder as it is trained."""
    folder: str
    dtype: str
    steps: int
    max_tokens: int
    seed: int
    lr: float
    threads: int
    paced: bool
    """Whether to wait for a line before each step."""


J = TypeVar("J", bound=Job)


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


def trl_settings(job: Job, batch: int, group: int, **others: Any) -> Any:
    """The GRPOConfig that stands for the same run, set up for speed; `others` are more of its options."""
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
        shuffle_dataset=False,
        seed=job.seed,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **{"gradient_checkpointing": False, **others},
    )


def trl_lora() -> Any:
    """The LoraConfig that stands for `LORA`."""
    from peft import LoraConfig

    return LoraConfig(
        r=LORA["r"],
        lora_alpha=LORA["alpha"],
        lora_dropout=float(LORA["dropout"]),
        target_modules=SEVEN,
        task_type="CAUSAL_LM",
    )


def run_trl(trainer: Any, steps: int, pace: Pace, figures: Callable[[], dict[str, float]]) -> None:
    """Train with TRL's own loop, in turns; the learner's stages are timed by wrapping its methods."""
    from transformers import TrainerCallback

    class Turns(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            pace.turn(figures)

        def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            self.before = time.perf_counter()

        def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            pace.stages["optimizer"] = time.perf_counter() - self.before

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            pace.turn(figures, last=state.global_step == steps)

    trainer.add_callback(Turns())
    trainer.compute_loss = pace.timed("forward", trainer.compute_loss)
    trainer.accelerator.backward = pace.timed("backward", trainer.accelerator.backward)
    trainer.train()


def main(kind: type[J], sides: Mapping[str, Callable[[J, Pace], None]]) -> None:
    """Do what the command line says: a side's name, then its job's file.

    What libraries print goes to the standard error.
    """
    side, path = sys.argv[1:]
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import torch

    job = kind(**json.loads(Path(path).read_text()))
    torch.set_num_threads(job.threads)
    sides[side](job, Pace(job.paced, pipe))
