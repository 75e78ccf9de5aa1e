"""Which parameters change, counted while training: on the effective weights, and in A and B where there are any.

What is counted is exact, against the run's model as it came (without any adapter). Between tracked steps nothing is
computed or held but one bit a weight: whether a tracked step ever found it changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...kernels import delta as kernel
from ...kernels.gpu.device import takes
from ..learner.bitmaps import read_bitmaps, write_bitmaps
from ..runs.clock import Clock
from ..runs.files import replacing, write_json
from .maps import compare
from .modules import kind_of
from .output import tree_of
from .weights import Weights, held, of_learner

if TYPE_CHECKING:
    from ..learner.group import LearnerGroup
    from ..learner.learner import Learner

SPECTRA = 4
"""Matrices, the largest, whose spectra stand in the map of a checkpoint."""


class Counter:
    """Counts of one set of tensors against where they began."""

    def __init__(self, start: Mapping[str, Tensor]) -> None:
        """`start` is held, not copied."""
        self.start = start
        self.ever = {name: torch.zeros(t.shape, dtype=torch.bool, device=t.device) for name, t in start.items()}

    def count(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, float]:
        """Shares of all weights, and norms of the step and of the whole update by kind of module."""
        counts = dict.fromkeys(("unchanged", "moved", "reverted", "never_touched"), 0)
        step: dict[str, float] = {}
        whole: dict[str, float] = {}
        for name, first in self.start.items():
            was, now = first != before[name], first != after[name]
            self.ever[name] |= now
            counts["unchanged"] += _number(~now)
            counts["moved"] += _number(before[name] != after[name])
            counts["reverted"] += _number(was & ~now)
            counts["never_touched"] += _number(~self.ever[name])
            kind = kind_of(name)
            for into, one in ((step, before[name]), (whole, first)):
                into[kind] = into.get(kind, 0.0) + float((after[name].float() - one.float()).square().sum())
        weights = max(sum(t.numel() for t in self.start.values()), 1)
        return {
            **{name: number / weights for name, number in counts.items()},
            **{f"step_norm/{kind}": square**0.5 for kind, square in step.items()},
            **{f"norm/{kind}": square**0.5 for kind, square in whole.items()},
        }


class Tracker:
    """Counts at every `every`-th step (0: at none), and maps at checkpoints, all timed as `tracking`."""

    def __init__(self, learner: Learner | LearnerGroup, every: int, clock: Clock) -> None:
        """Take up the learner as it is before anything is trained or restored."""
        self._learner, self._every, self._clock = learner, every, clock
        self._before: dict[str, dict[str, Tensor]] = {}
        self._counters: dict[str, Counter] = {}
        if every:
            kernel.warm()
            base = {name: p.detach().clone() if p.requires_grad else p.detach() for name, p in learner.base_weights()}
            # Where kernels compare them the weights stay: frozen ones are then the learner's own, and cost nothing.
            places = {tensor.device for tensor in base.values() if takes(tensor)}
            self._base = held("the run's model", base, device=next(iter(places), Weights.device))
            self._counters = {name: Counter(tensors) for name, tensors in self._tensors(base).items()}

    def before(self, step: int) -> None:
        """Call before the update of `step`: at a tracked one the weights are kept until after it."""
        if self._due(step):
            with self._clock("tracking"):
                self._before = self._tensors(dict(self._learner.policy.weights()))

    def after(self, step: int) -> dict[str, float]:
        """Call after the update of `step`; metrics by name, none at a step that is not tracked."""
        if not self._due(step):
            return {}
        with self._clock("tracking"):
            now = self._tensors(dict(self._learner.policy.weights()))
            found = {part: c.count(self._before[part], now[part]) for part, c in self._counters.items()}
            self._before = {}
        return {f"updates/{part}{name}": value for part, values in found.items() for name, value in values.items()}

    def save(self, folder: Path) -> None:
        """Write what a resume needs, and the exact map since the run's model: touched.npz and updates.json."""
        if self._every:
            with self._clock("tracking"), replacing(folder) as temporary:
                temporary.mkdir()
                write_bitmaps(temporary / "touched.npz", dict(self._bitmaps()))
                now = of_learner(self._learner, self._base, "the policy")
                write_json(temporary / "updates.json", tree_of(compare(self._base, now, spectra=SPECTRA)))

    def load(self, folder: Path) -> None:
        """Take up what `save` wrote with the checkpoint that the run goes on from."""
        if self._every and (folder / "touched.npz").is_file():
            saved = read_bitmaps(folder / "touched.npz", {name: ever.shape for name, ever in self._bitmaps()})
            for name, ever in self._bitmaps():
                ever.copy_(saved[name])

    def prune(self, folder: Path, keep: set[int]) -> None:
        """Let go of what no resume needs any more; the maps stay."""
        for path in folder.glob("step_*/touched.npz"):
            if int(path.parent.name.removeprefix("step_")) not in keep:
                path.unlink()

    def _due(self, step: int) -> bool:
        return self._every > 0 and step % self._every == 0

    def _tensors(self, weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Copies by part: the effective weights that may change (part `""`), and an adapter's `A/` and `B/`."""
        form = self._learner.policy.adapter()
        factors = {} if form is None else form[1]
        parts = {f"{x}/": {n: t for n, t in factors.items() if f".lora_{x}." in n} for x in "AB"}
        parts = {part: {n: t.detach().clone() for n, t in own.items()} for part, own in parts.items() if own}
        whole = {n: t.detach() if self._frozen(n, t) else t.detach().clone() for n, t in weights.items()}
        return {"": whole, **parts}

    def _frozen(self, name: str, tensor: Tensor) -> bool:
        """Whether it is the base's own, and so cannot change."""
        return tensor.data_ptr() == self._base.read(name).data_ptr()

    def _bitmaps(self) -> Iterator[tuple[str, Tensor]]:
        for part, counter in self._counters.items():
            yield from ((f"{part}{name}", ever) for name, ever in counter.ever.items())


def _number(mask: Tensor) -> int:
    return int(torch.count_nonzero(mask))
