"""The Triton kernels become machine code for an H100, in registers alone: no GPU is needed for that.

The interpreter takes Python that the compiler does not, and knows neither registers nor the width of a load.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing"),
]

F, B, I = "*fp32", "*bf16", "*i64"
LOGITS = {"SCALE": 1.0, "SOFTCAP": None}
PER_TOKEN = {"logp": F, "lse": F, "entropy": F, "rival_logp": F, "rest": F, "rival": I}
READ = {"z": F, "bias": None, "hidden": B, "weight": B, "tokens": I, "operand": B, **PER_TOKEN, "weight_h": 1}
READ |= {"hidden_h": 1, "ENTROPY": True, "SLOPES": True, "TERMS": 9, "LANES": 2048, "BLOCK_H": 1024}
SENT = {"lse": F, "constant": F, "linear": F, "token": I, "named": F, "rival": I, "rival_named": F}
COUNT = {"touched": "*u8", "differ": "*u8", "counts": I, "squares": "*fp64", "binades": "*i32", "FLOAT16": False}
COUNT |= {"BLOCK": 8192, "BINADES": 256, "COLUMNS": 512, **{f"T{i}": 10.0 ** (i - 8) for i in range(6)}}
COUNT |= {"U1": 1, "U2": 4, "U3": 16}
TOTAL = {"part": B, "total": B, "scale": F, "part_c": 1, "total_c": 1, "ROWS": 4, "COLUMNS": 256}
# Each with its warps and registers at most: 65,536 a multiprocessor, of which several programs must find room.
KERNELS: dict[str, tuple[str, str, dict[str, Any], int, int]] = {
    "read": ("logprob", "_read_rows", {**READ, **LOGITS, "RIVALS": False}, 8, 64),
    "read, all": ("logprob", "_read_rows", {**READ, "bias": B, "RIVALS": True, "SCALE": 0.7, "SOFTCAP": 30.0}, 8, 85),
    "entropy": (
        "logprob",
        "_entropy_rows",
        {"z": F, "bias": None, "tokens": I, "logp": F, "lse": F, "entropy": F, "operand": B, "LANES": 2048, **LOGITS},
        8,
        64,
    ),
    "head": (
        "logprob",
        "_head_rows",
        {"z": F, "bias": B, **SENT, "operand": B, "bias_grad": B, "SCALE": 1.0, "SOFTCAP": 30.0}
        | {"ROWS": 8, "TOKENS": 256},
        8,
        85,
    ),
    "noise": ("noise", "_add", {**TOTAL, "WIDE": "fp32"}, 4, 64),
    "delta of bfloat16": ("delta", "_count", {"base": "*i16", "tuned": "*i16", **COUNT}, 4, 128),
    "delta of float32": ("delta", "_count", {"base": "*i32", "tuned": "*i32", **COUNT}, 4, 128),
}
WIDE = {"fp32": triton.language.float32}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_compile_for_hopper_without_spills(name: str, tmp_path: Path) -> None:
    from importlib import import_module

    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    file, function, given, warps, most = KERNELS[name]
    module = import_module(f"underdog.kernels.gpu.{file}")
    kernel = getattr(module, function)
    signature, constants, even = {}, {}, {}
    for place, argument in enumerate(kernel.arg_names):
        value = given.get(argument, "i32")
        if isinstance(value, str) and value.startswith(("*", "i32")):
            signature[argument] = value
            if value.startswith("*") or argument in ("stride", "C", "width", "part_r", "total_r"):
                even[(place,)] = [["tt.divisibility", 16]]
        else:
            signature[argument] = "constexpr"
            constants[argument] = WIDE.get(value, value)
    source = ASTSource(kernel, signature, constants, even)
    options = getattr(module, "OPTIONS", {"num_warps": warps, "enable_fp_fusion": True})
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    binary = tmp_path / "kernel.cubin"
    binary.write_bytes(compiled.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    report = subprocess.run([tool, "-res-usage", binary], capture_output=True, text=True, check=True).stdout
    used = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", report)}
    assert used["STACK"] == used["LOCAL"] == 0
    assert used["REG"] <= most
    assert re.search(r"ld\.global(\.\w+)*\.v[24]", compiled.asm["ptx"]), "loads are narrow"
    if file == "noise":
        assert "fma" not in compiled.asm["ptx"], "the plain form rounds twice"
