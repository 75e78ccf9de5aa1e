"""Which dtype products take."""

import pytest
import torch

from underdog.kernels.precision import compute_dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wide_weights_are_computed_with_as_they_are(dtype):
    assert compute_dtype(dtype, "cpu") == dtype


def test_bfloat16_stays_on_accelerators_and_depends_on_the_processor_alone_elsewhere():
    assert compute_dtype(torch.bfloat16, "cuda:0") == torch.bfloat16
    has = torch.cpu.get_capabilities()
    if has.get("amx_bf16"):
        assert compute_dtype(torch.bfloat16, "cpu") == torch.bfloat16
    if has["architecture"] == "x86_64" and not has.get("avx512_bf16"):
        assert compute_dtype(torch.bfloat16, "cpu") == torch.float32
