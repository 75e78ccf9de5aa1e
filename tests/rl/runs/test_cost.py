"""Cost: meters against planted counters and real processes, sums over attempts, and what is said where none can be."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from underdog.rl.api import train
from underdog.rl.runs.cost import FILE, Cost, Meter, Spent, summarise, tree_cpu_seconds
from underdog.rl.runs.energy import Rapl, UnreadableError
from underdog.rl.runs.report.build import write_report

BURN = "import time\nwhile time.process_time() < 0.5: pass\n"


def zone(root: Path, name: str, kind: str, energy: int, lap: int = 1_000_000) -> Path:
    folder = root / name
    folder.mkdir()
    for file, value in (("name", kind), ("energy_uj", energy), ("max_energy_range_uj", lap)):
        (folder / file).write_text(f"{value}\n")
    return folder / "energy_uj"


def test_rapl_adds_packages_and_memory_over_a_counter_s_lap_and_leaves_parts_out(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 900_000)
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", 100)
    core = zone(tmp_path, "intel-rapl:0:0", "core", 0)
    zone(tmp_path, "intel-rapl:1", "psys", 0)
    meter = Rapl(tmp_path)
    try:
        package.write_text("200000\n")  # a lap: 0.3 J
        memory.write_text("500100\n")
        core.write_text("999999\n")
        assert meter.joules() == pytest.approx(0.3 + 0.5)
        package.write_text("300000\n")
        assert meter.joules() == pytest.approx(0.3 + 0.5 + 0.1)
        package.unlink()
        with pytest.raises(UnreadableError, match=r"energy_uj cannot be read \(No such file"):
            meter.joules()
    finally:
        meter.close()


def test_without_a_zone_rapl_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="no RAPL zone"):
        Rapl(tmp_path)


def test_processor_seconds_are_those_of_the_whole_tree_living_or_ended() -> None:
    before = tree_cpu_seconds()
    subprocess.run([sys.executable, "-c", BURN], check=True)
    ended = tree_cpu_seconds() - before
    assert 0.45 <= ended < 3
    living = subprocess.Popen([sys.executable, "-c", BURN + "input()"], stdin=subprocess.PIPE)
    try:
        until = time.monotonic() + 20
        while tree_cpu_seconds() - before - ended < 0.45 and time.monotonic() < until:
            time.sleep(0.05)
        assert tree_cpu_seconds() - before - ended >= 0.45
    finally:
        living.communicate(b"\n")


def test_attempts_add_up_and_gpu_seconds_count_the_gpus_held(tmp_path: Path) -> None:
    path = tmp_path / FILE
    first = Meter(path, fresh=True)
    first.count(sampled=10, evaluated=3)
    one = first.save()
    first.close()
    second = Meter(path, fresh=False)
    second.count(sampled=5, trained=7)
    second.hold(2.0)
    time.sleep(0.1)
    both = second.save()
    second.close()
    assert (one.attempts, both.attempts) == (1, 2)
    assert (both.sampled, both.evaluated, both.trained) == (15, 3, 7)
    assert both.seconds > one.seconds
    assert both.cpu_seconds >= one.cpu_seconds
    assert 0.2 <= both.gpu_seconds <= 2 * (both.seconds - one.seconds)
    assert (both.gpu_joules is None) == any("GPUs' energy" in why for why in both.unread)
    assert Spent.read(path) == both


def test_an_attempt_before_there_were_meters_is_said(tmp_path: Path) -> None:
    meter = Meter(tmp_path / FILE, fresh=False)
    assert "an earlier attempt had no meter, and is left out" in meter.save().unread
    assert meter.save().cpu_joules is None
    meter.close()


def spent(**fields: Any) -> Spent:
    known = {"attempts": 1, "seconds": 7200, "cpu_seconds": 3600, "gpu_seconds": 7200, "sampled": 900, "evaluated": 100}
    return Spent(**{**known, "cpu_joules": 1.8e6, "gpu_joules": 5.4e6, **fields})


def test_the_summary_divides_by_the_points_of_a_clear_gain() -> None:
    prices = Cost(cpu_hour=0.5, gpu_hour=3, source="a page, 2026-11-26")
    found = summarise(spent(), prices, {"mean": 0.05, "ci95": [0.02, 0.08]})
    assert (found["cpu_hours"], found["gpu_hours"], found["kwh"], found["tokens"]) == (1, 2, 2, 1000)
    assert found["dollars"] == pytest.approx(0.5 + 6)
    assert found["points"] == pytest.approx(5)
    assert found["per_point"] == {k: pytest.approx(found[k] / 5) for k in found["per_point"]}
    assert found["prices"]["source"] == "a page, 2026-11-26"
    for gain in (None, {"mean": 0.05, "ci95": [-0.01, 0.11]}, {"mean": -0.1, "ci95": [-0.2, -0.05]}):
        assert summarise(spent(), prices, gain)["per_point"] is None


def test_energy_that_cannot_be_read_is_none_and_never_zero() -> None:
    found = summarise(spent(gpu_joules=None, unread=("GPUs' energy: no meter",)), Cost(), None)
    assert found["kwh"] is None
    json.dumps(found, allow_nan=False)


def test_a_run_says_what_it_cost_and_a_resumed_one_what_both_attempts_did(tiny_recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = train(str(tiny_recipe), out=str(out), steps=2)["cost"]
    again = train(str(tiny_recipe), out=str(out), steps=4, resume=True, **{"cost.cpu_hour": 36.0})["cost"]
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert (first["spent"]["attempts"], again["spent"]["attempts"]) == (1, 2)
    assert again["spent"]["sampled"] == sum(row["completions/tokens"] for row in rows)
    assert again["spent"]["trained"] == sum(row["tokens"] for row in rows)
    assert again["spent"]["evaluated"] > first["spent"]["evaluated"] > 0
    assert again["cpu_hours"] > first["cpu_hours"] > 0
    assert again["dollars"] == pytest.approx(again["spent"]["cpu_seconds"] / 100 + 2 * again["gpu_hours"])
    assert not [key for row in rows for key in row if "cost" in key or "joules" in key]
    page = write_report([out]).read_text()
    assert "processor hours" in page
    assert "2 attempts" in page
    assert "whoever used them" in page or "Energy is not known" in page
