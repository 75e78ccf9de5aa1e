"""Underdog: RL post-training for tiny reasoners.

The same from Python as from the command line, each imported when it is first used:

    summary = underdog.train("demo", seed=3)
    result = underdog.evaluate("runs/demo-1", checkpoint="best")
    verdicts = underdog.verify("math", "samples.jsonl")
    underdog.report("runs/demo-1", "runs/demo-2")
    underdog.export("runs/demo-1", "my-model")
    changed = underdog.analyze("runs/demo-1").frame()
    shared = underdog.overlap("runs/demo-1", "runs/demo-2").frame()
    result = underdog.study("shapings", short=True)
    trainer = trl.GRPOTrainer(reward_funcs=[underdog.reward_func("accuracy")], ...)
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .rl.api import analyze, evaluate, export, overlap, report, study, train, verify
    from .rl.reward_func import reward_func

# An OpenMP thread that waits spins, by default for milliseconds; where anything else runs on the same cores, a step
# then takes up to ten times as long. It must be set before torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"
__all__ = ["analyze", "evaluate", "export", "overlap", "report", "reward_func", "study", "train", "verify"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = ".rl.reward_func" if name == "reward_func" else ".rl.api"
    return getattr(import_module(module, __name__), name)
