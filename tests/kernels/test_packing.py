from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from underdog.kernels import decoder, packing


@st.composite
def batches(draw):
    prompts = [np.array(draw(st.lists(st.integers(0, 9), min_size=1, max_size=6))) for _ in range(3)]
    rows = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12)), min_size=1, max_size=12))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return [prompts[p] for p, _ in rows], [rng.integers(0, 10, length) for _, length in rows]


@settings(max_examples=60, deadline=None)
@given(batches(), st.integers(1, 60))
def test_split_takes_every_row_once_within_the_budget(batch, budget):
    prompts, completions = batch
    parts = packing.split(prompts, completions, budget)
    assert sorted(row for part in parts for row in part) == [i for i, c in enumerate(completions) if len(c)]
    for part in parts:
        packed = packing.pack(prompts, completions, part)
        assert len(packed.tokens_T) <= budget or len(part) == 1


@settings(max_examples=60, deadline=None)
@given(batches())
def test_rows_read_back_from_the_cells(batch):
    prompts, completions = batch
    rows = [i for i, c in enumerate(completions) if len(c)]
    if not rows:
        return
    packed = packing.pack(prompts, completions, rows)
    wanted = sorted(tuple(np.concatenate([prompts[i], completions[i][:-1]])) for i in rows)
    found, start = [], 0
    for count, width in packed.shapes:
        cells_RS = packed.cell_N[start : start + count * width].reshape(count, width)
        start += count * width
        for cells in cells_RS:
            real = np.diff(cells, prepend=-1) != 0
            assert not np.any(np.diff(real.astype(int)) > 0), "padding is on the right only"
            found.append(tuple(packed.tokens_T[cells[real]]))
            assert list(packed.positions_T[cells[real]]) == list(range(real.sum()))
    assert sorted(found) == wanted
    assert np.array_equal(packed.cell_N[packed.home_T], np.arange(len(packed.tokens_T)))
    distinct = {prompts[i].tobytes(): len(prompts[i]) for i in rows}
    assert len(packed.tokens_T) == sum(distinct.values()) + sum(len(completions[i]) - 1 for i in rows)
    assert np.array_equal(packed.targets_C, np.concatenate([completions[i] for i in rows]))
    for c, place in enumerate(packed.predict_C):
        before = np.flatnonzero(packed.row_C == packed.row_C[c])[0]
        prompt = prompts[rows[packed.row_C[c]]]
        assert packed.positions_T[place] == len(prompt) - 1 + c - before


@settings(max_examples=40, deadline=None)
@given(batches())
def test_spread_adds_up_what_shared_prompts_send_back(batch):
    prompts, completions = batch
    rows = [i for i, c in enumerate(completions) if len(c)]
    if not rows:
        return
    packed = packing.pack(prompts, completions, rows)
    cells, home = torch.from_numpy(packed.cell_N), torch.from_numpy(packed.home_T)
    x = torch.randn(len(packed.tokens_T), 2, dtype=torch.float64, requires_grad=True)
    start, real = 0, []
    for count, width in packed.shapes:
        block = packed.cell_N[start : start + count * width].reshape(count, width)
        real.append((np.diff(block, axis=1, prepend=-1) != 0).reshape(-1))
        start += count * width
    sent = torch.randn(len(cells), 2, dtype=torch.float64) * torch.from_numpy(np.concatenate(real))[:, None]
    decoder.spread(x, cells, home, packed.shared).backward(sent)
    plain = torch.zeros_like(x).index_add(0, cells, sent)
    torch.testing.assert_close(x.grad, plain)


def test_near_equal_rows_share_a_block_and_unequal_ones_do_not():
    prompt = np.arange(3)
    lengths = [100, 99, 98, 10, 9]
    packed = packing.pack([prompt] * 5, [np.zeros(n, int) for n in lengths], range(5))
    assert packed.shapes == ((3, 102), (2, 12))


def gradients(function, *inputs):
    leaves = [x.clone().requires_grad_(True) for x in inputs]
    out = function(*leaves)
    out.backward(torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out))
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def test_the_fused_steps_equal_plain_torch():
    torch.manual_seed(0)
    x, w = torch.randn(5, 3, 8, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    plain = lambda x, w: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * w  # noqa: E731
    pairs: list[Any] = [(lambda x, w: decoder.rms_norm(x, w, 1e-6), plain, (x, w))]
    gate, up = torch.randn(2, 6, 10, dtype=torch.float64)
    pairs.append((decoder.swiglu, lambda g, u: torch.nn.functional.silu(g) * u, (gate, up)))
    angle = torch.randn(5, 4, dtype=torch.float64)
    cos, sin = torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()
    half = lambda x: torch.cat([-x[..., 4:], x[..., :4]], -1)  # noqa: E731
    turned = lambda x: x * cos[:, None] + half(x) * sin[:, None]  # noqa: E731
    pairs.append((lambda x: decoder.rotate(x, cos, sin), turned, (x,)))
    for ours, theirs, inputs in pairs:
        for a, b in zip(gradients(ours, *inputs), gradients(theirs, *inputs), strict=True):
            torch.testing.assert_close(a, b)


@settings(max_examples=60, deadline=None)
@given(batches(), st.integers(1, 20))
def test_a_filled_pack_holds_the_same_rows_and_one_that_predicts_nothing(batch, multiple):
    prompts, completions = batch
    rows = [i for i, c in enumerate(completions) if len(c)]
    if not rows:
        return
    plain, filled = packing.pack(prompts, completions, rows), packing.pack(prompts, completions, rows, multiple)
    count = len(plain.tokens_T)
    assert len(filled.tokens_T) % multiple == 0
    assert 0 <= len(filled.tokens_T) - count < multiple
    assert np.array_equal(filled.tokens_T[:count], plain.tokens_T)
    for name in ("predict_C", "targets_C", "row_C"):
        assert np.array_equal(getattr(filled, name), getattr(plain, name))
    assert np.array_equal(filled.cell_N[filled.home_T], np.arange(len(filled.tokens_T)))
