"""A process in which Triton's interpreter runs the kernels for GPUs on this CPU."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def interpreted() -> Iterator[Callable[..., Any]]:
    """Call a function of a test's module, with arguments, there: the variable must be set before triton is imported.

    What it raises is raised here.
    """
    pytest.importorskip("triton")
    context = multiprocessing.get_context("spawn")
    with pytest.MonkeyPatch.context() as patch, ProcessPoolExecutor(1, mp_context=context, initializer=_begin) as pool:
        patch.setenv("TRITON_INTERPRET", "1")
        pool.submit(os.getpid).result()  # the process starts now, and inherits the variable
        patch.undo()

        def call(function: Callable[..., Any], *arguments: Any) -> Any:
            return pool.submit(_call, function.__code__.co_filename, function.__name__, arguments).result()

        yield call


def _begin() -> None:
    import warnings

    import torch

    torch.set_num_threads(1)
    # The padding of a block of logits holds anything; what comes of it is masked.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="triton.runtime.interpreter")


def _call(path: str, name: str, arguments: tuple[Any, ...]) -> Any:
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
