"""`underdog eval --samples`: pass@N from anybody's judged rows is what the papers define, beside what it rests on."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from io import StringIO
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from underdog.rl.judged.samples import measure_samples
from underdog.rl.judged.tables import pass_table, verify_table
from underdog.rl.runs.evaluation import Tally, change, to_json

REASONS = {"right": "exact", "wrong": "different", "could_not_grade": "gold"}


def write(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def judged(problem: Any, outcomes: str, **more: Any) -> list[dict[str, Any]]:
    """Samples of a problem: r for right, w for wrong, u for ungraded, t for a time-out."""
    named = {"r": "right", "w": "wrong", "u": "could_not_grade", "t": "wrong"}
    reasons = [REASONS[named[letter]] if letter != "t" else "timeout" for letter in outcomes]
    rows = zip(outcomes, reasons, strict=True)
    return [{"problem": problem, "outcome": named[letter], "reason": reason, **more} for letter, reason in rows]


def best_of(outcomes: str, k: int) -> float:
    """pass@k by its definition: the share of the sets of k graded samples that hold a right one."""
    graded = [letter for letter in outcomes if letter != "u"]
    return fmean("r" in drawn for drawn in combinations(graded, k))


@settings(max_examples=40)
@given(problems=st.lists(st.text("rwut", min_size=4, max_size=9), min_size=1, max_size=5), order=st.randoms())
def test_pass_at_k_is_its_definition(
    problems: list[str], order: random.Random, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [row for i, outcomes in enumerate(problems) for row in judged(f"p{i}", outcomes)]
    order.shuffle(rows)
    path = write(tmp_path_factory.mktemp("s") / "s.jsonl", rows)
    graded = [len(outcomes) - outcomes.count("u") for outcomes in problems]
    if max(graded) == 0:
        return
    result = measure_samples(path)
    for k in (1, 2, 4, 8):
        able = [outcomes for outcomes, n in zip(problems, graded, strict=True) if n >= k]
        if not able:
            assert f"pass@{k}" not in result
            continue
        assert result[f"pass@{k}"] == pytest.approx(fmean(best_of(outcomes, k) for outcomes in able))
        assert result["enough"].get(f"pass@{k}", len(problems)) == len(able)
        low, high = result["ci95"][f"pass@{k}"]
        assert low - 1e-9 <= result[f"pass@{k}"] <= high + 1e-9
    joined = "".join(problems)
    assert (result["ungraded"], result["timeouts"], result["rows"]) == (joined.count("u"), joined.count("t"), len(rows))
    counts = {row["id"]: (row["right"], row["graded"]) for row in result["problems"]}
    assert counts == {f"p{i}": (o.count("r"), n) for i, (o, n) in enumerate(zip(problems, graded, strict=True))}


def test_what_is_printed(underdog: Any, tmp_path: Path) -> None:
    rows = [*judged(1, "rwtu", source="a"), *judged("2", "rrrr", source="b"), *judged("1", "r", source="a")]
    rows.append({"line": 9, "text": "{", "outcome": "could_not_grade", "reason": "bad_row", "seconds": 0.0})
    file = write(tmp_path / "judged.jsonl", rows)
    said = underdog("eval", "--samples", file, "--out", tmp_path / "counts.json")
    assert said.code == 0
    result = json.loads(said.out)
    assert result["problems"] == 2  # 1 and "1" are one problem
    assert result["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (result["samples"], result["fewest_samples"], result["bad_rows"]) == (5, 4, 1)
    assert (result["timeouts"], result["ungraded"]) == (1, 1)
    assert result["reasons"] == {"could_not_grade/gold": 1, "right/exact": 6, "wrong/different": 1, "wrong/timeout": 1}
    assert result["sources"]["a"]["pass@1"] == pytest.approx(0.5)
    assert result["sources"]["b"]["pass@4"] == 1
    assert "toolchain" not in result
    whole = json.loads((tmp_path / "counts.json").read_text())
    assert whole["problems"] == [{"id": "1", "right": 2, "graded": 4}, {"id": "2", "right": 4, "graded": 4}]
    assert {**whole, "problems": 2} == result


def test_a_paired_change(underdog: Any, tmp_path: Path) -> None:
    names = [f"p{i}" for i in range(20)]
    base = [row for name in names for row in judged(name, "rwww", source=name[-1])]
    final = [row for name in reversed(names) for row in judged(name, "rrww", source=name[-1])]
    random.Random(0).shuffle(base)
    before, after = write(tmp_path / "base.jsonl", base), write(tmp_path / "final.jsonl", final)
    result = json.loads(underdog("eval", "--samples", after, "--base", before).out)
    assert result["base"]["pass@1"] == pytest.approx(0.25)
    assert result["base"]["sha256"] == hashlib.sha256(before.read_bytes()).hexdigest()
    # Each problem gained the same, so there is no doubt about the gain.
    assert result["change"]["pass@1"]["mean"] == pytest.approx(0.25)
    assert result["change"]["pass@1"]["ci95"] == pytest.approx([0.25, 0.25])
    assert result["sources"]["3"]["change"]["pass@1"]["mean"] == pytest.approx(0.25)
    write(before, base[1:] + judged("other", "r"))
    said = underdog("eval", "--samples", after, "--base", before)
    assert said.code == 2
    assert "1 problems of" in said.sentence
    assert "'other'" in said.sentence


def test_bad_input_is_one_sentence(underdog: Any, tmp_path: Path) -> None:
    good = judged("p", "rw")
    files = {
        name: write(tmp_path / f"{name}.jsonl", [*good, *rows])
        for name, rows in {
            "good": [],
            "nameless": [{"outcome": "right", "reason": "exact"}],
            "null": [{"problem": None, "outcome": "right"}],
            "unjudged": [{"problem": "p", "completion": "4"}],
            "strange": [{"problem": "p", "outcome": "yes"}],
            "torn": ['{"problem": "p", "outco'],
        }.items()
    }
    ungraded = write(tmp_path / "ungraded.jsonl", judged("p", "uu"))
    for arguments, sentence in {
        ("--samples", files["nameless"]): "line 3 has no 'problem'",
        ("--samples", files["null"]): "line 3 has no 'problem'",
        ("--samples", files["unjudged"]): "line 3 has no 'outcome'; judge the file first",
        ("--samples", files["strange"]): "line 3 has the outcome 'yes'",
        ("--samples", files["torn"]): "line 3: not JSON",
        ("--samples", ungraded): "no sample in",
        ("--samples", tmp_path / "none.jsonl"): "there is no file",
        ("--samples", files["good"], "demo"): "leave out the run or recipe",
        ("--samples", files["good"], "eval.samples=3"): "leave out the run or recipe",
        ("--samples", files["good"], "--checkpoint", "best"): "leave out the run or recipe",
        ("demo", "--base", files["good"]): "--base belongs to --samples",
        (): "give a run or a recipe to evaluate, or --samples FILE",
    }.items():
        said = underdog("eval", *arguments)
        assert (said.code, said.out) == (2, ""), arguments
        assert sentence in said.sentence


def shown(renderable: Any) -> str:
    console = Console(file=StringIO(), width=80)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_the_tables_fit_a_terminal(tmp_path: Path) -> None:
    rows = [row for i in range(9) for row in judged(f"p{i}", "rrwt" if i % 2 else "rwwu", source=f"set {i % 2}")]
    file = write(tmp_path / "final.jsonl", [{**row, "certificate": "declarations"} for row in rows])
    result = measure_samples(file, write(tmp_path / "base.jsonl", [{**row, "outcome": "wrong"} for row in rows]))
    text = shown(pass_table(result))
    assert max(map(len, text.splitlines())) <= 80
    for expected in ("0.500", "+0.500", "set 1", "time-outs 4 (11.1%)", "could not grade 5 (13.9%)", "declarations"):
        assert expected in text
    assert result["sha256"] in text.replace("\n", "")
    assert "pass@4 is over the 4 problems" in text.replace("\n", " ")


def test_the_table_of_verify(tmp_path: Path) -> None:
    nlu: Mapping[str, Any] = {
        "task": "stsb",
        "rows": 3,
        "metrics": {"pearson": 0.9, "spearman": None},
        "baselines": {"pearson": None, "spearman": None},
        "invalid_rate": 1 / 3,
        "histogram": {"3": 2, "invalid": 1},
        "collapsed": True,
    }
    outcomes = {"right": 2, "wrong": 1, "could_not_grade": 0, "reasons": {"right/close": 2, "wrong/invalid": 1}}
    summary = {"verifier": "nlu", "file": "f", "sha256": "5" * 64, "out": "o", "rows": 3, **outcomes}
    text = shown(verify_table({**summary, "nlu": nlu}))
    assert max(map(len, text.splitlines())) <= 80
    for expected in ("0.9000", "invalid 33.3% of 3", "COLLAPSED", "66.7%", "5" * 64):
        assert expected in text


def test_a_run_is_shown_like_samples() -> None:
    halves = ("easy", "hard")
    base = Tally(
        ("a", "b"), np.array([1, 0]), np.array([4, 3]), 4, halves, {"right/exact": 1, "could_not_grade/gold": 1}
    )
    final = Tally(("a", "b"), np.array([4, 2]), np.array([4, 4]), 4, halves, {"right/exact": 6, "wrong/timeout": 2})
    before, after = (to_json(t, version=0, digest="", name="held_out") for t in (base, final))
    text = shown(pass_table({**after, "base": before, "change": change(base, final), "data_sha256": "7" * 64}))
    assert max(map(len, text.splitlines())) <= 80
    for expected in ("trained", "0.750", "+0.625", "hard", "time-outs 2 (25.0%)", "7" * 64):
        assert expected in text
