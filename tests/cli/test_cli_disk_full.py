"""A disk that fills up: one sentence, nothing half-written, and once there is space the run goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from underdog.rl.runs import checkpoint


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of a quarter of a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root on Linux")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=256k", "underdog-test", disk], capture_output=True)
    if done.returncode:
        pytest.skip(f"a small file system could not be mounted: {done.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def assert_whole(run: Path) -> None:
    """Every file that is there can be read to its end, and nothing temporary is left."""
    assert [path for path in run.rglob(".*") if path.suffix in {".tmp", ".removed"}] == []
    for path in run.rglob("*.json"):
        json.loads(path.read_text())
    for path in run.rglob("*.jsonl"):
        text = path.read_text()
        assert not text or text.endswith("\n")
        [json.loads(line) for line in text.splitlines()]
    for path in run.rglob("*.safetensors"):
        load_file(path)
    for step in checkpoint.steps(run / "checkpoints"):
        checkpoint.load(run / "checkpoints" / f"step_{step}")


@pytest.mark.slow
def test_a_run_on_a_full_disk_stops_and_goes_on_later(underdog: Any, tiny_recipe: Path, small_disk: Path) -> None:
    run = small_disk / "run"
    command = ("train", tiny_recipe, f"out={run}", "eval.problems=0", "eval.every=0", "steps=20")
    ended = underdog(*command)
    assert ended.code == 1
    assert "disk is full" in ended.sentence
    assert f"the same command with out={run} --resume goes on" in ended.sentence
    assert_whole(run)
    assert not (run / "summary.json").exists()

    ended = underdog(*command, "--resume")
    assert ended.code == 1
    assert "disk is full" in ended.sentence
    assert_whole(run)

    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert underdog(*command, "--resume").code == 0
    assert_whole(run)
    assert json.loads((run / "summary.json").read_text())["steps"] == 20
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 21))


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_an_export_to_a_full_disk_leaves_nothing(
    underdog: Any, finished_run: Path, small_disk: Path, form: str
) -> None:
    (small_disk / "filler").write_bytes(bytes(248 * 1024))
    ended = underdog("export", finished_run, small_disk / "model", "--form", form)
    assert ended.code == 1
    assert "disk is full" in ended.sentence
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_a_run_that_cannot_even_begin_leaves_nothing(underdog: Any, tiny_recipe: Path, small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(256 * 1024))
    ended = underdog("train", tiny_recipe, f"out={small_disk / 'run'}")
    assert ended.code == 1
    assert "disk is full" in ended.sentence
    assert [path.name for path in small_disk.iterdir()] == ["filler"]
