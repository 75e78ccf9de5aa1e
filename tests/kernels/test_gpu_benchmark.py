"""The benchmark for GPUs runs through, tiny, under Triton's interpreter, and says what it needs where it cannot."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"
SIZES = {"tokens": 2, "hidden": 8, "inner": 3, "layers": 1, "vocab": 6, "square": 16, "repeats": 1}
SIDES = ("triton", "torch", "none")


def outcome(on: str) -> tuple[int, str, str]:
    """The benchmark's code, output and complaint, as a command."""
    import runpy

    out, complaint = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(complaint):
        patch.setenv("TRITON_INTERPRET", on)
        patch.setattr(
            sys, "argv", [str(FILE), *(f"--{name}={size}" for name, size in SIZES.items()), "--sides", *SIDES]
        )
        try:
            runpy.run_path(str(FILE), run_name="__main__")
        except SystemExit as stop:
            return int(stop.code or 0), out.getvalue(), complaint.getvalue()
    return 0, out.getvalue(), complaint.getvalue()


@pytest.mark.slow
def test_every_case_runs_and_agrees_with_the_torch_form(interpreted: Any) -> None:
    code, out, _ = interpreted(outcome, "1")
    assert code == 0
    *lines, last = out.splitlines()
    told = [json.loads(line) for line in lines]
    cases = {(line["case"], line["side"]): line for line in told if "case" in line}
    names = ["logprob scored", "logprob frozen", "logprob trained", "noise", "delta"]
    assert list(cases) == [(name, side) for name in names for side in SIDES if side != "none" or name == "noise"]
    for (name, side), line in cases.items():
        assert line["ms"] > 0
        if side == "triton":
            assert line["difference"] <= (1e-6 if name == "delta" else 0.02)
    word, *ratios = last.split()
    assert word == "ratio"
    assert len([float(ratio) for ratio in ratios]) == 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_ends_with_two(interpreted: Any) -> None:
    code, out, complaint = interpreted(outcome, "0")
    assert (code, out) == (2, "")
    assert complaint == "benchmarks/gpu.py needs an NVIDIA GPU, Ampere or later, and triton; there is none here\n"
