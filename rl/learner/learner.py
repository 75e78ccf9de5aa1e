"""The learner: log-probs of what was sampled, and updates of the policy from it, in micro-batches without padding."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...kernels import packing
from ...kernels.precision import compute_dtype
from ...records import Batch, Group, Policy, Row, Sample, derive_seed
from ..algorithms.base import MicroBatch, Outputs
from ..updates.modules import kind_of
from .bitmaps import read_bitmaps
from .dropout import Dropout
from .masters import Masters
from .model import load_base, pick_device, pick_dtype
from .options import LearnerOptions
from .packed import PackedDecoder
from .padded import PaddedDecoder
from .perturbations.base import Perturbing, Site
from .policy import LivePolicy
from .ranks import Ranks
from .scorer import Scorer
from .sharded import full, like
from .tally import Tally
from .values import Values

Loss = Callable[[Outputs, MicroBatch], tuple[Tensor, dict[str, Tensor]]]
PASSES = (("logp", "values"), ("ref_logp",))
"""The annotations, by the pass through the model that gives them."""
ANNOTATIONS = frozenset(name for one_pass in PASSES for name in one_pass)
CRITIC = "critic."
"""Begins the names of what is trained and is no part of the policy."""
PERTURBATION = "perturbation/"
"""Begins the names of a perturbation's tensors in a state."""


class Learner:
    """Holds the model, its adapter and its optimizer."""

    def __init__(
        self,
        model: str,
        options: LearnerOptions,
        *,
        seed: int,
        steps: int,
        device: str | None = None,
        init_adapter: str | Path | None = None,
        log: Callable[[str], None],
        ranks: Ranks | None = None,
        masks: Path | None = None,
        values: bool = False,
    ) -> None:
        """Load `model`, attach the adapter, and shard it over `ranks` (none: this process alone).

        `masks` holds the bitmaps of the weights that are trained, where not all of them are; with `values` there is a
        critic.

        Raises:
            UserError: the model, the adapter or the saved adapter cannot be had; the message says what to do.
        """
        self._name, self._options, self._seed, self._steps, self._log = model, options, seed, steps, log
        self._device = device or pick_device()
        self._budget = options.tokens or (2048 if self._device == "cpu" else 16384)
        base = self._load_base()
        self.tokenizer, self.model_config = base.tokenizer, base.model.config
        self._base = base.model
        start = Path(init_adapter) if init_adapter else None
        self._model = options.adapter.attach(base.model, derive_seed(seed, "adapter"), start)
        if start is None:
            options.initialisation.on_init(self._model, derive_seed(seed, "initialisation"))
        chosen = _restrict(base.model, masks) if masks is not None else None
        self._ranks = ranks or Ranks()
        self._scorer = Scorer(base.model, self._decoder(base.model), self._critic() if values else None)
        self._live = LivePolicy(self._model, base.model, base.tokenizer, options.adapter)
        self._ranks.shard(self._scorer, self._device)
        self._trained = [(name, p) for name, p in base.model.named_parameters() if p.requires_grad]
        critics = [(n, p) for n, p in self._scorer.named_parameters() if n.startswith(CRITIC) and p.requires_grad]
        self._masters = Masters([*self._trained, *critics], chosen, wide=options.masters)
        self._optimizer, self._peaks = self._build_optimizer()
        self._perturbing = self._build_perturbing()
        # On a CPU each new shape of a bfloat16 product is compiled, and kept: a millisecond and half a megabyte.
        narrow = self._device == "cpu" and compute_dtype(base.model.dtype, "cpu") == torch.bfloat16
        self._multiple = 64 if narrow else 1
        self._reference: Scorer | None = None
        self._kept: tuple[int, list[Tensor]] = (-1, [])

    @property
    def policy(self) -> Policy:
        """A live view of the policy: what an engine publishes."""
        return self._live

    @property
    def device(self) -> str:
        """Where the model is."""
        return self._device

    def annotate(self, groups: Sequence[Group], needs: frozenset[str]) -> list[Group]:
        """Groups with the annotations `logp`, `values` (this policy's) and `ref_logp` (the base's) that are needed.

        No dropout, no gradients; what a group already has is not computed again.
        """
        groups = list(groups)
        for one_pass in PASSES:
            names = [name for name in one_pass if name in needs]
            todo = [i for i, group in enumerate(groups) if not group.annotations.keys() >= set(names)]
            samples = [sample for i in todo for sample in groups[i].samples]
            if not samples:
                continue
            found = self._scores([s.prompt_ids for s in samples], [s.tokens_T for s in samples], names)
            each = {name: iter(arrays) for name, arrays in found.items()}
            for i in todo:
                own = {name: tuple(next(arrays) for _ in groups[i].samples) for name, arrays in each.items()}
                if self._perturbing.moves and "logp" in own:
                    own["old_logp"] = own["logp"]
                groups[i] = replace(groups[i], annotations={**own, **groups[i].annotations})
        return groups

    def remember(self) -> None:
        """Keep this version's trained tensors, instead of any kept before, so that `logps` can still be asked of it."""
        self._kept = (self._live.number, [p.detach().clone() for _, p in self._trained])

    def logps(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        """One float32 array [T] a sample, all of one version: this one or the one remembered. No dropout.

        Raises:
            ValueError: the samples' version is neither.
        """
        prompts, completions = [s.prompt_ids for s in samples], [s.tokens_T for s in samples]
        (number,) = {sample.version.number for sample in samples}
        if number == self._live.number:
            return self._logps(prompts, completions)
        if number != self._kept[0]:
            raise ValueError(f"version {number} is neither the learner's own nor remembered")
        with self._as_kept():
            return self._logps(prompts, completions)

    def update(self, batch: Batch, loss: Loss, step: int, needs: frozenset[str] = frozenset()) -> dict[str, float]:
        """Take the optimizer steps that `batch` asks for; `step` counts from 1.

        `needs` are the algorithm's (see `Algorithm.needs`). Returns what was measured: token means of the
        loss's statistics and of the entropy, and of the first epoch `mismatch_kl` (k3 between the engine's log-probs
        and the learner's) and `mismatch_gap` (the largest difference); `grad_norm/<kind>` is the last step's.
        """
        share = self._options.schedule.share(step, self._steps)
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * share
        batch = self._with_old_logps(batch)
        tally, losses, norms, skipped = Tally(), [], [], 0
        by_kind: dict[str, float] = {}
        for epoch, part, rows in self._minibatches(batch, step):
            seed = Dropout(derive_seed(self._seed, "dropout", step, epoch, part))
            take = partial(self._gradients, rows, loss, seed, needs=needs, first=epoch == 0)
            losses.append(self._perturbing.gradients(take, tally, (step, epoch, part)) + self._penalty(step))
            by_kind = self._norms_by_kind()
            norms.append(self._clipped_norm(critic=False))
            if self._abnormal(norms[-1]) or not math.isfinite(self._clipped_norm(critic=True)):
                skipped += 1
            else:
                self._optimizer.step()
                self._masters.publish()
                self._options.regulariser.after_optimizer_step(self._model, step)
            self._optimizer.zero_grad(set_to_none=True)
        self._live.number += 1
        finite = [norm for norm in norms if math.isfinite(norm)]
        return {
            "loss": float(np.mean(losses)) if losses else 0.0,
            "grad_norm": float(np.mean(finite)) if finite else 0.0,
            "lr": self._options.lr * share,
            "tokens": float(sum(len(row.tokens_T) for row in batch.rows)),
            "updates/steps": float(len(norms) - skipped),
            "updates/skipped": float(skipped),
            **{f"grad_norm/{kind}": norm for kind, norm in by_kind.items() if math.isfinite(norm)},
            **self._perturbing.stats(),
            **tally.read(self._ranks),
        }

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs: `tensors` by name (safetensors) and `json`."""
        tensors = {f"parameters/{name}": full(p.detach()) for name, p in self._masters.named}
        numbers: dict[str, Any] = {}
        for name, parameter in self._masters.named:
            for key, value in self._optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer/{name}/{key}"] = full(value)
                else:
                    numbers[f"optimizer/{name}/{key}"] = value
        moving = self._perturbing.state_dict()
        tensors |= {f"{PERTURBATION}{name}": tensor for name, tensor in moving["tensors"].items()}
        return {
            "tensors": tensors,
            "json": {"updates": self._live.number, "optimizer": numbers, "perturbation": moving["json"]},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state: the next update is bit for bit that of the learner that saved it."""
        numbers = state["json"]["optimizer"]
        for name, parameter in self._masters.named:
            parameter.data.copy_(like(state["tensors"][f"parameters/{name}"], parameter))
            prefix = f"optimizer/{name}/"
            entries = {**state["tensors"], **numbers}
            own = {k.removeprefix(prefix): v for k, v in entries.items() if k.startswith(prefix)}
            self._optimizer.state.pop(parameter, None)
            if own:
                self._optimizer.state[parameter] = {k: _placed(v, parameter) for k, v in own.items()}
        self._masters.publish()
        moving = {k.removeprefix(PERTURBATION): v for k, v in state["tensors"].items() if k.startswith(PERTURBATION)}
        self._perturbing.load_state_dict({"tensors": moving, "json": state["json"].get("perturbation", {})})
        self._live.number = state["json"]["updates"]

    def trained(self) -> list[Tensor]:
        """The trained tensors, whole and on the CPU, in the order of the model's parameters."""
        return [full(p.detach()).cpu() for _, p in self._trained]

    def base_weights(self) -> Iterator[tuple[str, Tensor]]:
        """The model's own parameters by plain names, without any adapter; live: those that are trained will move."""
        return self._options.adapter.base_weights(self._model)

    def masters(self) -> dict[str, Tensor]:
        """Float32 masters of trained weights that are narrower, by the weights' names; none where none are."""
        return {name: full(master) for name, master in self._masters.wide().items()}

    def take(self, tensors: Sequence[Tensor]) -> None:
        """Become what another learner's update made of the trained tensors."""
        for (_, parameter), tensor in zip(self._trained, tensors, strict=True):
            parameter.data.copy_(tensor)
        self._live.number += 1

    def close(self) -> None:
        """Nothing is held beyond this process."""

    def save_adapter(self, folder: Path) -> str:
        """See `LivePolicy.save_adapter`."""
        return self._live.save_adapter(folder)

    def save_merged(self, folder: Path) -> None:
        """See `LivePolicy.save_merged`."""
        self._live.save_merged(folder)

    @contextmanager
    def _as_kept(self) -> Iterator[None]:
        """The remembered version's tensors in the model's places."""
        present = [p.detach().clone() for _, p in self._trained]
        try:
            for (_, parameter), tensor in zip(self._trained, self._kept[1], strict=True):
                parameter.data.copy_(tensor)
            yield
        finally:
            for (_, parameter), tensor in zip(self._trained, present, strict=True):
                parameter.data.copy_(tensor)

    def _critic(self) -> Values:
        """The critic; a trunk of its own shares the frozen base's memory."""

        def trunk() -> tuple[Any, PackedDecoder | PaddedDecoder]:
            model = self._load_base().model
            self._options.adapter.attach(model, derive_seed(self._seed, "critic"), None)
            frozen = {name: p for name, p in self._base.named_parameters() if not p.requires_grad}
            for name, parameter in model.named_parameters():
                if not parameter.requires_grad and parameter.is_floating_point():
                    parameter.data = frozen[name].data
            return model, self._decoder(model)

        width = self._base.get_output_embeddings().weight.shape[1]
        return self._options.critic.build(width, trunk).to(self._device)

    def _build_optimizer(self) -> tuple[Any, list[float]]:
        """The optimizer, and the peak rate of each of its groups: the policy's, and the critic's own."""
        named, lr = self._masters.named, self._options.lr
        optimizer = self._options.optimizer.build([(n, p) for n, p in named if not n.startswith(CRITIC)], lr)
        if critics := [p for n, p in named if n.startswith(CRITIC)]:
            optimizer.add_param_group({"params": critics})
        return optimizer, [lr, self._options.critic.lr or lr][: len(optimizer.param_groups)]

    def _build_perturbing(self) -> Perturbing:
        policy = [(name, tensor) for name, tensor in self._masters.named if not name.startswith(CRITIC)]
        seed, packed = derive_seed(self._seed, "perturbation"), PackedDecoder.knows(self._base)
        return self._options.perturbation.build(
            Site(self._base, self._masters, policy, self._optimizer, seed, packed=packed)
        )

    def _load_base(self) -> Any:
        dtype = pick_dtype(self._options.dtype, self._device)
        extra = self._options.adapter.load_options()
        seed = derive_seed(self._seed, "model") if self._name.startswith("shape:") else 0
        return load_base(self._name, seed=seed, dtype=dtype, device=self._device, extra=extra)

    def _decoder(self, base: Any) -> PackedDecoder | PaddedDecoder:
        checkpointing = self._options.gradient_checkpointing
        if PackedDecoder.knows(base):
            return PackedDecoder(base, self._options.adapter, checkpointing=checkpointing)
        self._log(f"{base.config.model_type}: the learner pads rows, as it does not know how to pack this architecture")
        return PaddedDecoder(base, checkpointing=checkpointing)

    def _logps(self, prompts: list[np.ndarray], completions: list[np.ndarray]) -> list[np.ndarray]:
        return self._scores(prompts, completions, ["logp"])["logp"]

    @torch.no_grad()
    def _scores(
        self, prompts: list[np.ndarray], completions: list[np.ndarray], names: Sequence[str]
    ) -> dict[str, list[np.ndarray]]:
        """What one pass gives of `names` (see `PASSES`): one float32 array [T] a row; on every rank all of them."""
        scorer, context = self._scorer, nullcontext()
        if "ref_logp" in names:
            scorer, context = self._reference_model()
        results: dict[int, list[np.ndarray]] = {}
        parts = packing.split(prompts, completions, self._budget)
        with context:
            for _, members in self._ranks.deal(parts):
                rows = members or parts[0][:1]
                packed = packing.pack(prompts, completions, rows, self._multiple)
                outputs = scorer(packed, None, values="values" in names)
                cuts = np.cumsum([len(completions[row]) for row in rows])[:-1]
                wanted = [outputs.value_T if name == "values" else outputs.logp_T for name in names]
                own = [np.split(tensor_T.cpu().numpy().astype(np.float32), cuts) for tensor_T in wanted]
                results.update(zip(rows, map(list, zip(*own, strict=True)), strict=True) if members else ())
        everyones = self._ranks.collected(results)
        none = [np.zeros(0, np.float32)] * len(names)  # of a completion without tokens
        found = [everyones.get(row, none) for row in range(len(prompts))]
        return {name: [arrays[i] for arrays in found] for i, name in enumerate(names)}

    def _reference_model(self) -> tuple[Scorer, AbstractContextManager[Any]]:
        """The base as it was: the same model with the adapter off, or a frozen copy, loaded when first needed."""
        off = self._options.adapter.off(self._model)
        if off is not None:
            return self._scorer, off
        if self._reference is None:
            self._log("loading a frozen copy of the base as the reference policy")
            model = self._load_base().model
            self._reference = Scorer(model, self._decoder(model))
        return self._reference, nullcontext()

    def _with_old_logps(self, batch: Batch) -> Batch:
        """With several optimizer steps a batch, or moved weights, old log-probs must be known before the first."""
        several = batch.epochs > 1 or (batch.minibatch is not None and batch.minibatch < len(batch.rows))
        moved = self._perturbing.moves and batch.compares
        todo = [i for i, row in enumerate(batch.rows) if row.old_logp_T is None]
        if not (several or moved) or not todo:
            return batch
        rows = list(batch.rows)
        logps = self._logps([rows[i].prompt_ids for i in todo], [rows[i].tokens_T for i in todo])
        for i, logp_T in zip(todo, logps, strict=True):
            rows[i] = replace(rows[i], old_logp_T=logp_T)
        return replace(batch, rows=tuple(rows))

    def _minibatches(self, batch: Batch, step: int) -> Iterator[tuple[int, int, list[Row]]]:
        """(epoch, part, rows) of each optimizer step; parts are drawn anew each epoch, their weights scaled up."""
        count = len(batch.rows)
        size = min(batch.minibatch or count, count)
        for epoch in range(batch.epochs if count else 0):
            order = np.arange(count)
            if size < count:
                order = np.random.default_rng(derive_seed(self._seed, "rows", step, epoch)).permutation(count)
            for part, start in enumerate(range(0, count, size)):
                chosen = [batch.rows[i] for i in order[start : start + size]]
                scale = count / len(chosen)
                rows = chosen if scale == 1 else [replace(row, weight=row.weight * scale) for row in chosen]
                yield epoch, part, rows

    def _gradients(
        self, rows: list[Row], loss: Loss, seed: Dropout, tally: Tally, *, needs: frozenset[str], first: bool
    ) -> float:
        """Add up the gradients of one optimizer step; its loss."""
        total = 0.0
        extra = {"entropy_grad": "entropy" in needs, "values": "values" in needs, "rivals": "rivals" in needs}
        prompts, completions = [row.prompt_ids for row in rows], [row.tokens_T for row in rows]
        parts = packing.split(prompts, completions, self._budget)
        for index, members in self._ranks.deal(parts):
            packed = packing.pack(prompts, completions, members or parts[0][:1], self._multiple)
            outputs = self._scorer(packed, seed.at(index), entropy=True, **extra)
            if members is None:  # others still have one: take part in the pass, and add nothing
                torch.cat([output_T for output_T in outputs if output_T is not None]).sum().mul(0).backward()
                continue
            micro = _micro_batch([rows[i] for i in members], packed, outputs.logp_T)
            value, stats = loss(outputs, micro)
            value.backward()
            total += float(value.detach())
            assert outputs.entropy_T is not None
            for name, values_T in {"entropy": outputs.entropy_T, **stats}.items():
                tally.add(name, values_T)
            if first and micro.engine_logp_T is not None:
                gap_T = micro.old_logp_T - micro.engine_logp_T
                tally.add("mismatch_kl", torch.expm1(gap_T) - gap_T)
                tally.peak("mismatch_gap", gap_T.abs())
        return self._ranks.total({"loss": total})["loss"]

    def _penalty(self, step: int) -> float:
        penalty = self._options.regulariser.penalty(self._model, step)
        if penalty is None:
            return 0.0
        penalty.backward()
        return float(penalty.detach())

    def _norms_by_kind(self) -> dict[str, float]:
        """Gradient norms by kind of module, before clipping."""
        gradients: dict[str, list[Tensor]] = {}
        for name, parameter in self._masters.named:
            if parameter.grad is not None:
                kind = "critic" if name.startswith(CRITIC) else kind_of(name)
                gradients.setdefault(kind, []).append(parameter.grad)
        return {kind: float(full(torch.nn.utils.get_total_norm(own))) for kind, own in gradients.items()}

    def _clipped_norm(self, *, critic: bool) -> float:
        """The norm of the policy's gradients, or of the critic's own, before it is brought down to `max_grad_norm`.

        Apart, so that a critic that is far off does not take the policy's step away.
        """
        named = self._masters.named
        gradients = [p.grad for name, p in named if p.grad is not None and name.startswith(CRITIC) == critic]
        norm = float(full(torch.nn.utils.get_total_norm(gradients))) if gradients else 0.0
        top = self._options.max_grad_norm
        if top is not None and math.isfinite(norm) and norm > top:
            for gradient in gradients:
                gradient.mul_(top / norm)
        return norm

    def _abnormal(self, norm: float) -> bool:
        limit = self._options.skip_grad_norm
        return not math.isfinite(norm) or (limit is not None and norm > limit)


def _restrict(model: Any, file: Path) -> dict[str, Tensor]:
    """The masks of the weights that are trained; whole tensors outside are frozen."""
    parameters = dict(model.named_parameters())
    masks = read_bitmaps(file, {name: parameter.shape for name, parameter in parameters.items()})
    for name, parameter in parameters.items():
        parameter.requires_grad_(parameter.requires_grad and bool(masks[name].any()))
    return masks


def _micro_batch(rows: list[Row], packed: packing.Packing, logp_T: Tensor) -> MicroBatch:
    """What the loss takes, on the device of `logp_T`, in the order of the packed completions."""
    device = logp_T.device

    def joined(arrays: list[Any]) -> Tensor | None:
        if any(array is None for array in arrays):
            return None
        return torch.from_numpy(np.concatenate(arrays).astype(np.float32)).to(device)

    advantage_T = joined([row.advantage_T for row in rows])
    weight_T = joined([np.full(len(row.tokens_T), row.weight) for row in rows])
    assert advantage_T is not None
    assert weight_T is not None
    old_logp_T = joined([row.old_logp_T for row in rows])
    return MicroBatch(
        advantage_T=advantage_T,
        weight_T=weight_T,
        old_logp_T=logp_T.detach() if old_logp_T is None else old_logp_T,
        row_T=torch.from_numpy(packed.row_C).to(device),
        rows=len(rows),
        engine_logp_T=joined([row.engine_logp_T for row in rows]),
        ref_logp_T=joined([row.ref_logp_T for row in rows]),
        old_value_T=joined([row.old_value_T for row in rows]),
        return_T=joined([row.return_T for row in rows]),
    )


def _placed(value: Any, parameter: Tensor) -> Any:
    """Optimizer state on the parameter's device; the step counter stays where the optimizer made it."""
    if not isinstance(value, Tensor):
        return value
    return like(value, parameter).clone() if value.shape == parameter.shape else value.to(parameter.device).clone()
