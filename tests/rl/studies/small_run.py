"""A finished run that took no training: `small_run.py RECIPE key=value …` in the place of `underdog train`.

It fails where learner.lr is 13, and sleeps for as many seconds as checkpoint.every says beyond 100.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from underdog.rl.config import Config, parse_overrides, read_recipe, resolve, to_yaml


def write(config: Config, rewards: list[float], base: float, final: float) -> None:
    """The folder that `config.out` names, as train leaves it in what a study reads."""
    folder = Path(config.out or "")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(to_yaml(config))
    lines = [json.dumps({"step": i + 1, "reward": reward, "entropy": 1 / (i + 1)}) for i, reward in enumerate(rewards)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    change = {"pass@1": {"mean": final - base, "ci95": [final - base, final - base]}}
    summary = {"seconds": time.time(), "base": {"pass@1": base}, "final": {"pass@1": final}, "change": change}
    (folder / "summary.json").write_text(json.dumps({**summary, "versions": {"torch": "2.13.0"}}))


def main() -> None:
    """Train nothing."""
    from underdog.rl.studies.child import tie_to_parent

    tie_to_parent()
    arguments = [argument for argument in sys.argv[1:] if argument != "--resume"]
    config = resolve(read_recipe(arguments[0])[1], parse_overrides(arguments[1:]))
    print("training", flush=True)
    if config.learner.lr == 13:
        print("underdog: the loss is not a number", flush=True)
        sys.exit(1)
    time.sleep(max(0, config.checkpoint.every - 100))
    rewards = [config.seed + config.learner.lr * step for step in range(8)]
    write(config, rewards, 0.25, 0.25 + config.learner.lr + config.seed / 8)


if __name__ == "__main__":
    main()
