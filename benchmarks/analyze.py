"""How fast an update map streams: comparing two sharded bfloat16 models against only reading their files.

    python benchmarks/analyze.py [--gb 3.2] [--repeats 5] [--spectra 8]

Makes a pair of `--gb` gigabytes together (matrices of Qwen2-1.5B's shapes; a Gaussian update of deviation 1e-5 on
weights of deviation 0.02), reads and compares it in turn with two threads after one warm-up, files in the page cache.
Comparing is with counts, all tolerances, last places, norms, rows, columns and baselines; spectra are timed apart.
RssAnon is the process's largest anonymous memory while it compares.

The last line is `ratio <read seconds / analyze seconds>`, medians.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors.torch import save_file

from underdog.rl.updates.maps import compare
from underdog.rl.updates.weights import Folder

SHAPES = {"self_attn.q_proj": (1536, 1536), "mlp.gate_proj": (8960, 1536), "mlp.down_proj": (1536, 8960)}
THREADS = 2
PER_SHARD = 4
"""Layers in a shard."""
CHUNK = 2**22
"""Bytes a read asks for."""


def make(place: Path, gigabytes: float) -> None:
    """Both models."""
    torch.manual_seed(0)
    size = max(rows * columns for rows, columns in SHAPES.values())
    base = torch.randn(2 * size) * 0.02
    tuned = base + torch.randn(2 * size) * 1e-5
    layers = round(gigabytes * 1e9 / 4 / sum(rows * columns for rows, columns in SHAPES.values()))
    for name, values in (("base", base.bfloat16()), ("tuned", tuned.bfloat16())):
        index: dict[str, str] = {}
        (place / name).mkdir()
        for first in range(0, layers, PER_SHARD):
            tensors = {}
            for layer in range(first, min(first + PER_SHARD, layers)):
                for module, (rows, columns) in SHAPES.items():
                    start = 1009 * layer % size
                    cut = values[start : start + rows * columns]
                    tensors[f"model.layers.{layer}.{module}.weight"] = cut.view(rows, columns).clone()
            file = f"model-{first:05d}.safetensors"
            save_file(tensors, place / name / file)
            index |= dict.fromkeys(tensors, file)
        (place / name / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def read_all(files: list[Path]) -> None:
    """Every byte once, into the same buffer, a share of each file a thread."""

    def share(part: int) -> None:
        buffer = memoryview(bytearray(CHUNK))
        for file in files:
            size = file.stat().st_size
            place, stop = part * size // THREADS, (part + 1) * size // THREADS
            handle = os.open(file, os.O_RDONLY)
            while place < stop:
                place += os.preadv(handle, [buffer[: stop - place]], place)
            os.close(handle)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(share, range(THREADS)))


def analyze(place: Path, spectra: int = 0) -> float:
    """The share of unchanged weights, so that both sides are seen to do their work."""
    base, tuned = Folder(place / "base"), Folder(place / "tuned")
    return compare(base, tuned, spectra=spectra, threads=THREADS).total().unchanged


class Watch(threading.Thread):
    """The largest RssAnon of this process, in bytes, sampled while it runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self._over = 0, threading.Event()

    def run(self) -> None:
        """Sample."""
        while not self._over.wait(0.005):
            status = Path("/proc/self/status").read_text()
            self.peak = max(self.peak, 1024 * int(status.partition("RssAnon:")[2].split()[0]))

    def stop(self) -> int:
        """The peak."""
        self._over.set()
        self.join()
        return self.peak


def main() -> None:
    """Make, read and compare in turn, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=3.2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--spectra", type=int, default=8)
    asked = parser.parse_args()
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory(prefix="underdog-analyze-") as name:
        place = Path(name)
        maker = multiprocessing.get_context("spawn").Process(target=make, args=(place, asked.gb))
        maker.start()
        maker.join()
        files = sorted(place.glob("*/*.safetensors"))
        size = sum(file.stat().st_size for file in files)
        times: dict[str, list[float]] = {"read": [], "analyze": []}
        unchanged, peak = 0.0, 0
        for turn in range(asked.repeats + 1):
            start = time.perf_counter()
            read_all(files)
            between = time.perf_counter()
            watch = Watch()
            watch.start()
            unchanged = analyze(place)
            peak = max(peak, watch.stop())
            if turn:  # the first is the warm-up
                times["read"].append(between - start)
                times["analyze"].append(time.perf_counter() - between)
        start = time.perf_counter()
        analyze(place, asked.spectra)
        spectra = time.perf_counter() - start - statistics.median(times["analyze"])
    print(f"{size / 1e9:.2f} GB in {len(files)} files, {unchanged:.1%} of weights unchanged, {THREADS} threads")
    for side, seconds in times.items():
        middle, low, high = statistics.median(seconds), min(seconds), max(seconds)
        print(f"{side:<8} {middle:.2f} s ({low:.2f} to {high:.2f}), {size / middle / 1e9:.2f} GB/s")
    print(f"RssAnon at most {peak / 1e9:.2f} GB; {asked.spectra} spectra {spectra:.2f} s more")
    print(f"ratio {statistics.median(times['read']) / statistics.median(times['analyze']):.2f}")


if __name__ == "__main__":
    main()
