"""The highest memory since it was last asked: of a CUDA device's tensors, or of this process."""

from __future__ import annotations

from pathlib import Path

import torch

from ..runs.clock import peak_mib

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """A high-water mark that can be set back, where the system lets it."""

    def __init__(self) -> None:
        """Ask the device or the system what it can do."""
        self._cuda = torch.cuda.is_available()
        self._resets = not self._cuda and _reset()
        self.what = "the device's tensors" if self._cuda else "what the process held"
        if not self._cuda and not self._resets:
            self.what += " so far (it cannot be set back here)"

    def reset(self) -> None:
        """Begin anew from what is held now."""
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        elif self._resets:
            _reset()

    def read(self) -> float:
        """Bytes at most since then."""
        if self._cuda:
            return float(torch.cuda.max_memory_allocated())
        if self._resets:
            (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
            return float(line.split()[1]) * 1024
        return peak_mib() * 2**20


def _reset() -> bool:
    """Set Linux's mark of this process back to what it holds; whether that could be done."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return STATUS.is_file()
