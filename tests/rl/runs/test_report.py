"""The report without a browser: what is chosen, said, refused, and how it is written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from underdog.parts import RunError, UserError
from underdog.rl.runs.reading import read_run, read_runs
from underdog.rl.runs.report.build import write_report
from underdog.rl.runs.report.page import _json
from underdog.rl.runs.report.samples import CHARACTERS, choose
from underdog.rl.runs.report.sections import build_sections, duration
from underdog.rl.runs.report.terminal import closing_table
from underdog.tests.rl.runs.fake_run import HOSTILE, sample, write_run


@given(st.recursive(st.text() | st.sampled_from(HOSTILE), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_embedded_json_cannot_leave_its_script_element_and_loses_nothing(value):
    text = _json(value)
    assert text.isascii()
    assert not set("<>&") & set(text)
    assert json.loads(text) == value


def test_the_report_is_one_file_beside_the_run_and_needs_no_torch(tmp_path):
    folder = write_run(tmp_path / "demo-1", steps=3)
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'peft', 'datasets', 'safetensors'): sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from underdog.rl.runs.report.build import write_report\n"
        "print(write_report([Path(sys.argv[1])]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(folder / "report.html")
    assert not list(folder.glob(".*"))  # nothing temporary is left


def test_no_script_runs_but_the_two_whose_digests_the_policy_names(tmp_path):
    page = write_report([write_run(tmp_path / "demo-1", steps=3)]).read_text()
    assert len(re.findall(r"<script(?: |>)", page.replace(_script(page, 0), ""))) == 3  # data, plotly, ours
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert policy[1].count("sha256-") == 2
    assert "default-src 'none'" in policy[1]
    assert "unsafe-inline" not in policy[1].split("style-src")[0]
    assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"?http", page.replace(_script(page, 0), ""))


def _script(page: str, number: int) -> str:
    return re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)[number]


def test_a_failed_write_leaves_the_old_report_and_says_so(tmp_path):
    folder = write_run(tmp_path / "demo-1", steps=2)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write_report([folder], tmp_path / "file" / "report.html")
    with pytest.raises(UserError, match="is a folder; name a file"):
        write_report([folder], tmp_path)
    with pytest.raises(UserError, match="name at least one run"):
        write_report([])


def test_several_runs_default_to_the_working_directory_and_leave_the_runs_own_reports(tmp_path, monkeypatch):
    runs = [write_run(tmp_path / name, steps=2) for name in ("a", "b")]
    monkeypatch.chdir(tmp_path)
    assert write_report(runs).resolve() == tmp_path / "comparison.html"
    assert not (runs[0] / "report.html").exists()


def test_exactly_the_differing_keys_are_listed(tmp_path):
    folders = [write_run(tmp_path / "a", steps=2), write_run(tmp_path / "b", steps=2, seed=5, lr=3e-4)]
    sections = {section.id: section for section in build_sections(read_runs(folders))}
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', sections["differences"].body)
    assert [key for key, _ in rows] == ["learner.lr", "seed"]  # and not `out`
    assert "0.0001" in rows[0][1]
    assert "0.0003" in rows[0][1]
    same = build_sections(read_runs([folders[0], folders[0]]))
    assert any("configurations are equal" in section.body for section in same)
    assert all(section.id != "differences" for section in build_sections([read_run(folders[0])]))


@pytest.mark.parametrize("runs", [1, 2])
def test_every_metric_is_shown_in_some_chart(tmp_path, runs):
    read = read_runs([write_run(tmp_path / str(i), steps=8) for i in range(runs)])
    charts = [chart for section in build_sections(read) for chart in section.charts]
    assert set(read[0].keys) == {key for chart in charts for key in chart.keys}


def test_pass_curves_carry_the_summary_and_a_log2_axis(tmp_path):
    run = read_run(write_run(tmp_path / "demo-1", steps=2))
    curves, change = build_sections([run])[0].charts
    assert run.summary is not None
    lines = {trace["name"]: trace for trace in curves.figure["data"] if "name" in trace}
    for name, block in (("base", "base"), ("trained", "final")):
        wanted = [run.summary[block][f"pass@{n}"] for n in lines[name]["x"]]
        assert lines[name]["y"] == pytest.approx(wanted, abs=1e-6)
    assert curves.figure["layout"]["xaxis"]["type"] == "log"
    assert curves.figure["layout"]["xaxis"]["tickvals"] == [1, 2, 4, 8, 16, 32, 64]
    band = next(trace for trace in change.figure["data"] if trace.get("fill") == "toself")
    assert min(band["y"]) == pytest.approx(run.summary["change"]["pass@64"]["ci95"][0], abs=1e-6)


def test_time_by_stage_adds_up_to_the_step(tmp_path):
    run = read_run(write_run(tmp_path / "demo-1", steps=6))
    charts = [chart for section in build_sections([run]) for chart in section.charts]
    chart = next(chart for chart in charts if chart.title == "Time by stage")
    heights = [sum(column) for column in zip(*(trace["y"] for trace in chart.figure["data"]), strict=True)]
    assert heights[1:] == pytest.approx(run.series("time/step")[1], rel=1e-5)


def test_many_steps_are_averaged_into_few_bars_without_changing_the_total(tmp_path):
    run = read_run(write_run(tmp_path / "demo-1", steps=350))
    charts = [chart for section in build_sections([run]) for chart in section.charts]
    chart = next(chart for chart in charts if chart.title == "Verdicts")
    shares = {trace["name"]: trace["y"] for trace in chart.figure["data"]}
    assert list(shares) == ["right", "wrong", "ungraded"]
    assert len(shares["right"]) <= 100
    assert all(sum(column) == pytest.approx(1, abs=1e-5) for column in zip(*shares.values(), strict=True))
    assert "mean of 4 steps" in chart.note


def test_samples_represent_every_step_and_kind(tmp_path):
    run = read_run(write_run(tmp_path / "demo-1", steps=14))
    chosen = choose([run], limit=70)
    assert (len(chosen.samples), chosen.total, chosen.damaged) == (70, 14 * 16, 0)
    assert set(Counter(s["step"] for s in chosen.samples)) == set(range(1, 15))
    kinds = Counter(s["kind"] for s in chosen.samples)
    assert kinds["ungraded"] == 2  # all there are
    assert min(kinds[kind] for kind in ("best", "worst", "other")) >= 14
    keys = [(s["step"], s["problem"], s["index"]) for s in chosen.samples]
    assert len(set(keys)) == len(keys)
    for step in (1, 7, 14):
        lines = (run.folder / "rollouts" / f"step_{step}.jsonl").read_text().splitlines()
        rewards = [row["reward"] for row in map(json.loads, lines) if row["reward"] is not None]
        shown = [s["reward"] for s in chosen.samples if s["step"] == step and s["reward"] is not None]
        assert (max(shown), min(shown)) == (max(rewards), min(rewards))


def test_ungraded_samples_are_found_in_steps_that_are_not_looked_at(tmp_path):
    folder = write_run(tmp_path / "demo-1", steps=1)
    for step in range(1, 302):
        rows = [sample(1, 1, index) for index in range(4)]
        if step == 150:
            rows[2] |= {"outcome": "could_not_grade", "reward": None}
        (folder / "rollouts" / f"step_{step}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = choose([read_run(folder)], limit=400)
    assert [s["step"] for s in chosen.samples if s["kind"] == "ungraded"] == [150]
    assert chosen.total == 301 * 4
    assert {1, 301} <= {s["step"] for s in chosen.samples}


def test_long_and_malformed_samples_do_no_harm(tmp_path):
    folder = write_run(tmp_path / "demo-1", steps=1)
    row = sample(1, 1, 0)
    odd = {
        "text": "a" * 10**6,
        "reward": "<b>",
        "parts": {"<i>": "x", "ok": 1},
        "tokens": None,
        "stop": 3,
        "seed": 2**62,
    }
    lines = [json.dumps(row | odd), "{", "[]", json.dumps({})]
    (folder / "rollouts" / "step_1.jsonl").write_text("\n".join(lines))
    chosen = choose([read_run(folder)], limit=10)
    assert (len(chosen.samples), chosen.total, chosen.damaged) == (2, 4, 2)
    long = next(s for s in chosen.samples if s["text"])
    assert len(long["text"]) < CHARACTERS + 100
    assert f"{10**6 - CHARACTERS} characters left out" in long["text"]
    assert (long["reward"], long["parts"], long["stop"], long["seed"]) == (None, {"ok": 1}, "3", str(2**62))


def test_a_run_in_its_first_minute_has_a_report(tmp_path):
    folder = tmp_path / "demo-1"
    folder.mkdir()
    (folder / "config.yaml").write_text("model: <b>x</b>\nsteps: 3\n")
    page = write_report([folder]).read_text()
    assert "There is no evaluation yet" in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert "<b>x</b>" not in page
    assert "metrics.jsonl is not there yet" in page


def test_names_with_lone_surrogates_can_be_written(tmp_path):
    folder = write_run(tmp_path / "demo-1", steps=1)
    row = sample(1, 1, 0) | {"text": "\ud800 half a pair", "problem": "\udfff"}
    (folder / "rollouts" / "step_1.jsonl").write_text(json.dumps(row))
    (folder / "data.json").write_text('{"template": "\\ud800"}')
    assert "half a pair" in write_report([folder]).read_text()


def test_the_closing_table_fits_a_terminal_and_tells_every_interval(tmp_path):
    run = read_run(write_run(tmp_path / "demo-1", steps=1))
    assert run.summary is not None
    console = Console(width=80, record=True, file=(tmp_path / "out").open("w"))
    console.print(closing_table(run.summary))
    text = console.export_text()
    assert "pass@1   0.410 [0.380, 0.440]  0.700 [0.670, 0.730]  +0.290 [+0.260, +0.320]" in text
    assert "pass@64" in text
    assert "−0.025" in text
    assert "…" not in text
    assert "256 problems, 64 samples each" in text
    console.print(closing_table({"base": None, "final": None, "change": None}))  # eval.problems=0


def test_the_page_says_what_a_loss_near_zero_means_and_how_many_samples_it_shows(tmp_path):
    page = unescape(write_report([write_run(tmp_path / "demo-1", steps=40)]).read_text())
    assert "A loss near 0 is normal for GRPO" in page
    assert "400 of 640 saved samples are in this page" in page


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.25 s"), (48, "48 s"), (432, "7 min 12 s"), (11100, "3 h 05 min")]
)
def test_durations_are_said_as_readers_say_them(seconds, text):
    assert duration(seconds) == text


def test_the_timeline_shows_which_stages_ran_at_the_same_time(tmp_path):
    run = read_run(write_run(tmp_path / "demo-1", steps=9))
    charts = {chart.title: chart for section in build_sections([run]) for chart in section.charts}
    traces = {trace["name"]: trace for trace in charts["When each stage ran"].figure["data"]}
    assert traces["generate"]["y"][0] != traces["update"]["y"][0]
    begin, end = traces["update"]["base"][0], traces["update"]["base"][0] + traces["update"]["x"][0]
    assert traces["generate"]["base"][0] < begin < traces["generate"]["base"][0] + traces["generate"]["x"][0] < end
    assert len(traces["generate"]["x"]) == 6  # the last steps only
    two = [read_run(write_run(tmp_path / name, steps=2)) for name in ("a", "b")]
    assert "When each stage ran" not in {chart.title for section in build_sections(two) for chart in section.charts}


def test_a_run_with_workers_is_told_what_more_of_them_would_bring(tmp_path):
    folder = write_run(tmp_path / "demo-1", steps=3)
    config = (folder / "config.yaml").read_text()
    assert not {section.id: section.body for section in build_sections([read_run(folder)])}["cost"]
    workers = config.replace("  group: 8\n", "  group: 8\n  workers: 2\n")
    assert workers != config
    (folder / "config.yaml").write_text(workers)
    body = {section.id: section.body for section in build_sections([read_run(folder)])}["cost"]
    assert re.search(r"generate 1\.1 s with 2 workers.*Twice as many as \d+ would", body)
