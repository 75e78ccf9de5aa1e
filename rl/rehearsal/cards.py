"""Named GPUs, and how long a step takes on one by the costs of `costs.py` and stated shares of what a card can do."""

from __future__ import annotations

from dataclasses import dataclass

from .costs import (
    OPTIMIZER_TRAFFIC,
    Lengths,
    Passes,
    Shape,
    Trained,
    backward_flops,
    decode_bytes,
    decode_flops,
    engine_bytes,
    forward_flops,
    hashed_bytes,
    learner_bytes,
    merge_bytes,
    scoring_flops,
)

SLOTS = 256
"""Samples decoded at once, at most: both engines' default."""


@dataclass(frozen=True)
class Card:
    """What a device can do: operations and bytes a second, and bytes of memory; and SHA-256 on its host."""

    name: str
    flops: float
    bandwidth: float
    memory: float
    hashing: float = 1.5e9


@dataclass(frozen=True)
class Shares:
    """What of it is reached, and what a decoding step takes at least, in seconds."""

    products: float
    bandwidth: float
    step: float


CARDS = (
    Card("RTX 4090", 165e12, 1008e9, 24e9),
    Card("L40S", 362e12, 864e9, 48e9),
    Card("A100-80G", 312e12, 2039e9, 80e9),
    Card("H100", 989e12, 3350e9, 80e9),
)
"""Makers' figures: dense bfloat16 with float32 sums, memory bandwidth, memory; A100 and H100 in their SXM form."""
USUAL = Shares(products=0.4, bandwidth=0.6, step=0.005)
"""What training and decoding of models of this size commonly reach; nothing here was measured on a GPU."""
CEILING = Shares(products=1.0, bandwidth=1.0, step=0.0)
"""All of it, for a device whose figures were measured by its own products and copies."""


@dataclass(frozen=True)
class Work:
    """A step of a run: the model, what of it is trained, the samples, and how they are used."""

    shape: Shape
    trained: Trained
    lengths: Lengths
    passes: Passes
    size: int
    """Bytes of a weight."""
    budget: int
    """Tokens of a micro-batch, at most."""


def stage_seconds(work: Work, card: Card, shares: Shares) -> dict[str, float]:
    """Seconds a step, by stage; the last three are those of the update."""
    shape, trained, lengths, size = work.shape, work.trained, work.lengths, work.size
    flops, bandwidth = card.flops * shares.products, card.bandwidth * shares.bandwidth
    pieces = lengths.pieces(work.budget)
    steps = lengths.new * -(-lengths.samples // SLOTS)
    read = decode_bytes(shape, lengths, size, SLOTS) / bandwidth
    scored = sum(scoring_flops(shape, trained, piece) for piece in pieces)
    forward = sum(forward_flops(shape, trained, piece) for piece in pieces)
    backward = sum(backward_flops(shape, trained, piece, work.passes.checkpointing) for piece in pieces)
    return {
        "publish": hashed_bytes(trained, work.passes, size) / card.hashing
        + merge_bytes(trained, work.passes) / bandwidth,
        "decode": max(read, decode_flops(shape, lengths) / flops, steps * shares.step),
        "annotate": work.passes.scorings * scored / flops,
        "forward": work.passes.epochs * forward / flops,
        "backward": work.passes.epochs * backward / flops,
        "optimizer": work.passes.epochs * OPTIMIZER_TRAFFIC * trained.numbers / bandwidth,
    }


def memory_bytes(work: Work) -> dict[str, float]:
    """Memory at its highest, by what takes it, where learner and engine share a card."""
    shape, trained, lengths = work.shape, work.trained, work.lengths
    pieces = lengths.pieces(work.budget)
    own = learner_bytes(shape, trained, pieces, work.size, checkpointing=work.passes.checkpointing)
    return {**own, "engine": engine_bytes(shape, trained.parameters, lengths, work.size, SLOTS)}
