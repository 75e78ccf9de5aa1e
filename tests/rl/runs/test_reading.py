"""Reading run folders as they are found: finished, running, killed, damaged."""

from __future__ import annotations

import fcntl
import json

import pytest

from underdog.parts import UserError
from underdog.rl.runs.reading import PassAt, pass_at, read_run, read_runs
from underdog.tests.rl.runs.fake_run import write_run


def test_a_finished_run_is_read_whole(tmp_path):
    run = read_run(write_run(tmp_path / "demo-1", steps=8))
    assert (run.name, run.status, run.step, run.recipe, run.notes) == ("demo-1", "finished", 8, "demo", ())
    assert run.config["learner"]["lr"] == pytest.approx(1e-4)
    assert run.series("lr")[0] == list(range(1, 9))
    assert [p.n for p in run.passes("final")] == [1, 2, 4, 8, 16, 32, 64]
    assert run.change()[0] == PassAt(1, 0.29, 0.29 - 0.03, 0.29 + 0.03)


def test_a_killed_run_is_read_up_to_its_last_whole_line(tmp_path):
    run = read_run(write_run(tmp_path / "demo-1", steps=16, finished=False))
    assert (run.status, run.step) == ("stopped", 16)
    assert any("half-written" in note for note in run.notes)
    assert run.passes("base")[0].mean == pytest.approx(0.41)  # from evaluations/, as there is no summary
    assert run.passes("final")[0].mean == pytest.approx(0.70)
    assert run.change() == ()


def test_a_run_whose_lock_is_held_is_running(tmp_path):
    folder = write_run(tmp_path / "demo-1", steps=2, finished=False)
    with (folder / "logs" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert read_run(folder).status == "running"
    assert read_run(folder).status == "stopped"


def test_a_failed_run_says_why(tmp_path):
    folder = write_run(tmp_path / "demo-1", steps=2, finished=False)
    (folder / "failure.json").write_text('{"error": "the disk is full"}')
    run = read_run(folder)
    assert (run.status, run.error) == ("failed", "the disk is full")


def test_what_is_damaged_is_left_out_and_said(tmp_path):
    folder = write_run(tmp_path / "demo-1", steps=4)
    metrics = folder / "metrics.jsonl"
    metrics.write_bytes(
        metrics.read_bytes() + b'{"step": 5, "reward": NaN}\n\xff\xfe\n[1]\n{"no": 1}\n{"step": 4, "reward": 9.5}\n'
    )
    (folder / "summary.json").write_text("{")
    (folder / "evaluations" / "base.json").write_text('{"pass@1": "much"}')
    (folder / "config.yaml").write_text("a: [")
    run = read_run(folder)
    assert run.step == 5
    assert run.series("reward")[0] == [1, 2, 3, 4]
    assert run.series("reward")[1][-1] == 9.5  # a step written twice counts as written last
    notes = " ".join(run.notes)
    assert "3 lines of metrics.jsonl" in notes
    assert "summary.json" in notes
    assert "config.yaml" in notes


def test_a_fresh_run_without_any_metrics_is_a_run(tmp_path):
    folder = tmp_path / "demo-1"
    folder.mkdir()
    (folder / "config.yaml").write_text("seed: 1\n")
    run = read_run(folder)
    assert (run.step, run.keys, run.passes("base")) == (0, (), ())


def test_a_folder_that_is_no_run_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"is no run: neither config\.yaml nor metrics\.jsonl"):
        read_run(tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        read_run(tmp_path / "absent")


def test_runs_of_one_name_are_told_apart(tmp_path):
    folders = [write_run(tmp_path / place / "demo-1", steps=1) for place in ("a", "b")]
    assert [run.name for run in read_runs(folders)] == ["a/demo-1", "b/demo-1"]


def test_pass_at_takes_both_shapes_and_ignores_the_rest():
    block = json.loads(
        '{"pass@8": 0.5, "pass@1": 0.25, "ci95": {"pass@1": [0.2, 0.3], "pass@8": [0.1]}, "problems": 3}'
    )
    assert pass_at(block) == (PassAt(1, 0.25, 0.2, 0.3), PassAt(8, 0.5))
    assert pass_at({"pass@2": {"mean": 0.1, "ci95": [-0.1, 0.3]}, "pass@4": None}) == (PassAt(2, 0.1, -0.1, 0.3),)
