"""Studies with trainings that take no time: what runs, what is skipped, refused, kept and drawn again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import underdog
from underdog.parts import RunError, UserError
from underdog.rl.runs.locks import is_taken, take
from underdog.rl.runs.report.page import h
from underdog.rl.studies import study as module
from underdog.rl.studies.grid import read_study, study_file
from underdog.rl.studies.plan import plan
from underdog.rl.studies.study import run_study
from underdog.rl.studies.sweep import read_sweep, trials

pytestmark = pytest.mark.usefixtures("quick")


def said_by(name: Path, out: Path, **options: Any) -> list[str]:
    """What a study says of its runs."""
    lines: list[str] = []
    run_study(str(name), out=out, say=lines.append, **options)
    return lines


def test_a_study_runs_each_arm_after_what_it_needs_and_then_nothing_again(write_study: Any, tmp_path: Path) -> None:
    name, out = write_study(), tmp_path / "out"
    lines = said_by(name, out, jobs=2)
    assert lines[0] == "which: 4 runs, none finished already; at most 2 at once"
    for seed in range(2):
        done = next(i for i, line in enumerate(lines) if line.startswith(f"first-seed{seed}: done"))
        assert done < lines.index(f"second-seed{seed}: started")
    log = (out / "logs" / "second-seed1.log").read_text()
    assert f'init_adapter="{out}/runs/first-seed1/adapters/v8"' in log
    assert log.endswith("training\n")
    first = json.loads((out / "study.json").read_text())
    assert said_by(name, out) == [f"which: 4 runs, 4 finished already; at most {os.cpu_count()} at once"]
    assert json.loads((out / "study.json").read_text()) == first
    assert (out / "study.html").stat().st_size > 10_000


def test_the_short_form_has_seeds_keys_and_a_folder_of_its_own(
    write_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = underdog.study(write_study(), short=True)
    assert [(run["arm"], run["seed"]) for run in result["runs"]] == [("first", 3), ("second", 3)]
    assert result["grid"]["arms"]["second"]["steps"] == 2
    assert result["tables"][0]["note"].startswith("A single seed.")
    assert sorted(path.name for path in (tmp_path / "studies" / "which-short" / "runs").iterdir()) == [
        "first-seed3",
        "second-seed3",
    ]


def test_a_failing_run_is_named_with_its_log_and_leaves_nothing_running(write_study: Any, tmp_path: Path) -> None:
    bad = ("learner.lr: 0.25, ", "learner.lr: 13, ")
    slow = ("first:\n", "first: {checkpoint.every: 160}\n  quick: {checkpoint.every: 1}\n")
    name, out = write_study(bad, slow, ("{first}", "{quick}")), tmp_path / "out"
    with pytest.raises(RunError) as failed:
        said_by(name, out, jobs=2)
    assert "second-seed0 failed with exit code 1 (the loss is not a number); its log is" in str(failed.value)
    assert str(out / "logs" / "second-seed0.log") in str(failed.value)
    assert not (out / "runs" / "first-seed0" / "summary.json").exists()
    assert not is_taken(out / "lock")


def begin(name: Path, out: Path) -> tuple[subprocess.Popen[str], int]:
    """A study in a process of its own, and the id of its first training, which has begun."""
    script = (
        "import sys; from underdog.rl.cli.main import main; from underdog.rl.studies import runner\n"
        "runner.TRAIN = (sys.executable, sys.argv.pop(1))\n"
        "main()\n"
    )
    arguments = [str(Path(__file__).with_name("small_run.py")), "study", str(name), "--out", str(out), "--jobs", "1"]
    process = subprocess.Popen([sys.executable, "-c", script, *arguments], stderr=subprocess.PIPE, text=True)
    log = out / "logs" / "first-seed0.log"
    wait_for(lambda: log.is_file() and "training" in log.read_text())
    (training,) = children(process.pid)
    return process, training


def test_a_killed_study_takes_its_trainings_with_it(write_study: Any, tmp_path: Path) -> None:
    name, out = write_study(("first:\n", "first: {checkpoint.every: 160}\n")), tmp_path / "out"
    process, training = begin(name, out)
    with pytest.raises(RunError, match="another process runs the study"):
        run_study(str(name), out=out)
    process.kill()
    process.communicate()
    wait_for(lambda: not alive(training))


@pytest.mark.parametrize(
    ("number", "word", "code"), [(signal.SIGTERM, "terminated", 143), (signal.SIGINT, "interrupted", 130)]
)
def test_an_interrupted_study_ends_its_trainings_and_says_how_to_go_on(
    number: signal.Signals, word: str, code: int, write_study: Any, tmp_path: Path
) -> None:
    name, out = write_study(("first:\n", "first: {checkpoint.every: 160}\n")), tmp_path / "out"
    process, training = begin(name, out)
    process.send_signal(number)
    lines = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == code
    assert lines[-2:] == [
        "first-seed0: stopped; it can be resumed",
        f"underdog: {word}; the same command goes on where it stopped",
    ]
    assert not alive(training)


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.is_file() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_run_that_another_process_trains_is_waited_for(write_study: Any, tmp_path: Path) -> None:
    name, out = write_study(), tmp_path / "out"
    lock = out / "runs" / "first-seed0" / "logs" / "lock"
    lock.parent.mkdir(parents=True)
    held = take(lock)
    assert held is not None
    lines: list[str] = []

    def say(text: str) -> None:
        lines.append(text)
        if text.startswith("first-seed0: another process"):
            held.close()

    run_study(str(name), out=out, say=say)
    assert lines.count("first-seed0: another process is training it; waiting") == 1
    assert any(line.startswith("first-seed0: done") for line in lines)


def test_a_changed_study_is_refused_with_the_runs_and_their_keys(write_study: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said_by(write_study(), out)
    name = write_study(("learner.lr: 0.25", "learner.lr: 0.5"))
    for report in (False, True):
        with pytest.raises(UserError) as refused:
            run_study(str(name), out=out, report=report)
        assert "second-seed0 (learner.lr); second-seed1 (learner.lr);" in str(refused.value)
        assert "first" not in str(refused.value)
    moved = tmp_path / "moved"
    out.rename(moved)
    assert said_by(write_study(), moved)[0].startswith("which: 4 runs, 4 finished")
    shutil.rmtree(moved / "runs" / "first-seed1")
    with pytest.raises(UserError, match=r"second-seed1 \(made from an earlier first-seed1\)"):
        run_study(str(write_study()), out=moved)


def test_a_report_is_drawn_from_study_json_alone(write_study: Any, tmp_path: Path) -> None:
    name, out = write_study(), tmp_path / "out"
    with pytest.raises(UserError, match="0 of 4 runs in .* are finished"):
        run_study(str(name), out=out, report=True)
    assert not out.exists()
    said_by(name, out)
    page = (out / "study.html").read_text()
    for rest in ("runs", "logs"):
        shutil.rmtree(out / rest)
    (out / "study.html").unlink()
    result, path = run_study(str(name), out=out, report=True)
    assert path.read_text() == page
    assert h(result.verdict) in page
    (out / "study.json").write_text("{}")
    with pytest.raises(UserError, match="does not hold what a study came to"):
        run_study(str(name), out=out, report=True)


def test_what_was_kept_is_drawn_in_a_fresh_clone(
    write_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(module, "KEPT", tmp_path / "docs" / "studies")
    name = write_study()
    kept, _ = run_study(str(name), out=tmp_path / "out", keep=True)
    text = (tmp_path / "docs" / "studies" / "which" / "study.md").read_text()
    assert text.startswith("# which\n\nWhich is better?\n\npass@1 against first: second +0.125 [+0.125, +0.125]")
    assert "| second | +0.125 [+0.125, +0.125] |" in text
    result, page = run_study(str(name), out=tmp_path / "fresh", report=True)
    assert result == kept
    assert page == tmp_path / "fresh" / "study.html"
    with pytest.raises(UserError, match="leave --short out"):
        run_study(str(name), short=True, keep=True)
    monkeypatch.setattr(module, "KEPT", tmp_path / "nowhere" / "studies")
    with pytest.raises(UserError, match="installed package"):
        run_study(str(name), out=tmp_path / "out", keep=True)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("seeds: [0, 1]", "sedes: [0]", "unknown key sedes; did you mean seeds?"),
        ("seeds: [0, 1]", "seeds: [0, 0]", "seeds: a seed stands there twice"),
        ("seeds: [0, 1]", "seeds: [0.5]", "seeds.0: input should be a valid integer (got 0.5)"),
        ("overrides: {steps: 8,", "overrides: {seed: 1,", "overrides: a study sets seed itself"),
        ("first:\n", "a/b:\n", "an arm cannot be named 'a/b'"),
        ("{first}", "{frist}", "the arm second names {frist}, which is no arm here; did you mean {first}?"),
        ("first:\n", "first: {init_adapter: '{second}'}\n", "in a circle, so none can run first: first -> second -> "),
        ("first:\n", "first: {lerner.lr: 1}\n", "the arm first: unknown key lerner.lr; did you mean learner.lr?"),
        ("recipe:", "analysis: amrs\nrecipe:", "did you mean 'arms'?"),
        ("short: {seeds: [3],", "short: {arms: [scond],", "short.arms names 'scond'; did you mean 'second'?"),
        ("recipe:", "analysis: unlikely_toy\nrecipe:", "which: its analysis is of an experiment's trials"),
    ],
)
def test_a_mistake_in_a_grid_is_one_sentence(
    old: str, new: str, sentence: str, write_study: Any, tmp_path: Path
) -> None:
    name = write_study((old, new))
    with pytest.raises(UserError) as refused:
        run_study(str(name), short="short" in old, out=tmp_path / "study")
    assert not (tmp_path / "study").exists()
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_no_study_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no study 'shapngs'; did you mean 'shapings'\?"):
        read_study("shapngs")
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(UserError, match="is not a study"):
        read_study(str(tmp_path / "list.yaml"))
    (tmp_path / "bare.yaml").write_text("seeds: [0]")
    with pytest.raises(UserError, match=r"bare.yaml: recipe is missing$"):
        read_study(str(tmp_path / "bare.yaml"))


def test_braces_hold_an_arm_and_doubled_ones_a_brace(write_study: Any, tmp_path: Path) -> None:
    name = write_study(("first:\n", "first: {rollouts.stop: ['{{x}}', a]}\n"))
    runs = plan(read_study(str(name)), tmp_path / "out")
    assert runs[0].overrides["rollouts.stop"] == ["{x}", "a"]
    assert runs[1].needs == (tmp_path / "out" / "runs" / "first-seed0",)


@pytest.mark.parametrize("short", [False, True])
def test_the_studies_that_come_with_the_package_can_run(short: bool, tmp_path: Path) -> None:
    from underdog.rl.studies.grid import study_names

    assert study_names()
    for name in study_names():
        if "experiment" in study_file(name)[2]:
            sweep = read_sweep(name, short=short)
            assert sweep.question
            assert trials(sweep, tmp_path)
            continue
        study = read_study(name, short=short)
        assert study.question
        assert plan(study, tmp_path)
