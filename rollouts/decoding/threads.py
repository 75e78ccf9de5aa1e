"""How many threads decode: threads that meet after every small product wait more than they work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL = 1 << 24
"""Multiplications of a step's largest product (a tenth of a millisecond or two) below which one thread does it all."""
FEW = 64
"""Rows below which a product waits for its weight, whatever their number."""


@contextmanager
def fitting_threads(rows: int, weight: torch.Tensor) -> Iterator[None]:
    """Decode `rows` rows, `weight` being the largest, on one thread of the processor if there is little to share.

    A second thread then wins a seventh on an idle machine, at twice the processor time; where other programs want
    the cores too, the step waits for it and takes three times as long.
    """
    before = torch.get_num_threads()
    small = weight.device.type == "cpu" and max(rows, FEW) * weight.numel() < SMALL
    if small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if small:
            torch.set_num_threads(before)
