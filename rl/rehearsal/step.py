"""`train --rehearse`: one true step of a recipe at a reduced length, on a model of its dimensions with random weights.

One group of the recipe's size is decoded, then given forced random tokens and random rewards, annotated as the
algorithm and the shaping ask, and learned from by the recipe's own loss, adapter and optimizer. No data is read,
nothing is judged, and nothing is written. All happens in this process, on one device.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from ...parts import UserError, find
from ...records import Group, Problem, Request, Sampling, Verdict, derive_seed
from ...rollouts.base import Surroundings
from ..assembly import build_learner, dtype_name
from ..config import Config
from ..freshness import Proven
from ..learner.learner import PASSES
from ..learner.model import PREFIX, shape_for, shape_names, skeleton
from ..learner.scorer import Scorer
from .cards import CEILING, Card, Work, memory_bytes, stage_seconds
from .costs import Lengths, Passes, Shape, Trained
from .memory import Peak

if TYPE_CHECKING:
    from ..learner.learner import Learner

PROMPT = 64
"""Tokens of the rehearsal's prompt."""
NEW = 128
"""Tokens of each of its completions, where the recipe allows as many."""
STAGES = ("load", "publish", "decode", "annotate", "update")
COPIED, HASHED = 1 << 28, 1 << 25
"""Bytes of the copy and of the hash by which a device is measured."""


@dataclass(frozen=True)
class Measured:
    """What the rehearsal found."""

    model: str
    device: str
    dtype: str
    seconds: dict[str, float]
    """By stage, and for the parts of the update `forward`, `backward` and `optimizer`."""
    peaks: dict[str, float]
    """By stage, bytes: the device's memory, or what the process held."""
    before: float
    """Held before anything was loaded."""
    ceiling: Card
    """The device by its own products and copies."""
    work: Work
    """The rehearsed step."""
    full: Work
    """The recipe's."""
    peak_of: str
    """What the peaks are peaks of."""

    def predicted(self) -> dict[str, float]:
        """Seconds that the formulas give for the rehearsed step on this device at its ceiling."""
        return stage_seconds(self.work, self.ceiling, CEILING)

    def predicted_bytes(self) -> float:
        """Memory that they give, with what the engine of a CPU keeps in oneDNN's order beside bfloat16 layers."""
        twice = self.device == "cpu" and self.dtype == "bfloat16"
        reordered = self.work.size * self.work.shape.linear if twice else 0
        return self.before + sum(memory_bytes(self.work).values()) + reordered


@dataclass
class Stages:
    """Seconds and peaks by stage."""

    peak: Peak
    seconds: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """One stage."""
        self.peak.reset()
        start = self.now()
        yield
        self.seconds[name] = self.now() - start
        self.peaks[name] = self.peak.read()

    def now(self) -> float:
        """The time, when the device has done what it was told."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def parts(self) -> Iterator[None]:
        """Within an update: time its forward passes, its optimizer's steps, and what lies between, the backward."""
        marks: list[tuple[str, float]] = []

        def mark(name: str, *_: Any) -> None:
            marks.append((name, self.now()))

        def at_scorer(name: str, module: Any, *_: Any) -> None:
            if isinstance(module, Scorer):
                mark(name)

        with ExitStack() as hooks:
            for handle in (
                register_module_forward_pre_hook(partial(at_scorer, "forward")),
                register_module_forward_hook(partial(at_scorer, "backward")),
                register_optimizer_step_pre_hook(partial(mark, "optimizer")),
                register_optimizer_step_post_hook(partial(mark, "rest")),
            ):
                hooks.callback(handle.remove)
            yield
        for (name, start), (_, stop) in pairwise(marks):
            if name != "rest":
                self.seconds[name] = self.seconds.get(name, 0.0) + stop - start


def rehearse(config: Config, say: Callable[[str], None]) -> Measured:
    """Take the step and measure it.

    Raises:
        UserError: no shape stands for the recipe's model, or the model cannot be rehearsed so.
    """
    model = _shape_of(config.model)
    new = min(NEW, config.rollouts.max_tokens)
    short = Lengths(1, config.rollouts.group, PROMPT, new)
    plain = skeleton(model)
    _check_room(plain, short)
    trained = _trained(config, plain)
    peak = Peak()
    before, stages = peak.read(), Stages(peak)
    with stages("load"):
        learner = build_learner(config, model, say)
    with tempfile.TemporaryDirectory(prefix="underdog-") as scratch:
        _step(config, learner, short, stages, Path(scratch))
    dtype = dtype_name(config, learner)
    full = Lengths(
        config.rollouts.problems, config.rollouts.group, config.data.max_prompt_tokens, config.rollouts.max_tokens
    )
    shape, size = Shape.of(learner.model_config), getattr(torch, dtype).itemsize
    budget = config.learner.tokens or (2048 if learner.device == "cpu" else 16384)
    work = Work(shape, trained, short, _passes(config, merged=True), size, budget)
    merged = config.rollouts.engine.form(learner.policy) == "weights"
    return Measured(
        model,
        learner.device,
        dtype,
        stages.seconds,
        stages.peaks,
        before,
        _ceiling(shape, short.samples * short.new, learner.device, getattr(torch, dtype)),
        work,
        Work(shape, trained, full, _passes(config, merged=merged), 2, config.learner.tokens or 16384),
        peak.what,
    )


