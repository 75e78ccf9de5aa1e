"""Energy meters where they can be read: RAPL for processors, NVML for GPUs. What cannot be read says why."""

from __future__ import annotations

import threading
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
MINUTE = 60.0
"""Seconds between readings: under full load a RAPL counter begins anew after some minutes, and no lap may be missed."""


class UnreadableError(Exception):
    """There is no meter, or no right to read it; the message says which."""


class Rapl:
    """Joules of all processor packages and their memory since this meter was made: the whole machine's."""

    def __init__(self, root: Path = POWERCAP) -> None:
        """Begin to count, and look again every minute.

        Raises:
            UnreadableError: no zone is there, or this user may not read it.
        """
        self._zones = [zone for zone in sorted(root.glob("intel-rapl:*")) if _counts(zone)]
        if not self._zones:
            raise UnreadableError(f"no RAPL zone in {root}")
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._joules = 0.0
        self._laps = [_read(zone / "max_energy_range_uj") for zone in self._zones]
        self._last = [_read(zone / "energy_uj") for zone in self._zones]
        self._thread = threading.Thread(target=self._watch, name="energy", daemon=True)
        self._thread.start()

    def joules(self) -> float:
        """The reading.

        Raises:
            UnreadableError: it cannot be read any more.
        """
        with self._lock:
            now = [_read(zone / "energy_uj") for zone in self._zones]
            for last, at, lap in zip(self._last, now, self._laps, strict=True):
                self._joules += (at - last + (lap if at < last else 0)) / 1e6
            self._last = now
            return self._joules

    def close(self) -> None:
        """Look no more."""
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(MINUTE):
            try:
                self.joules()
            except UnreadableError:  # whoever reads it next is told
                return


def _counts(zone: Path) -> bool:
    """Packages and memory: what else there is (core, uncore, psys) is part of a package, or holds it."""
    try:
        name = (zone / "name").read_text().strip()
    except OSError:
        return False
    return name.startswith("package") or name == "dram"


def _read(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a number"
        raise UnreadableError(f"{file} cannot be read ({reason})") from error


def gpu_joules() -> float:
    """What NVML counted of all GPUs that this process sees, since the driver was loaded.

    Raises:
        UnreadableError: NVML's Python package is not installed, there is no GPU here, or one does not count its energy.
    """
    import torch

    try:
        import pynvml  # type: ignore[import-not-found]
    except ImportError as error:
        raise UnreadableError("the package nvidia-ml-py is not installed") from error
    if not torch.cuda.is_available():
        raise UnreadableError("this process sees none of the GPUs")
    try:
        pynvml.nvmlInit()
        try:
            names = [f"GPU-{torch.cuda.get_device_properties(i).uuid}" for i in range(torch.cuda.device_count())]
            handles = [pynvml.nvmlDeviceGetHandleByUUID(name) for name in names]
            return sum(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in handles) / 1e3
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise UnreadableError(f"NVML says {error}") from error
