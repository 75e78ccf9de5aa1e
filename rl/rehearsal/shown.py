"""A rehearsal in words: what was measured, what formulas say of it, and of the recipe's own lengths on named GPUs."""

from __future__ import annotations

from collections.abc import Sequence

from ..config import Config
from .cards import CARDS, SLOTS, USUAL, Work, memory_bytes, stage_seconds
from .step import STAGES, Measured

PARTS = ("forward", "backward", "optimizer")
"""Of the update."""
ORDER = ("publish", "decode", "annotate", *PARTS)
GIB = 2**30
FITS = 0.95
"""Share of a card's memory that a run may take by the formulas."""


def shown(found: Measured, config: Config, recipe: str) -> str:
    """All of it."""
    parts = [_measured(found, recipe), _projected(found.full, config), _assumed(found.full, config)]
    return "\n\n".join("\n".join(lines) for lines in parts)


def _measured(found: Measured, recipe: str) -> list[str]:
    lengths = found.work.lengths
    predicted = found.predicted()
    predicted["update"] = sum(predicted[part] for part in PARTS)
    rows = [["stage", "seconds", "peak GiB", "predicted s", "predicted / measured"]]
    for name in [*STAGES, *PARTS]:
        taken = found.seconds.get(name, 0.0)
        peak = f"{found.peaks[name] / GIB:.2f}" if name in found.peaks else ""
        row = [f"  {name}" if name in PARTS else name, f"{taken:.3f}", peak, "", ""]
        if taken and predicted.get(name):
            row[3:] = [f"{predicted[name]:.3f}", f"{predicted[name] / taken:.2f}"]
        rows.append(row)
    held, top = found.predicted_bytes() / GIB, max(found.peaks[name] for name in STAGES[1:]) / GIB
    return [
        f"rehearsed one step of {recipe}: {found.model}, random weights, {found.dtype} on {found.device}; "
        f"{lengths.group} samples of {lengths.new} forced tokens after a prompt of {lengths.prompt}, decoded by the "
        "engine local",
        *_table(rows),
        f"peak: {found.peak_of}; after loading {top:.2f} GiB, predicted {held:.2f} GiB, predicted / measured "
        f"{held / top:.2f}",
        f"predicted from this device's own ceilings, measured just now: {found.ceiling.flops / 1e12:.2f} TFLOP/s in a "
        f"{found.dtype} product of the model's widest layer, {found.ceiling.bandwidth / 1e9:.1f} GB/s in a copy, "
        f"{found.ceiling.hashing / 1e9:.1f} GB/s hashed",
    ]


def _projected(full: Work, config: Config) -> list[str]:
    lengths, held = full.lengths, memory_bytes(full)
    need = sum(held.values())
    rows = [["GPU", *ORDER, "s a step", "run hours", "memory GiB"]]
    for card in CARDS:
        seconds = stage_seconds(full, card, USUAL)
        step = sum(seconds.values())
        room = "fits" if need <= FITS * card.memory else "too large"
        memory = f"{need / GIB:.1f} of {card.memory / GIB:.0f}, {room}"
        stages = (f"{seconds[name]:.2f}" for name in ORDER)
        rows.append([card.name, *stages, f"{step:.1f}", f"{config.steps * step / 3600:.1f}", memory])
    return [
        f"projected at full lengths: {lengths.problems} x {lengths.group} samples of {lengths.new:,} tokens after "
        f"prompts of {lengths.prompt:,}, {config.steps:,} steps, in bfloat16; seconds by stage",
        *_table(rows),
        f"memory, GiB: {', '.join(f'{name} {value / GIB:.2f}' for name, value in held.items())}",
    ]


def _assumed(full: Work, config: Config) -> list[str]:
    passes, shape, trained = full.passes, full.shape, full.trained
    cards = ", ".join(f"{c.name} {c.flops / 1e12:.0f} and {c.bandwidth / 1e9:.0f}" for c in CARDS)
    factors, forward, backward = f"R = {trained.numbers:,} in low-rank factors", "2 W + 2 R + 4 H V", "2 W + 4 R"
    if trained.whole:
        factors, forward, backward = "all trained", "2 W + 4 H V", "4 W + 4 H V"
    again = ", and the layers' forward once more (gradient checkpointing)" if passes.checkpointing else ""
    lines = [
        f"makers' dense bfloat16 TFLOP/s and GB/s: {cards}; {USUAL.products:.0%} and {USUAL.bandwidth:.0%} of these "
        f"are reached, and a decoding step takes {USUAL.step * 1000:.0f} ms at least; none of it was measured",
        "every prompt and completion is as long as the recipe allows: seconds and memory are upper bounds in that",
        f"operations a token: forward {forward} (2 H V without gradients), backward {backward}{again}, with "
        f"W = {shape.linear:,} in linear layers, H V = {shape.head:,} in the head, {factors}; attention 4 A L for each "
        f"pair of query and key (A = {shape.heads * shape.head_dim:,}, L = {shape.layers}), 2.5 times that backward",
        f"passes over the samples: {passes.scorings} without gradients, {passes.epochs} with, in micro-batches of at "
        f"most {full.budget:,} tokens, a prompt once in each",
        f"decoding at most {SLOTS} samples at once: each step reads all weights and every sample's cache",
        f"publishing {'merges, copies and hashes all weights' if passes.merged else 'hashes the adapter'}, by SHA-256 "
        f"on the host at {CARDS[0].hashing / 1e9:.1f} GB/s",
        "one card holds the learner and an engine with weights of its own",
        "left out: verifying, evaluations, checkpoints, update maps, and what lies between stages",
    ]
    if config.rollouts.max_staleness:
        lines.append("stages one after another, though this recipe overlaps them")
    return ["assumptions", *(f"- {line}" for line in lines)]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns side by side, all but the first to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines
