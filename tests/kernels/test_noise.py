"""Seeded noise: its moments, its independence, and that its two forms and all parts of a matrix agree bit for bit."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from underdog.kernels.noise import DEVIATION, Noise, integers, keys
from underdog.records import derive_seed

FOURTH = 3 - (20 / 8 + 2 / 120) / (DEVIATION / 64) ** 4
"""Kurtosis of twenty coins and two uniforms; those of 64 steps differ from continuous ones by less than 1e-4."""


def plain(noise: Noise, rows: int) -> torch.Tensor:
    """The documented formula, entry by entry."""
    place = torch.arange(rows * noise.columns).view(rows, noise.columns)
    return integers(noise.seed, place).float() * (noise.std_R / DEVIATION)[:, None]


@given(st.integers(0, 2**63 - 1), st.integers(1, 40), st.integers(1, 70))
def test_compiled_and_plain_forms_are_the_same_bits(seed: int, rows: int, columns: int) -> None:
    torch.manual_seed(seed % 2**31)
    weight, noise = torch.randn(rows, columns), Noise(seed, torch.rand(rows) + 0.1, columns)
    expected = weight + plain(noise, rows)
    assert torch.equal(noise.added(weight), expected)
    assert torch.equal(noise.add_(weight.clone()), expected)
    top, left = rows // 3, columns // 2
    assert torch.equal(noise.added(weight[top:, left:], top, left), expected[top:, left:])
    assert torch.equal(noise.added(weight.t().contiguous().t()), expected)


def test_the_formula_is_what_a_hash_done_by_hand_gives() -> None:
    def by_hand(seed: int, place: int) -> int:
        first, second = keys(seed)
        h = (place + first) % 2**32
        h = ((h ^ h >> 16) * 0x7FEB352D % 2**32) ^ second
        h = (h ^ h >> 15) * 0x846CA68B % 2**32
        h ^= h >> 16
        return 64 * (h >> 12).bit_count() + (h >> 6) % 64 + h % 64 - 703

    assert keys(0) == (0x7B1DCDAF, 0xE220A839)  # SplitMix64's first output from state 0
    for seed in (0, 1, 2**32 - 1, 2**63 - 1, derive_seed("a")):
        places = [0, 1, 2, 77, 2**31, 2**32 - 1]
        assert integers(seed, torch.tensor(places)).tolist() == [by_hand(seed, place) for place in places]


def test_moments_and_distribution_are_as_stated() -> None:
    z = integers(derive_seed("moments"), torch.arange(4_000_000)).double() / DEVIATION
    n = len(z)
    assert abs(z.mean()) < 5 / math.sqrt(n)
    assert abs(z.var() - 1) < 5 * math.sqrt((FOURTH - 1) / n)
    assert float((z**4).mean()) == pytest.approx(FOURTH, abs=0.03)
    assert pytest.approx(3 - 0.094, abs=5e-4) == FOURTH
    assert abs((z**3).mean()) < 5 * math.sqrt(15 / n)
    ordered = z.sort().values
    gap = (torch.special.ndtr(ordered) - torch.arange(1, n + 1) / n).abs().max()
    assert gap < 0.004
    assert 4.5 < z.abs().max() < 4.85


def test_variance_is_that_asked_for_in_every_row() -> None:
    """300 draws of 256 columns: z-scores of the rows' variances, by the noise's own kurtosis."""
    std_R = torch.logspace(-4, 2, 64)
    draws = torch.stack([Noise(derive_seed("rows", i), std_R, 256).add_(torch.zeros(64, 256)) for i in range(300)])
    found_R = draws.double().square().mean((0, 2))
    z_R = (found_R / std_R.double() ** 2 - 1) / math.sqrt((FOURTH - 1) / (300 * 256))
    assert z_R.abs().max() < 5
    assert 0.5 < z_R.var() < 1.7  # 64 rows: three standard errors
    assert abs((found_R / std_R.double() ** 2).mean() - 1) < 0.02


@pytest.mark.parametrize("lag", [1, 2, 3, 8, 64, 255, 256, 257, 1024, 65536])
def test_neighbours_rows_and_squares_are_not_correlated(lag: int) -> None:
    z = integers(derive_seed("lag", lag), torch.arange(2_000_000 + lag)).double() / DEVIATION
    a, b = z[lag:], z[:-lag]
    assert abs((a * b).mean()) * math.sqrt(len(a)) < 5
    assert abs(((a**2 - 1) * (b**2 - 1)).mean()) * math.sqrt(len(a)) / (FOURTH - 1) < 5


def test_seeds_that_differ_in_any_bit_share_nothing() -> None:
    place, seed = torch.arange(200_000), derive_seed("bits")
    z = integers(seed, place).double() / DEVIATION
    for bit in range(63):
        other = integers(seed ^ (1 << bit), place).double() / DEVIATION
        assert abs((z * other).mean()) * math.sqrt(len(z)) < 5, bit
        assert (z == other).double().mean() < 0.01, bit


def test_other_dtypes() -> None:
    """Narrow weights are widened; float64 gets the same numbers."""
    torch.manual_seed(0)
    weight, noise = torch.randn(5, 9).bfloat16(), Noise(7, torch.rand(5), 9)
    found = noise.added(weight)
    assert found.dtype == torch.float32
    assert torch.equal(found, weight.float() + plain(noise, 5))
    assert torch.equal(noise.added(weight.double()), weight.double() + plain(noise, 5).double())
