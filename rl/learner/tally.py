"""Sums over the tokens of an update, kept on the device and read once at its end."""

from __future__ import annotations

import torch
from torch import Tensor

from .ranks import Ranks


class Tally:
    """Token means and maxima."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._peaks: dict[str, Tensor] = {}

    def add(self, name: str, values_T: Tensor) -> None:
        """More tokens' values."""
        total = values_T.detach().sum(dtype=torch.float64 if values_T.device.type == "cpu" else torch.float32)
        self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._counts[name] = self._counts.get(name, 0) + values_T.numel()

    def peak(self, name: str, values_T: Tensor) -> None:
        """The largest of more tokens' values."""
        top = values_T.detach().max()
        self._peaks[name] = torch.maximum(self._peaks[name], top) if name in self._peaks else top

    def read(self, ranks: Ranks) -> dict[str, float]:
        """Means and maxima by name, over all ranks."""
        sums = ranks.total({name: float(total) for name, total in self._sums.items()})
        counts = ranks.total({name: float(count) for name, count in self._counts.items()})
        peaks = ranks.largest({name: float(top) for name, top in self._peaks.items()})
        return {name: total / max(counts[name], 1.0) for name, total in sums.items()} | peaks
