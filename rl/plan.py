"""What a run would do, in words: the answer to `--dry-run`."""

from __future__ import annotations

from .choices import name_of
from .config import Config


def plan(config: Config, recipe: str) -> str:
    """A few lines on model, data, samples and updates."""
    r = config.rollouts
    samples = r.problems * r.group
    lines = [
        f"would run recipe {recipe} into {config.out or f'runs/{recipe}-<next free number>'}",
        f"model {config.model}, adapter {name_of(config.learner.adapter)}, problems from {name_of(config.data)}",
        f"{config.steps} steps of {r.problems} problems x {r.group} samples = {samples} samples a step by engine "
        f"{name_of(r.engine)} {_where(config)}, at most {r.max_tokens} tokens each",
        f"rewards {', '.join(f'{n} x {w.weight:g}' for n, w in config.rewards.items())}, judged by "
        f"{name_of(config.verifier)}, shaping {name_of(config.shaping)}, algorithm {name_of(config.algorithm)}",
        _evaluation(config),
    ]
    return "\n".join(lines)


def _evaluation(config: Config) -> str:
    """On what the policy is measured, and when."""
    e = config.eval
    words = [f"on {e.problems} held-out problems x {e.n} samples before and after"] if e.problems else []
    words += [f"smaller every {e.every} steps"] if e.every else []
    return f"evaluation {', '.join(words)}" if words else "no evaluation"


def _where(config: Config) -> str:
    """In which processes samples are drawn and learned from."""
    r = config.rollouts
    workers = r.workers or (1 if type(r.engine).apart else 0)
    words = f"in {workers} worker{'s' * (workers > 1)} of its own" if workers else "in the learner's process"
    words += ", one update ahead" if r.max_staleness else ""
    return words + (f", learned by {config.learner.ranks} ranks" if config.learner.ranks > 1 else "")
