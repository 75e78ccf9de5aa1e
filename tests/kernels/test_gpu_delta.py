"""The Triton kernel of update maps against the one for CPUs, under Triton's interpreter: every count is the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

DTYPES = ("bfloat16", "float16", "float32")


def bits(tensor: torch.Tensor) -> np.ndarray:
    if tensor.dtype == torch.float16:
        return tensor.numpy()
    return tensor.view(torch.uint16 if tensor.dtype == torch.bfloat16 else torch.uint32).numpy()


def pair(dtype: torch.dtype, rows: int, columns: int, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Values of many sizes, zeros of both signs among them; a share moved by steps of many sizes, or negated."""
    draw = torch.Generator().manual_seed(rows * columns)
    base, step, sizes, chosen = (torch.randn(rows, columns, generator=draw) for _ in range(4))
    base = base * 10 ** (2 * sizes - 1)
    base[sizes < -1.5] = 0.0
    step = torch.where(torch.special.ndtr(chosen) < share, step * 10 ** (2 * sizes.flip(0) - 5), 0.0)
    tuned = (base + step).to(dtype)
    tuned[torch.special.ndtr(-chosen) < share / 10] *= -1
    tuned[(tuned == 0) & (chosen > 0)] = -0.0
    return base.to(dtype), tuned


def check_same(base: torch.Tensor, tuned: torch.Tensor) -> Any:
    from underdog.kernels import delta
    from underdog.kernels.gpu import delta as gpu

    touched, touched_C = np.zeros(base.shape[1], np.uint8), torch.zeros(base.shape[1], dtype=torch.uint8)
    expected, found = delta.count(bits(base), bits(tuned), touched), gpu.count(base, tuned, touched_C)
    assert found.counts.tolist() == expected.counts.tolist()
    assert found.binades.tolist() == expected.binades.tolist()
    assert found.rows == expected.rows
    assert touched_C.tolist() == touched.tolist()
    np.testing.assert_allclose(found.squares, expected.squares, rtol=1e-5)
    return found


def check_dtype(name: str) -> None:
    dtype = getattr(torch, name)
    for rows, columns, share in ((3, 700, 0.3), (2, 1, 1.0), (0, 3, 1.0), (2, 130, 0.0)):
        found = check_same(*pair(dtype, rows, columns, share))
    base, tuned = pair(dtype, 9, 40, 1.0)
    found = check_same(base, tuned)
    assert (found.counts > 0).all(), "each tolerance and last place is met by some"
    check_same(base.t(), tuned.t())  # strided


@pytest.mark.parametrize("dtype", DTYPES)
def test_counts_sums_rows_columns_and_exponents_are_the_same(interpreted: Any, dtype: str) -> None:
    interpreted(check_dtype, dtype)


def check_sampled() -> None:
    """Three blocks a row, of which a large slab reads every sixteenth for its exponents; two rows a program."""
    from underdog.kernels import delta
    from underdog.kernels.gpu import delta as gpu

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delta, "LARGE", 1)
        for name, value in {"LARGE": 1, "COLUMNS": 4096, "ROWS": (2, 2)}.items():
            patch.setattr(gpu, name, value)
        found = check_same(*pair(torch.bfloat16, 6, 20000, 0.01))
    assert 0 < found.binades.sum() <= 2 * 8192 * 16


def test_the_exponents_of_large_slabs_are_those_of_the_same_blocks(interpreted: Any) -> None:
    interpreted(check_sampled)


def check_strange() -> None:
    from underdog.kernels.gpu.delta import count

    base, touched_C = torch.tensor([[1.0, float("nan")]]), torch.zeros(2, dtype=torch.uint8)
    found = count(base, base.clone(), touched_C)
    assert found.counts[0] == 0
    assert not np.isfinite(found.squares).all()
    for other in (base.double(), base.int()):
        with pytest.raises(TypeError, match="bfloat16, float16 or float32"):
            count(other, other, touched_C)
    with pytest.raises(TypeError, match="bfloat16 and torch.float32"):
        count(base.bfloat16(), base, touched_C)


def test_a_nan_says_itself_in_the_sums_and_other_dtypes_are_refused(interpreted: Any) -> None:
    interpreted(check_strange)


def check_maps() -> None:
    """A whole map, with the kernel and without: adapters, masters, vectors, and a tensor without rows."""
    from underdog.rl.updates.maps import compare, rows
    from underdog.rl.updates.weights import Adapted, held

    torch.manual_seed(0)
    shapes = {"model.layers.0.self_attn.q_proj.weight": (6, 5), "model.norm.weight": (4,), "model.empty.weight": (0, 3)}
    base = held("base", {name: torch.randn(shape).bfloat16() for name, shape in shapes.items()})
    first = next(iter(shapes))
    masters = {name: base.read(name).float() + 1e-3 * torch.randn(shape) for name, shape in shapes.items()}
    adapted = Adapted(base, {first: (torch.randn(2, 5), torch.randn(6, 2), 1e-3)}, "adapter")
    for tuned in (held("masters", {n: m.bfloat16() for n, m in masters.items()}, masters), adapted):
        with pytest.MonkeyPatch.context() as patch:
            found = rows(compare(base, tuned, spectra=1, threads=1))
            patch.setenv("TRITON_INTERPRET", "0")
            expected = rows(compare(base, tuned, spectra=1, threads=1))
        assert len(found) == len(expected) == 6
        for one, other in zip(found, expected, strict=True):
            numbers = [name for name, value in other.items() if isinstance(value, (int, float))]
            assert {n: one[n] for n in one if n not in numbers} == {n: other[n] for n in other if n not in numbers}
            assert {n: one[n] for n in numbers} == pytest.approx({n: other[n] for n in numbers}, rel=1e-5)
        assert any(0 < one["unchanged"] < 1 for one in found)


def test_a_map_is_the_same(interpreted: Any) -> None:
    interpreted(check_maps)
