"""What runs in the process of `conftest.py` where Triton's interpreter runs the kernels."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch


def begin() -> None:
    torch.set_num_threads(1)
    # The padding of a block of logits holds anything; what comes of it is masked.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="triton.runtime.interpreter")


def call(path: str, name: str, arguments: tuple[Any, ...]) -> Any:
    return getattr(_module(path), name)(*arguments)


@cache
def _module(path: str) -> ModuleType:
    """A test's file, which no package holds."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[Path(path).stem] = module
    spec.loader.exec_module(module)
    return module
