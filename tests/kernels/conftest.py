"""A process in which Triton's interpreter runs the kernels for GPUs on this CPU."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def interpreted() -> Iterator[Callable[..., Any]]:
    """Call a function of a test's module, with arguments, there: the variable must be set before triton is imported.

    What it raises is raised here.
    """
    pytest.importorskip("triton")
    context = multiprocessing.get_context("spawn")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))  # the process inherits it, and finds the module there
        import interpreter

        with ProcessPoolExecutor(1, mp_context=context, initializer=interpreter.begin) as pool:
            patch.setenv("TRITON_INTERPRET", "1")
            pool.submit(os.getpid).result()  # the process starts now, and inherits the variable
            patch.undo()

            def call(function: Callable[..., Any], *arguments: Any) -> Any:
                return pool.submit(
                    interpreter.call, function.__code__.co_filename, function.__name__, arguments
                ).result()

            yield call
