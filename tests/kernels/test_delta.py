"""The pass over two tensors counts what a plain float64 reference counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from underdog.kernels import delta
from underdog.kernels.delta import TOLERANCES, ULPS

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def bits(tensor: torch.Tensor) -> np.ndarray:
    if tensor.dtype == torch.float16:
        return tensor.numpy()
    return tensor.view(torch.uint16 if tensor.dtype == torch.bfloat16 else torch.uint32).numpy()


def places(tensor: torch.Tensor) -> torch.Tensor:
    """Each value's place in the order of all values of its dtype."""
    width = 8 * tensor.element_size()
    whole = tensor.view(torch.int16 if width == 16 else torch.int32).to(torch.int64)
    magnitude = whole & (2 ** (width - 1) - 1)
    return torch.where(whole < 0, -magnitude, magnitude)


def pair(dtype: str, rows: int, columns: int, seed: int, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Values of many sizes, zeros of both signs among them; a share of them moved by steps of many sizes."""
    draw = torch.Generator().manual_seed(seed)
    base = torch.randn(rows, columns, generator=draw) * 10 ** torch.empty(rows, columns).uniform_(-4, 1, generator=draw)
    base[torch.rand(base.shape, generator=draw) < 0.05] = 0.0
    step = torch.randn(base.shape, generator=draw) * 10 ** torch.empty(base.shape).uniform_(-9, -2, generator=draw)
    step[torch.rand(base.shape, generator=draw) > share] = 0.0
    tuned = (base + step).to(DTYPES[dtype])
    tuned[(tuned == 0) & (torch.rand(base.shape, generator=draw) < 0.5)] = -0.0
    return base.to(DTYPES[dtype]), tuned


@settings(max_examples=40)
@given(
    dtype=st.sampled_from(sorted(DTYPES)),
    rows=st.integers(0, 9),
    columns=st.sampled_from([1, 3, 64, 300, 8192, 8195, 20000]),
    seed=st.integers(0, 2**31),
    share=st.sampled_from([0.0, 0.001, 0.3, 1.0]),
)
def test_counts_sums_rows_and_columns_are_the_references(
    dtype: str, rows: int, columns: int, seed: int, share: float
) -> None:
    base, tuned = pair(dtype, rows, columns, seed, share)
    touched = np.zeros(columns, np.uint8)
    found = delta.count(bits(base), bits(tuned), touched)
    moved = tuned.double() - base.double()
    apart = (places(tuned) - places(base)).abs()
    wide = (tuned.float() - base.float()).abs()  # float32, as the tolerances are
    expected = [int((apart > 0).sum())]
    expected += [int((wide > torch.tensor(tolerance)).sum()) for tolerance in TOLERANCES]
    expected += [int((apart > ulps).sum()) for ulps in ULPS]
    assert found.counts.tolist() == expected
    assert expected[0] == int((tuned != base).sum())
    np.testing.assert_allclose(found.squares, [moved.square().sum(), base.double().square().sum()], rtol=1e-5)
    assert found.rows == int((apart > 0).any(1).sum())
    assert touched.tolist() == (apart > 0).any(0).int().tolist()
    exponents = (base.float().view(torch.int32) >> 23) & 255
    assert found.binades.tolist() == torch.bincount(exponents.flatten(), minlength=256).tolist()


def test_slabs_add_up_and_the_exponents_of_large_ones_are_a_fair_sample() -> None:
    base, tuned = pair("bfloat16", 700, 3000, 1, 0.1)
    whole, cut = np.zeros(3000, np.uint8), np.zeros(3000, np.uint8)
    one = delta.count(bits(base), bits(tuned), whole)
    parts = delta.total(delta.count(bits(base)[r : r + 100], bits(tuned)[r : r + 100], cut) for r in range(0, 700, 100))
    assert one.counts.tolist() == parts.counts.tolist()
    assert one.rows == parts.rows
    assert (whole == cut).all()
    np.testing.assert_allclose(one.binades / one.binades.sum(), parts.binades / parts.binades.sum(), atol=5e-3)


def test_one_nan_is_the_other_and_says_itself_in_the_sums() -> None:
    base = torch.tensor([[1.0, float("nan")]])
    found = delta.count(bits(base), bits(base.clone()), np.zeros(2, np.uint8))
    assert found.counts[0] == 0
    assert not np.isfinite(found.squares).all()


@pytest.mark.parametrize("wrong", [np.int16, np.float32, np.float64])
def test_other_dtypes_are_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="bits of bfloat16"):
        delta.count(np.zeros((1, 1), wrong), np.zeros((1, 1), wrong), np.zeros(1, np.uint8))
