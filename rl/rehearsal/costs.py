"""What a step of a run costs by formula: floating-point operations, bytes moved and bytes held.

With W the entries of a model's linear layers, A and K the widths of its queries and of its keys, L layers, a hidden
state of H, an inner width of I, a vocabulary of V and trained low-rank factors of R entries, one token's forward takes

    2 W + 2 R + 2 H V        (the head, of tokens that are scored or drawn only)

operations, and a row of S tokens 4 A L S (S + 1) / 2 more for its causal attention. The backward pass through frozen
weights makes one product each, as the forward does, and two where weights are trained. A frozen head's gradient is
formed in the forward pass (`kernels/logprob.py`), so that the head costs twice there and nothing afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...kernels.logprob import BLOCK_ELEMENTS
from ...kernels.packing import split
from ...parts import UserError

ATTENTION_BACK = 2.5
"""Products in attention's backward pass over those in its forward: five for two, the scores computed again."""
OPTIMIZER_BYTES = 16
"""A trained number in float32, its gradient and Adam's two moments."""
MERGE_TRAFFIC = 40
"""Bytes that merging a weight moves: it is widened, its update made, scaled and added, the sum rounded and copied."""
OPTIMIZER_TRAFFIC = 28
"""Bytes that a step of Adam moves for each: four are read, and all but the gradient written."""


@dataclass(frozen=True)
class Shape:
    """A decoder's dimensions; gated feed-forward layers, keys shared by several queries."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> Shape:
        """From a transformers configuration.

        Raises:
            UserError: it is of no such decoder.
        """
        try:
            return cls(
                config.hidden_size,
                config.intermediate_size,
                config.num_hidden_layers,
                config.num_attention_heads,
                config.num_key_value_heads,
                getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
                config.vocab_size,
            )
        except AttributeError as error:
            raise UserError(
                f"model: no costs are known for {config.model_type} ({error.name} is missing); choose a shape of the "
                "Qwen or Llama kind"
            ) from None

    @property
    def linear(self) -> int:
        """W: entries of all linear layers, without the head."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return self.layers * (2 * self.hidden * q + 2 * self.hidden * kv + 3 * self.hidden * self.inner)

    @property
    def head(self) -> int:
        """H V."""
        return self.hidden * self.vocabulary

    def kept(self) -> int:
        """Numbers a token that a layer keeps for its backward pass, without the low-rank products.

        Inputs and outputs of both norms, queries and keys and values, attention's output as it is kept and as the next
        product takes it, gate and up and their product.
        """
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return 4 * self.hidden + 3 * q + 2 * kv + 3 * self.inner

    def cache_bytes(self, size: int) -> int:
        """Keys and values of one position, numbers of `size` bytes."""
        return 2 * self.layers * self.kv_heads * self.head_dim * size


@dataclass(frozen=True)
class Trained:
    """What is trained: all `numbers` of a model, or low-rank factors beside it."""

    parameters: int
    """Of the model, without factors."""
    numbers: int
    """That are trained."""
    whole: bool
    """Whether those are the model's own weights."""


