"""Studies of experiments: what is computed, kept, refused, and gone on with after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import underdog
from underdog.parts import UserError
from underdog.rl.studies.study import run_study
from underdog.rl.studies.sweep import read_sweep, trials

GRID = """\
# Is it lifted?
experiment: bandit
overrides: {topics: 2, problems: 8, fresh: 4, actions: 8, methods: 4, batch: 4, steps: 6}
seeds: [0, 1]
arms:
  grpo: {algorithm.kl: 0.02}
  high-kl: {algorithm.kl: 0.1}
  unlikely: {algorithm.kl: 0.1, shaping: unlikeliness}
mapped: [grpo, high-kl]
map:
  rate: {"0.1": {}, "0.5": {lr: 0.5}}
  group: {"8": {group: 8}}
analysis: {name: unlikely_toy, rates: [rate]}
short: {seeds: [3], axes: [rate], overrides: {steps: 2}}
"""


@pytest.fixture
def write_sweep(tmp_path: Path) -> Callable[..., Path]:
    """Writes a study of the bandit; `old=new` pairs change its text."""

    def write(*changes: tuple[str, str]) -> Path:
        text = GRID
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "lifted.yaml"
        path.write_text(text)
        return path

    return write


def said_by(name: Path, out: Path) -> list[str]:
    lines: list[str] = []
    run_study(str(name), out=out, say=lines.append)
    return lines


def test_each_arm_is_computed_once_in_each_setting(write_sweep: Any, tmp_path: Path) -> None:
    name, out = write_sweep(), tmp_path / "out"
    lines = said_by(name, out)
    assert lines[0] == "lifted: 7 trials, none finished already; one after another, here"
    assert [line.split(": done")[0] for line in lines[1:]] == [
        *("grpo", "high-kl", "unlikely"),
        *("grpo at rate 0.5", "high-kl at rate 0.5", "grpo at group 8", "high-kl at group 8"),
    ]
    result = json.loads((out / "study.json").read_text())
    titles = [table["title"] for table in result["tables"]]
    assert titles[:2] == ["The claims", "pass@N, main setting"]
    (map_,) = (table for table in result["tables"] if table["title"] == "Map: the claims")
    assert [row[0] for row in map_["rows"]] == ["main", "rate 0.5", "group 8"]
    assert result["charts"][-1]["title"] == "pass@1024 against pass@1 along rate"
    assert result["runs"] == []
    assert "The runs" not in (out / "study.html").read_text()
    assert said_by(name, out) == ["lifted: 7 trials, 7 finished already; one after another, here"]
    assert json.loads((out / "study.json").read_text()) == result


def test_a_changed_sweep_is_not_mixed_with_what_is_there(write_sweep: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said_by(write_sweep(), out)
    with pytest.raises(UserError) as refused:
        run_study(str(write_sweep(("group: 8}", "group: 16}"), ("kl: 0.02", "kl: 0.03"))), out=out)
    assert "were made: grpo, grpo at rate 0.5, grpo at group 8, high-kl at group 8; remove" in str(refused.value)
    lines = said_by(write_sweep(("group: {", "steps: {'9': {steps: 9}}\n  group: {")), out)
    assert lines[0].startswith("lifted: 9 trials, 7 finished already")


def test_the_short_form_is_the_studys_own(write_sweep: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = underdog.study(write_sweep(), short=True)
    assert result["short"]
    assert (result["grid"]["seeds"], list(result["grid"]["map"])) == ([3], ["rate"])
    held = json.loads((tmp_path / "studies" / "lifted-short" / "trials" / "main" / "grpo.json").read_text())
    assert (held["experiment"]["steps"], held["seeds"]) == (2, [3])


def test_the_short_form_of_unlikely_toy_ends_in_a_page(tmp_path: Path) -> None:
    result, page = run_study("unlikely-toy", short=True, out=tmp_path / "out")
    assert result.verdict.startswith("grpo's uplift falls with rank: ")
    assert len(result.charts) == 4
    assert result.tables[-1].title == "Map: rank bias"
    assert page.stat().st_size > 10_000


@pytest.mark.slow
def test_killed_and_started_again(write_sweep: Any, tmp_path: Path) -> None:
    name, calm, out = write_sweep(("steps: 6", "steps: 100")), tmp_path / "calm", tmp_path / "killed"
    said_by(name, calm)
    command = [sys.executable, "-m", "underdog.rl.cli", "study", str(name), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = out / "trials" / "main" / "grpo.json"
    while not first.is_file():
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    made = trials(read_sweep(str(name)), out)
    done = {trial.file: trial.file.stat().st_mtime_ns for trial in made if trial.file.is_file()}
    assert 0 < len(done) < len(made)
    assert said_by(name, out)[0].startswith(f"lifted: 7 trials, {len(done)} finished already")
    assert {file: file.stat().st_mtime_ns for file in done} == done
    found = [json.loads((root / "study.json").read_text()) for root in (calm, out)]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("seeds: [0, 1]", "seeds: [0, 0]", "seeds: a seed stands there twice"),
        ("experiment: bandit", "experiment: bandti", "there is no experiment named 'bandti'; did you mean 'bandit'?"),
        ("lr: 0.5", "step: 5", "the arm grpo at rate 0.5: unknown key step; did you mean steps?"),
        ("mapped: [grpo,", "mapped: [gpro,", "mapped names 'gpro'; did you mean 'grpo'?"),
        ("axes: [rate]", "axes: [rat]", "short.axes names 'rat'; did you mean 'rate'?"),
        ("analysis: {name: unlikely_toy, rates: [rate]}", "analysis: arms", "lifted: its analysis is of trainings"),
    ],
)
def test_a_mistake_in_a_sweep_is_one_sentence(
    old: str, new: str, sentence: str, write_sweep: Any, tmp_path: Path
) -> None:
    name = write_sweep((old, new))
    with pytest.raises(UserError) as refused:
        run_study(str(name), out=tmp_path / "study")
    assert not (tmp_path / "study").exists()
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
