"""Rows of tokens packed end to end: no padding, and a prompt that several rows share stands there once.

A row is a prompt and a completion. Its completion's last token predicts nothing, so it is left out. All that works on
single tokens (embeddings, norms, linear layers) then sees each token once. Attention needs rows: `Packing` says how
to spread the packed tokens into blocks of rows of nearly equal length, padded on the right, and how to gather them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PADDING = 0.125
"""Share of padding that a block of rows may hold before a new one is begun."""


@dataclass(frozen=True)
class Shared:
    """Neighbouring rows of a block that begin with the same prompt; what spreads forward must add up backward.

    `rows` rows of `width` cells, from cell `cell` on; the prompt's `length` tokens are packed from `place` on.
    `first` is set on the first such run of a prompt.
    """

    cell: int
    rows: int
    width: int
    place: int
    length: int
    first: bool


@dataclass(frozen=True)
class Packing:
    """One micro-batch. T packed tokens, C completion tokens in the order of `rows`, N cells of all blocks end to end.

    `predict_C` is the place of the token whose hidden state predicts completion token c, `row_C` counts rows within
    the micro-batch. `shapes` are the blocks' (rows, width); `cell_N` is each cell's place among the packed tokens
    (padding repeats its row's last token), `home_T` each token's first cell, which is never padding.
    """

    rows: tuple[int, ...]
    tokens_T: np.ndarray
    positions_T: np.ndarray
    predict_C: np.ndarray
    targets_C: np.ndarray
    row_C: np.ndarray
    shapes: tuple[tuple[int, int], ...]
    cell_N: np.ndarray
    home_T: np.ndarray
    shared: tuple[Shared, ...]


def split(prompts: Sequence[np.ndarray], completions: Sequence[np.ndarray], budget: int) -> list[list[int]]:
    """Rows into micro-batches of about equal size, at most `budget` packed tokens each (a longer row stands alone).

    Rows of one prompt stay together as far as they fit; rows without a completion are left out.
    """
    order: dict[bytes, list[int]] = {}
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        if len(completion):
            order.setdefault(prompt.tobytes(), []).append(row)
    for members in order.values():
        members.sort(key=lambda row: (-len(completions[row]), row))
    total = sum(
        len(prompts[members[0]]) + sum(len(completions[row]) - 1 for row in members) for members in order.values()
    )
    even = -(-total // max(1, -(-total // budget)))
    batches: list[list[int]] = []
    used = 0
    for members in order.values():
        fresh = True
        for row in members:
            own = len(completions[row]) - 1
            cost = own + (len(prompts[row]) if fresh else 0)
            if not batches or used >= even or used + cost > budget:
                batches.append([])
                used, cost = 0, own + len(prompts[row])
            batches[-1].append(row)
            used += cost
            fresh = False
    return batches


def pack(
    prompts: Sequence[np.ndarray], completions: Sequence[np.ndarray], rows: Sequence[int], multiple: int = 1
) -> Packing:
    """One micro-batch of the given rows, each with a prompt and a completion of at least one token.

    A last row that predicts nothing fills the tokens up to a multiple of `multiple`.
    """
    starts: dict[bytes, int] = {}
    tokens: list[np.ndarray] = []
    positions: list[np.ndarray] = []
    places: list[np.ndarray] = []
    predict: list[np.ndarray] = []
    filled = 0
    for row in rows:
        prompt, completion = prompts[row], completions[row]
        key = prompt.tobytes()
        if key not in starts:
            starts[key] = filled
            tokens.append(prompt)
            positions.append(np.arange(len(prompt)))
            filled += len(prompt)
        own = np.arange(filled, filled + len(completion) - 1)
        tokens.append(completion[:-1])
        positions.append(np.arange(len(prompt), len(prompt) + len(own)))
        filled += len(own)
        places.append(np.concatenate([np.arange(starts[key], starts[key] + len(prompt)), own]))
        predict.append(places[-1][len(prompt) - 1 :])
    groups = [starts[prompts[row].tobytes()] for row in rows]
    lengths = [len(prompts[row]) for row in rows]
    if missing := -filled % multiple:
        tokens.append(np.zeros(missing))
        positions.append(np.arange(missing))
        places.append(np.arange(filled, filled + missing))
        groups.append(filled)
        lengths.append(missing)
        filled += missing
    shapes, cells, shared = _blocks(places, groups, lengths)
    home = np.full(filled, -1, dtype=np.int64)
    home[cells[::-1]] = np.arange(len(cells))[::-1]
    return Packing(
        rows=tuple(rows),
        tokens_T=_joined(tokens),
        positions_T=_joined(positions),
        predict_C=_joined(predict),
        targets_C=_joined([completions[row] for row in rows]),
        row_C=np.repeat(np.arange(len(rows)), [len(completions[row]) for row in rows]),
        shapes=shapes,
        cell_N=cells,
        home_T=home,
        shared=shared,
    )


def _blocks(
    places: Sequence[np.ndarray], groups: Sequence[int], prompt_lengths: Sequence[int]
) -> tuple[tuple[tuple[int, int], ...], np.ndarray, tuple[Shared, ...]]:
    """Blocks of rows of nearly equal length, rows of a group side by side within each."""
    shapes: list[tuple[int, int]] = []
    cells: list[np.ndarray] = []
    shared: list[Shared] = []
    filled = 0
    alone = {group for group in groups if groups.count(group) == 1}
    seen: set[int] = set()
    for members in _bucket([len(place) for place in places]):
        members.sort(key=lambda row: (groups[row], row))
        width = max(len(places[row]) for row in members)
        for row in members:
            place = places[row]
            cells.append(place)
            cells.append(np.full(width - len(place), place[-1]))
        for at, row in enumerate(members):
            group = groups[row]
            if group in alone:
                continue
            last = shared[-1] if shared else None
            if at and last is not None and last.place == group:
                shared[-1] = Shared(last.cell, last.rows + 1, width, group, last.length, last.first)
            else:
                cell = filled + at * width
                shared.append(Shared(cell, 1, width, group, prompt_lengths[row], group not in seen))
                seen.add(group)
        shapes.append((len(members), width))
        filled += len(members) * width
    return tuple(shapes), _joined(cells), tuple(shared)


def _bucket(lengths: Sequence[int]) -> list[list[int]]:
    """Rows into blocks, longest first, a new one where padding would pass `PADDING`."""
    blocks: list[list[int]] = []
    real = 0
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        cells = (len(blocks[-1]) + 1) * lengths[blocks[-1][0]] if blocks else 0
        if not blocks or cells - real - lengths[row] > PADDING * cells:
            blocks.append([])
            real = 0
        blocks[-1].append(row)
        real += lengths[row]
    return blocks


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(part, dtype=np.int64) for part in parts]) if parts else np.zeros(0, np.int64)
