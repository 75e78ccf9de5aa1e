"""The loss around the place where a run ended, on held-out solutions: how sharply it curves, what a perturbation costs.

By a plain transformers model, which autograd can differentiate twice, in float64 but for what the model's own code
does in float32 (norms, softmax). It moves in one of two spaces: `trained`, the parameters that the run trained (LoRA's
factors A and B); or `effective`, the weights W + s B A of all linear layers but the head. The curvature in the factors
changes when A grows as B shrinks, though the model stays the same; that in the effective weights does not, and
compares ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..parts import find
from ..records import Sample, derive_seed
from ..rollouts.base import Surroundings
from .config import Config
from .data.prompts import wording
from .data.split import load
from .learner.learner import Learner
from .learner.model import load_base
from .learner.sharpness import Eigenvalue, gradient, hessian_product, largest_eigenvalue
from .made import find_model
from .runs.folder import read_config
from .runs.held_out_loss import solutions
from .sampling import Prompt
from .trained import trained_learner

Space = Literal["trained", "effective"]
Direction = Mapping[str, Tensor]
"""A tensor for each parameter's name."""
IGNORED = -100
"""The label of a token that does not count."""


class Landscape:
    """A model, its parameters that move, and a fixed batch of prompts and completions."""

    def __init__(self, model: nn.Module, parameters: Mapping[str, Tensor], samples: Sequence[Sample]) -> None:
        """`model` is a causal language model of transformers that holds `parameters`, which require gradients."""
        self.parameters = dict(parameters)
        self._model = model
        self._ids_BT, self._labels_BT, self._mask_BT = _padded(samples)

    def loss(self) -> Tensor:
        """Cross-entropy, a mean over the completions' tokens: the loss of the algorithm `supervised`."""
        logits_BTV = self._model(input_ids=self._ids_BT, attention_mask=self._mask_BT, use_cache=False).logits
        return cross_entropy(logits_BTV[:, :-1].flatten(0, 1), self._labels_BT[:, 1:].flatten(), ignore_index=IGNORED)

    def gradients(self) -> dict[str, Tensor]:
        """By parameter."""
        flat_N = gradient(self.loss, list(self.parameters.values()))
        pieces = flat_N.split([p.numel() for p in self.parameters.values()])
        return {name: piece.view_as(p) for (name, p), piece in zip(self.parameters.items(), pieces, strict=True)}

    def sharpness(self, products: int, tolerance: float = 0.02, seed: int = 0) -> Eigenvalue:
        """The largest eigenvalue of the loss's Hessian in the parameters; see `largest_eigenvalue`."""
        own = list(self.parameters.values())
        generator = torch.Generator().manual_seed(seed)
        start_N = torch.randn(sum(p.numel() for p in own), generator=generator, dtype=own[0].dtype)
        return largest_eigenvalue(hessian_product(self.loss, own), start_N, products=products, tolerance=tolerance)

    @torch.no_grad()
    def along(self, direction: Direction, scales: Sequence[float]) -> list[float]:
        """The loss at parameters + scale · direction, for each scale; the parameters are put back, bit for bit."""
        kept = {name: p.detach().clone() for name, p in self.parameters.items()}
        losses = []
        try:
            for scale in scales:
                for name, parameter in self.parameters.items():
                    parameter.copy_(kept[name] + scale * direction[name])
                losses.append(float(self.loss().detach()))
        finally:
            for name, parameter in self.parameters.items():
                parameter.copy_(kept[name])
        return losses


def open_landscapes(run: Path, problems: int, which: str = "last") -> dict[Space, Landscape]:
    """Around a run's checkpoint `which`, over the solutions of its first `problems` held-out problems.

    Raises:
        UserError: the folder holds no run, or not that checkpoint; or a problem has no solution.
    """
    config = read_config(run)
    name = find_model(config.model)
    learner = trained_learner(run, name, which)
    samples = _held_out(config, learner, run, problems)

    def model() -> Any:
        seed = derive_seed(config.seed, "model")
        own = load_base(name, seed=seed, dtype=torch.float64, device="cpu").model
        own.set_attn_implementation("eager")  # the one whose gradient autograd can differentiate
        return own

    factors, whole = model(), model()
    return {
        "trained": Landscape(factors, _as_trained(factors, config, learner), samples),
        "effective": Landscape(whole, _as_effective(whole, learner), samples),
    }


def row_noise(at: Landscape, seed: int, sigma: float = 0.03, beta: float = 0.01) -> dict[str, Tensor]:
    """GGPO's perturbation (arXiv 2502.14538v1): row i ~ N(0, sigma²/n (|W_i|² + beta |G_i|²)), n the row's length.

    G is the gradient at the landscape's own weights and batch.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn, gradients = {}, at.gradients()
    for name, weight in at.parameters.items():
        squares = weight.detach().square().sum(1, keepdim=True) + beta * gradients[name].square().sum(1, keepdim=True)
        deviation = sigma * (squares / weight.shape[1]).sqrt()
        drawn[name] = deviation * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return drawn


def ascent(at: Landscape) -> dict[str, Tensor]:
    """The gradient, each tensor's at norm 1: what MGPO's direction is where the momentum is the gradient."""
    return {name: own / own.norm().clamp_min(1e-300) for name, own in at.gradients().items()}


def _held_out(config: Config, learner: Learner, run: Path, problems: int) -> list[Sample]:
    kept, _ = wording(config.data, learner.tokenizer).fit(load(config.data, config.seed).held_out)
    chosen = [Prompt(problem, ids) for problem, ids in kept[:problems]]
    gold = find("engine", "gold")().open(Surroundings(learner.tokenizer, learner.device, run))
    return solutions(gold, learner.policy, chosen, config.rollouts.sampling())


def _as_trained(model: Any, config: Config, learner: Learner) -> dict[str, Tensor]:
    """The adapter attached, and the learner's trained tensors in their places."""
    config.learner.adapter.attach(model, 0, None)
    model.double()
    moved = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for parameter, tensor in zip(moved.values(), learner.trained(), strict=True):
            parameter.copy_(tensor)
    return moved


def _as_effective(model: Any, learner: Learner) -> dict[str, Tensor]:
    """The policy's weights, merged; those of linear layers move."""
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in learner.policy.weights():
            own[name].copy_(weight)
    head = model.get_output_embeddings()
    linear = [f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head]
    return {name: own[name].requires_grad_() for name in linear}


def _padded(samples: Sequence[Sample]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, labels and attention mask, [B, T] each, padded on the right."""
    rows = [[*map(int, sample.prompt_ids), *map(int, sample.tokens_T)] for sample in samples]
    shape = (len(rows), max(map(len, rows)))
    ids_BT, mask_BT = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    labels_BT = torch.full(shape, IGNORED)
    for b, (row, sample) in enumerate(zip(rows, samples, strict=True)):
        own = torch.tensor(row)
        begin = len(sample.prompt_ids)
        ids_BT[b, : len(row)], mask_BT[b, : len(row)], labels_BT[b, begin : len(row)] = own, 1, own[begin:]
    return ids_BT, labels_BT, mask_BT
