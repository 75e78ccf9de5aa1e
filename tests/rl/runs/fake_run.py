"""Writes run folders in the formats that a run leaves behind, hostile completions included."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

HOSTILE = (
    "</script><script>window.hacked=1</script>",
    "<img src=x onerror='window.hacked=1'>",
    '"><svg onload=window.hacked=1><!--',
    "<!-- <script> ]]> \u2028\u2029 \u202egnirts\u202c \x00\x1b[31m ${window.hacked=1} $title {{7*7}}",
    '<a href="javascript:window.hacked=1">x</a> &lt;b&gt; \\u003c/script\\u003e %{y} var(--s1)',
    '<link rel="stylesheet" href="http://127.0.0.1:9/leak.css"><iframe src="http://127.0.0.1:9/"></iframe>',
)

CONFIG = """\
model: {model}
seed: {seed}
steps: {steps}
out: {out}
data:
  name: arithmetic
  held_out: 256
rollouts:
  engine:
    name: local
  problems: 8
  group: 8
  temperature: 1.0
algorithm:
  name: {algorithm}
  kl: 0.04
rewards:
  accuracy: 2.0
  format: 1.0
learner:
  lr: {lr}
  adapter:
    name: lora
    r: 32
"""


def pass_block(level: float, samples: int = 64) -> dict[str, Any]:
    """pass@1 … pass@samples with intervals."""
    ns = [2**i for i in range(samples.bit_length())]
    mean = {f"pass@{n}": 1 - (1 - level) ** (1 + math.log2(n)) for n in ns}
    ci95 = {key: [max(0.0, v - 0.03), min(1.0, v + 0.03)] for key, v in mean.items()}
    return {**mean, "ci95": ci95, "problems": 256, "samples": samples}


def write_run(folder: Path, *, steps: int = 24, seed: int = 0, finished: bool = True, **config: Any) -> Path:
    """A run folder of `steps` steps with 16 samples each; unfinished runs lack a summary and end in half a line."""
    random.seed(seed)
    folder.mkdir(parents=True)
    options = {"model": "shape:tiny", "algorithm": "dr_grpo", "lr": 1e-4, **config}
    text = CONFIG.format(seed=seed, steps=steps, out=folder.name, **options)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    (folder / "recipe.json").write_text(json.dumps({"recipe": "demo"}), encoding="utf-8")
    (folder / "data.json").write_text(json.dumps({"data/loaded": 5000, "prompts/too_long": 3}), encoding="utf-8")
    lines = [json.dumps(metrics_of(step, steps)) for step in range(steps + 1)]
    tail = "\n" if finished else f'\n{{"step": {steps + 1}, "rew'
    (folder / "metrics.jsonl").write_text("\n".join(lines) + tail, encoding="utf-8")
    (folder / "logs").mkdir()
    blocks = [json.dumps({"step": step, "spans": spans(step)}) for step in range(1, steps + 1)]
    (folder / "logs" / "timeline.jsonl").write_text("\n".join(blocks) + tail, encoding="utf-8")
    (folder / "rollouts").mkdir()
    for step in range(1, steps + 1):
        rows = [json.dumps(sample(step, steps, index)) for index in range(16)]
        (folder / "rollouts" / f"step_{step}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "evaluations").mkdir()
    for name, version, level in evaluations(steps):
        block = {**pass_block(level, 8), "problems": [{"id": "p", "right": 3, "graded": 8}]}
        value = {"set": "held_out", "version": version, "digest": "ab" * 32, **block}
        (folder / "evaluations" / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    if finished:
        summary = {"recipe": "demo", "seed": seed, "seconds": 431.5, "tokens": 1_234_567}
        summary |= {"versions": {"underdog": "0.1.0", "torch": "2.13.0"}}
        summary |= {"base": pass_block(0.41), "final": pass_block(0.70)}
        change = {
            f"pass@{2**i}": {"mean": 0.29 / 2**i, "ci95": [0.29 / 2**i - 0.03, 0.29 / 2**i + 0.03]} for i in range(7)
        }
        (folder / "summary.json").write_text(json.dumps({**summary, "change": change}), encoding="utf-8")
    return folder


def spans(step: int) -> list[tuple[str, str, float, float]]:
    """Generation of the next step's samples beside this step's update."""
    at = 2.6 * step
    return [("generate", "ahead", at, at + 1.1), ("wait", "main", at, at + 0.2), ("update", "main", at + 0.3, at + 1.2)]


def evaluations(steps: int) -> list[tuple[str, int, float]]:
    """Name, version and pass@1 of each evaluation."""
    during = [(f"step_{s}", s, 0.41 + 0.29 * s / steps) for s in range(8, steps + 1, 8)]
    return [("base", 0, 0.41), *during]


def metrics_of(step: int, steps: int) -> dict[str, float]:
    """One line of metrics.jsonl."""
    done = step / steps
    row: dict[str, float] = {"step": step}
    if step % 8 == 0:
        block = pass_block(0.41 + 0.29 * done, 8)
        row |= {f"eval/held_out/pass@{n}": block[f"pass@{n}"] for n in (1, 2, 4, 8)} | {"time/eval": 2.0}
    if step == 0:
        return row
    jitter = random.gauss(0, 0.05)
    ungraded = int(step % 7 == 0)
    return {
        **row,
        "reward": 1.0 + done + jitter,
        "reward_std": 0.4 - 0.2 * done,
        "frac_reward_zero_std": 0.1 + 0.3 * done,
        "rewards/accuracy/mean": 0.4 + 0.3 * done + jitter / 2,
        f"rewards/{HOSTILE[1]}/mean": 0.1,
        "rewards/format/mean": 0.7 + 0.25 * done,
        "completions/mean_length": 30 + 20 * done + 30 * jitter,
        "completions/max_length": 96,
        "completions/clipped_ratio": 0.2 - 0.15 * done,
        "entropy": 0.8 - 0.4 * done,
        "kl": 0.001 + 0.03 * done,
        "mismatch_kl": 2e-6 * random.random(),
        "clip_ratio/low_mean": 0.002,
        "clip_ratio/high_mean": 0.004 * random.random(),
        "loss": random.gauss(0, 1e-3),
        "grad_norm": 0.3 + abs(jitter),
        "lr": 1e-4 * (1 - done),
        "stop/eos": 12,
        "stop/length": 4 - ungraded,
        "verify/right": 8,
        "verify/wrong": 8 - ungraded,
        "verify/could_not_grade": ungraded,
        "verify/reason/no answer": 0.1,
        "time/generate": 1.1,
        "time/verify": 0.1,
        "time/annotate": 0.3,
        "time/update": 0.9 + jitter,
        "time/step": 2.6 + jitter,
        "memory/peak_mib": 812.3 + 1e-13 * (step % 3),
        "faults/worker_killed": ungraded,
        "groups/dropped": 1,
        "something/new": step**0.5,
    }


def sample(step: int, steps: int, index: int) -> dict[str, Any]:
    """One line of rollouts/step_N.jsonl; the first samples of a step are hostile."""
    outcome = (
        "could_not_grade"
        if step % 7 == 0 and index == 5
        else "right"
        if random.random() < 0.4 + 0.3 * step / steps
        else "wrong"
    )
    text = f"27*3=81, 81+14=95\nThe answer is \\boxed{{{95 if outcome == 'right' else random.randint(10, 99)}}}."
    if index < len(HOSTILE):
        text = f"{HOSTILE[index]} {text}"
    graded = outcome != "could_not_grade"
    parts = {"accuracy": float(outcome == "right"), "format": random.choice([0.0, 1.0])} if graded else {}
    raw = 2 * parts["accuracy"] + parts["format"] if graded else None
    return {
        "step": step,
        "problem": f"arithmetic-{step}-{index // 8}",
        "prompt": f"<|user|>27*3+14= {HOSTILE[0]}<|assistant|>",
        "answer": "95",
        "index": index % 8,
        "seed": 2**62 + step * 100 + index,
        "version": step - 1,
        "digest": "cd" * 32,
        "prompt_ids": [1, 2, 3],
        "tokens": list(range(40 + index)),
        "logp": None,
        "text": text,
        "stop": "eos" if index % 4 else "length",
        "outcome": outcome,
        "reason": HOSTILE[1] if not graded else "",
        "seconds": 0.01,
        "reward": raw if raw is None else raw - 0.05 * index,
        "raw": raw,
        "parts": parts,
    }
