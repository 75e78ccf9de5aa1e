"""A run that kills itself: `killed_run.py RECIPE OUT PLACE COUNT [--resume]` dies at the COUNT-th visit of PLACE."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from underdog.rl.config import read_recipe, resolve
from underdog.rl.loop import train


def die_at(owner: Any, name: str, visit: int) -> None:
    """Let `owner.name` run `visit` - 1 times; at the next time SIGKILL this process just before it returns."""
    original, visits = getattr(owner, name), 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal visits
        visits += 1
        result = original(*args, **kwargs)
        if visits == visit:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapped)


def half_written(visit: int) -> None:
    """SIGKILL when a checkpoint's tensors stand on disk and its state is yet to come."""
    import safetensors.torch

    die_at(safetensors.torch, "save_file", visit)


def main() -> None:
    """Run, and die on the way."""
    recipe, out, place, count = sys.argv[1:5]
    visit = int(count)
    if place == "generation":
        from underdog.rollouts.decoding import scheduler

        die_at(scheduler, "draw", visit)
    elif place == "update":
        from underdog.rl.learner import scorer

        die_at(scorer, "token_logprobs", visit)
    elif place == "checkpoint":
        half_written(visit)
    elif place == "pruning":
        from underdog.rl.runs import checkpoint

        die_at(checkpoint, "save", visit)
    elif place == "metrics":
        from underdog.rl.runs import folder

        die_at(folder.Metrics, "write", visit)
    name, tree = read_recipe(recipe)
    config = resolve(tree, {"out": out, "steps": 24, "checkpoint.every": 5})
    train(config, recipe=name, resume="--resume" in sys.argv and Path(out).exists())


main()