@dataclass(frozen=True)
class Lengths:
    """A step's samples: `problems` x `group`, each of `new` tokens after a prompt of `prompt`."""

    problems: int
    group: int
    prompt: int
    new: int

    @property
    def samples(self) -> int:
        """All of them."""
        return self.problems * self.group

    def pieces(self, budget: int) -> list[Piece]:
        """The micro-batches into which the learner splits them."""
        prompts = [np.full(self.prompt, p) for p in range(self.problems) for _ in range(self.group)]
        completions = [np.zeros(self.new, dtype=np.int8)] * self.samples
        found = []
        for rows in split(prompts, completions, budget):
            distinct = len({row // self.group for row in rows})
            tokens = distinct * self.prompt + len(rows) * (self.new - 1)
            found.append(Piece(tokens, len(rows) * self.new, len(rows) * pairs(self.prompt + self.new - 1)))
        return found


@dataclass(frozen=True)
class Piece:
    """One pass: tokens through the layers, tokens through the head, and pairs of query and key that meet."""

    tokens: int
    scored: int
    pairs: int


@dataclass(frozen=True)
class Passes:
    """How a step uses the policy and its samples."""

    merged: bool
    """Whether the effective weights are published, not an adapter beside the base."""
    scorings: int
    """Forward passes without gradients before the update."""
    epochs: int
    """Forward and backward passes in it."""
    checkpointing: bool


def pairs(length: int) -> int:
    """Of query and key in the causal attention of a row."""
    return length * (length + 1) // 2


def layers_flops(shape: Shape, trained: Trained, piece: Piece) -> float:
    """One forward pass through all layers."""
    factors = 0 if trained.whole else trained.numbers
    attention = 4 * shape.layers * shape.heads * shape.head_dim * piece.pairs
    return 2.0 * (shape.linear + factors) * piece.tokens + attention


def scoring_flops(shape: Shape, trained: Trained, piece: Piece) -> float:
    """A forward pass without gradients."""
    return layers_flops(shape, trained, piece) + 2.0 * shape.head * piece.scored


def forward_flops(shape: Shape, trained: Trained, piece: Piece) -> float:
    """A forward pass that prepares gradients: the head's is formed with it."""
    return layers_flops(shape, trained, piece) + 4.0 * shape.head * piece.scored


def backward_flops(shape: Shape, trained: Trained, piece: Piece, checkpointing: bool) -> float:
    """The backward pass, and with `checkpointing` the layers' forward once more."""
    own = 4.0 * shape.linear if trained.whole else 2.0 * shape.linear + 4.0 * trained.numbers
    attention = ATTENTION_BACK * 4 * shape.layers * shape.heads * shape.head_dim * piece.pairs
    head = 4.0 * shape.head * piece.scored if trained.whole else 0.0
    again = layers_flops(shape, trained, piece) if checkpointing else 0.0
    return own * piece.tokens + attention + head + again


def hashed_bytes(trained: Trained, passes: Passes, size: int) -> float:
    """Read by SHA-256 at a publication: what is trained, and what is sent, before it is sent and after."""
    sent = size * trained.parameters if passes.merged else 4 * trained.numbers
    return float(4 * trained.numbers + 2 * sent)


def merge_bytes(trained: Trained, passes: Passes) -> float:
    """Moved to make what is published: each weight's sum in float32, rounded, and its copy."""
    return float(MERGE_TRAFFIC * trained.parameters) if passes.merged else 0.0


def decode_flops(shape: Shape, lengths: Lengths) -> float:
    """Each prompt once, and each sample a token at a time, the adapter merged."""
    through = lengths.problems * lengths.prompt + lengths.samples * (lengths.new - 1)
    met = lengths.problems * pairs(lengths.prompt)
    met += lengths.samples * (pairs(lengths.prompt + lengths.new - 1) - pairs(lengths.prompt))
    attention = 4.0 * shape.layers * shape.heads * shape.head_dim * met
    return 2.0 * shape.linear * through + attention + 2.0 * shape.head * lengths.samples * lengths.new


def decode_bytes(shape: Shape, lengths: Lengths, size: int, slots: int) -> float:
    """Read while decoding: all weights a step of at most `slots` samples, and each sample's cache at every token."""
    weights = float(size * (shape.linear + shape.head)) * lengths.new * waves(lengths, slots)
    positions = lengths.samples * (pairs(lengths.prompt + lengths.new - 1) - pairs(lengths.prompt))
    return weights + shape.cache_bytes(size) * positions


def waves(lengths: Lengths, slots: int) -> int:
    """How often as many samples as decode at once must be decoded."""
    return -(-lengths.samples // slots)


def learner_bytes(
    shape: Shape, trained: Trained, pieces: Sequence[Piece], size: int, *, checkpointing: bool
) -> dict[str, float]:
    """The learner's memory at its highest, by what takes it; numbers of `size` bytes."""
    piece = max(pieces, key=lambda piece: piece.tokens)
    factors = 0 if trained.whole else _low(shape, trained)
    layer = size * piece.tokens * (shape.kept() + factors)
    inputs = size * piece.tokens * shape.hidden
    master = OPTIMIZER_BYTES - (size if trained.whole and size == 4 else 0)
    logits = min(BLOCK_ELEMENTS, piece.scored * shape.vocabulary) * (8 + (size if size < 4 else 0))
    return {
        "weights": float(size * trained.parameters),
        "optimizer": float(master * trained.numbers),
        "activations": float(shape.layers * inputs + layer if checkpointing else shape.layers * layer),
        "logits": float(logits + 4 * shape.hidden * piece.scored),
    }


def engine_bytes(shape: Shape, parameters: int, lengths: Lengths, size: int, slots: int) -> float:
    """The engine's copy of the weights, and the cache of the samples that it decodes at once."""
    rows = min(lengths.samples, slots)
    return float(size * parameters) + float(rows * (lengths.prompt + lengths.new) * shape.cache_bytes(size))


def _low(shape: Shape, trained: Trained) -> int:
    """Low-rank products kept a token and layer: the rank, as the factors' size tells it, of the seven projections."""
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    widths = 2 * (shape.hidden + q) + 2 * (shape.hidden + kv) + 3 * (shape.hidden + shape.inner)
    return round(7 * trained.numbers / (shape.layers * widths))