def _shape_of(model: str) -> str:
    """The shape that is the recipe's model or stands for it."""
    if model.startswith(PREFIX):
        return model
    shape = shape_for(model)
    if shape is None:
        listed = ", ".join(PREFIX + name for name in shape_names())
        raise UserError(f"--rehearse knows no shape of {model}: add model=shape:NAME (there are {listed})")
    return PREFIX + shape


def _check_room(plain: Any, lengths: Lengths) -> None:
    room = getattr(plain.config, "max_position_embeddings", None)
    if room is not None and lengths.prompt + lengths.new > room:
        raise UserError(
            f"--rehearse takes {lengths.prompt + lengths.new} tokens a sample and this model {room}: choose another "
            "shape, or lower rollouts.max_tokens"
        )


def _trained(config: Config, plain: Any) -> Trained:
    """By attaching the adapter to the architecture without weights."""
    total = sum(p.numel() for p in plain.parameters())
    adapted = config.learner.adapter.attach(plain, 0, None)
    numbers = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    return Trained(total, numbers, whole=type(config.learner.adapter) is find("adapter", "full"))


def _needs(config: Config) -> frozenset[str]:
    return config.algorithm.needs | config.shaping.needs


def _passes(config: Config, *, merged: bool) -> Passes:
    needs = _needs(config)
    scorings = sum(1 for names in PASSES if needs & set(names))
    epochs = getattr(config.algorithm, "epochs", 1)
    return Passes(merged, scorings, epochs, config.learner.gradient_checkpointing)


def _step(config: Config, learner: Learner, lengths: Lengths, stages: Stages, scratch: Path) -> None:
    """Publish, decode, annotate and update, each as a stage."""
    learner.tokenizer.eos_token = None  # so that no completion ends before its length
    learner.model_config.eos_token_id = None
    engine = Proven(find("engine", "local")().open(Surroundings(learner.tokenizer, learner.device, scratch)))
    with stages("publish"):
        engine.publish(learner.policy)
    draw = np.random.default_rng(derive_seed(config.seed, "rehearsal"))
    vocabulary = learner.model_config.vocab_size
    prompt_ids = draw.integers(vocabulary, size=lengths.prompt)
    problem = Problem("rehearsal", "")
    request = Request(problem, prompt_ids, tuple(range(lengths.group)), Sampling(lengths.new))
    with stages("decode"):
        (samples,) = engine.generate([request])
    forced = [_forced(sample, draw.integers(vocabulary, size=lengths.new)) for sample in samples]
    group = Group(problem, tuple(forced), tuple(Verdict("right") for _ in forced))
    with stages("annotate"):
        (group,) = learner.annotate([group], _needs(config))
    batch = config.algorithm.advantages([_rewarded(group, draw)])
    with stages("update"), stages.parts():
        learner.update(batch, config.algorithm.loss, 1, config.algorithm.needs)
    engine.close()


def _forced(sample: Any, tokens_T: np.ndarray) -> Any:
    """The sample with other tokens, of which the engine has no log-probs."""
    return replace(sample, tokens_T=tokens_T, logp_T=None, stop="length")


def _rewarded(group: Group, draw: np.random.Generator) -> Group:
    rewards_G = draw.normal(size=len(group.samples))
    return replace(group, rewards_G=rewards_G, raw_G=rewards_G)


def _ceiling(shape: Shape, tokens: int, device: str, dtype: torch.dtype) -> Card:
    """What the device does at best: the tokens into the model's widest layer, a copy (read and written), a hash."""
    x_TH = torch.randn(tokens, shape.hidden, device=device).to(dtype)
    weight_IH = torch.randn(shape.inner, shape.hidden, device=device).to(dtype)
    source = torch.ones(COPIED, dtype=torch.int8, device=device)
    target, hashed = torch.empty_like(source), bytes(HASHED)
    return Card(
        "this device",
        2 * tokens * weight_IH.numel() / _fastest(lambda: torch.mm(x_TH, weight_IH.t())),
        2 * COPIED / _fastest(lambda: target.copy_(source)),
        memory=0.0,
        hashing=HASHED / _fastest(lambda: hashlib.sha256(hashed).digest()),
    )


def _fastest(work: Callable[[], Any]) -> float:
    taken = []
    for _ in range(4):  # the first may compile
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return min(taken[1:])
