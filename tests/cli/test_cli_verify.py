"""`underdog verify`: every row comes back in order with its verdict, once, whatever the file holds and whoever dies."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import underdog as package
from underdog.records import Problem, Verdict
from underdog.rl import verify as verify_module
from underdog.verifiers.math.math import Math

HERE = Path(__file__).parent
WRITER = HERE.parent / "verifiers" / "olean_writer.py"
PROVER = shlex.join([sys.executable, "-I", str(HERE / "scripted_prover.py"), str(WRITER)])
WITHOUT_TORCH = """
import sys
for name in ("torch", "transformers", "peft", "datasets", "safetensors", "tokenizers", "ray", "vllm"):
    sys.modules[name] = None
from underdog.rl.cli.main import main
main()
"""
KILLED = """
import os, signal, sys
from underdog.rl import verify
from underdog.rl.cli.main import main

written = []
def append(file, lines):
    if written:
        file.write(lines[0] + lines[1][:-9])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(append_all(file, lines))

append_all, verify.append = verify.append, append
main()
"""


def write(path: Path, rows: Sequence[Any]) -> Path:
    """Rows as lines; a text stands as it is."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def sums(count: int) -> list[dict[str, Any]]:
    """Sums, of which every third is wrong."""
    return [
        {"problem": f"p{i // 4}", "answer": str(i), "completion": rf"\boxed{{{i + (i % 3 == 0)}}}", "at": i}
        for i in range(count)
    ]


def test_rows_come_back_in_order_with_their_verdicts(underdog: Any, tmp_path: Path) -> None:
    rows = [
        {"answer": "1/2", "completion": r"\boxed{0.5}", "source": "ä", "tags": [1, {"x": None}]},
        {"answer": 7, "completion": r"so \boxed{8}", "problem": 3, "outcome": "right", "reason": "said so"},
        {"answer": "3", "completion": "\ud800 three", "logp": float("nan")},
    ]
    file = write(tmp_path / "samples.jsonl", rows)
    said = underdog("verify", "math", file, "seconds=10")
    assert said.code == 0
    judged = read(tmp_path / "samples.judged.jsonl")
    verdicts = [{key: row.pop(key) for key in ("outcome", "reason", "seconds")} for row in judged]
    assert [(v["outcome"], v["reason"]) for v in verdicts] == [
        ("right", "exact"),
        ("wrong", "different"),
        ("wrong", "no_answer"),
    ]
    assert all(v["seconds"] >= 0 for v in verdicts)
    del rows[1]["outcome"], rows[1]["reason"]
    assert json.dumps(judged) == json.dumps(rows)
    summary = json.loads(said.out)
    assert summary["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert summary["reasons"] == {"right/exact": 1, "wrong/different": 1, "wrong/no_answer": 1}
    assert (summary["right"], summary["wrong"], summary["could_not_grade"]) == (1, 2, 0)
    assert summary["rows"] == 3


def test_bad_rows_are_told_and_harm_nobody(underdog: Any, tmp_path: Path) -> None:
    good = {"answer": "2", "completion": r"\boxed{2}"}
    bad = ["{", "[1]", "", '{"a": 1}', "[" * 100_000, {"answer": "2"}, {"answer": None, "completion": ""}]
    more = [
        {"answer": "2", "completion": ["2"]},
        {"answer": True, "completion": "x"},
        '{"answer": 1' + "0" * 5000 + "}",
    ]
    file = write(tmp_path / "samples.jsonl", [good, *bad, good, *more, good])
    with file.open("ab") as handle:
        handle.write(b'{"answer": "\xff"}\n' + json.dumps(good).encode())  # no line break at the end
    said = underdog("verify", "math", file, "--out", tmp_path / "deep" / "out.jsonl")
    assert said.code == 0
    judged = read(tmp_path / "deep" / "out.jsonl")
    expected = ["right"] + ["could_not_grade"] * 6 + ["right"] + ["could_not_grade"] * 3 + ["right", "could_not_grade"]
    assert [row["outcome"] for row in judged] == [*expected, "right"]
    assert {row["reason"] for row in judged if row["outcome"] == "could_not_grade"} == {"bad_row"}
    for line in (2, 3, 5, 6, 7, 8, 10, 11, 12, 14):
        assert f"{file}:{line}: could not grade (bad_row): " in said.err
    assert judged[1]["line"] == 2
    assert judged[1]["text"] == "{"
    assert judged[5]["answer"] == "2"
    assert json.loads(said.out)["reasons"]["could_not_grade/bad_row"] == 10


@settings(max_examples=25)
@given(share=st.floats(0, 1))
def test_a_file_cut_anywhere_is_continued(share: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("cut")
    rows = sums(30)
    file, out = write(folder / "samples.jsonl", [*rows[:9], "broken", *rows[9:]]), folder / "samples.judged.jsonl"
    package.verify("math", file)
    whole = out.read_bytes()
    cut = int(share * len(whole))
    out.write_bytes(whole[:cut])
    judged: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Math, "judge_all", counting(judged))
        package.verify("math", file)
    assert out.read_bytes() == whole
    lines = whole[:cut].count(b"\n")
    kept = lines - (lines == 10)  # a last row that could not be graded is tried again
    assert judged == [row["answer"] for row in rows[kept - (kept > 9) :]]


def counting(judged: list[str]) -> Any:
    original = Math.judge_all

    def judge_all(self: Math, submissions: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        judged.extend(problem.answer for problem, _ in submissions)
        return original(self, submissions)

    return judge_all


def test_a_killed_command_is_continued(underdog: Any, tmp_path: Path) -> None:
    file, out = write(tmp_path / "samples.jsonl", sums(700)), tmp_path / "samples.judged.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, "verify", "math", str(file)], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    left = out.read_bytes()
    assert left
    assert not left.endswith(b"\n")
    said = underdog("verify", "math", file)
    assert said.code == 0
    assert f"{left.count(bytes([10]))} of 700 rows are judged already" in said.err
    assert out.read_bytes().startswith(left)
    assert [row["at"] for row in read(out)] == list(range(700))
    summary = json.loads(said.out)
    assert summary["reasons"] == {"right/exact": 466, "wrong/different": 234}


def test_an_interruption_says_how_to_go_on(underdog: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "samples.jsonl", sums(600))
    original, calls = Math.judge_all, []

    def judge_all(self: Math, submissions: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, submissions)

    monkeypatch.setattr(Math, "judge_all", judge_all)
    said = underdog("verify", "math", file)
    assert said.code == 130
    assert said.sentence.endswith(f"the same command continues {tmp_path / 'samples.judged.jsonl'}")
    assert underdog("verify", "math", file).code == 0
    assert [row["at"] for row in read(tmp_path / "samples.judged.jsonl")] == list(range(600))


def test_what_failed_for_our_fault_at_the_end_is_tried_again(
    underdog: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = write(tmp_path / "samples.jsonl", sums(300)), tmp_path / "samples.judged.jsonl"
    with monkeypatch.context() as broken:
        lost = Verdict("could_not_grade", "no_worker", detail="a worker lacks a package")
        broken.setattr(Math, "judge_all", lambda self, submissions: [lost] * len(submissions))
        said = underdog("verify", "math", file)
        assert said.code == 2
        assert "no row of" in said.sentence
        assert "a worker lacks a package" in said.sentence
        assert Counter(row["reason"] for row in read(out)) == {"no_worker": 300}
    assert underdog("verify", "math", file).code == 0
    assert {row["reason"] for row in read(out)} == {"exact", "different"}


def test_two_inputs_or_options_never_mix(underdog: Any, tmp_path: Path) -> None:
    file, out = write(tmp_path / "a.jsonl", sums(9)), tmp_path / "out.jsonl"
    assert underdog("verify", "math", file, "--out", out).code == 0
    before = out.read_bytes()
    other = write(tmp_path / "b.jsonl", sums(10))
    foreign = write(tmp_path / "foreign.jsonl", [{"precious": True}])
    edited = tmp_path / "edited.jsonl"
    assert underdog("verify", "math", file, "--out", edited).code == 0
    edited.write_text(edited.read_text().replace('"right"', '"wrong"', 1).replace('"at": 4', '"at": 5'))
    kept = edited.read_bytes()
    for arguments, sentence in {
        (other, "--out", out): f"{out} comes from another input; choose another --out",
        (file, "--out", out, "percent=true"): f"{out} comes from other options (percent=False); choose another --out",
        (file, "--out", foreign): "was not written by this command",
        (file, "--out", edited): "was changed since",
        (file, "--out", file): "is the input itself",
        (file, "--out", tmp_path): "is not a file",
    }.items():
        said = underdog("verify", "math", *arguments)
        assert said.code == 2
        assert sentence in said.sentence
    assert (out.read_bytes(), edited.read_bytes()) == (before, kept)
    assert read(foreign) == [{"precious": True}]
    assert read(file) == sums(9)


def test_only_one_process_writes(underdog: Any, tmp_path: Path) -> None:
    file, out = write(tmp_path / "samples.jsonl", sums(3)), tmp_path / "out.jsonl"
    with out.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        said = underdog("verify", "math", file, "--out", out)
        assert said.code == 1
        assert "another process is writing" in said.sentence
    assert underdog("verify", "math", file, "--out", out).code == 0


def test_bad_input_is_one_sentence(underdog: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "samples.jsonl", sums(3))
    (tmp_path / "empty.jsonl").write_text("\n \n")
    useless = write(tmp_path / "useless.jsonl", ["{", {"question": "?"}])
    for arguments, sentence in {
        ("math", tmp_path / "none.jsonl"): "there is no file",
        ("math", tmp_path): "is not a file",
        ("math", tmp_path / "empty.jsonl"): "is empty",
        ("math", useless): f"no row of {useless} could be graded; {useless}:1: ",
        ("maths", file): "did you mean math?",
        ("math", file, "secnds=3"): "unknown key secnds; did you mean seconds?",
        ("math", file, "seconds=-3"): "seconds: input should be greater than 0",
        ("math", file, "10"): "write it as key=value",
        ("math", file, "--task", "cola"): "unknown key task",
        ("nlu", file): "add --task",
        ("nlu", file, "--task", "sst3"): "did you mean 'sst2'?",
        ("nlu", file, "--task", "cola", "task=rte"): "task is given twice",
        ("lean", file, "--lean", "/no/such/lean"): "there is no command '/no/such/lean'",
    }.items():
        said = underdog("verify", *arguments)
        assert said.code == 2, arguments
        assert sentence in said.sentence
    assert {path.name for path in tmp_path.iterdir() if "judged" in path.name} == {
        "useless.judged.jsonl",
        "useless.judged.jsonl.meta.json",
    }


def test_nlu_adds_up_to_official_figures(underdog: Any, tmp_path: Path) -> None:
    golds = ["acceptable"] * 8 + ["unacceptable"] * 4
    said = ["acceptable"] * 7 + ["unacceptable"] * 4 + ["dunno"]
    rows = [
        {"answer": gold, "completion": f"<Judgement>{answer}</Judgement>"}
        for gold, answer in zip(golds, said, strict=True)
    ]
    file = write(tmp_path / "cola.jsonl", [*rows, {"answer": "1", "completion": ""}])
    ended = underdog("verify", "nlu", file, "--task", "CoLA")
    assert ended.code == 0
    judged = read(tmp_path / "cola.judged.jsonl")
    right = sum(gold == answer for gold, answer in zip(golds, said, strict=True))
    assert Counter(row["outcome"] for row in judged) == {"right": right, "wrong": 12 - right, "could_not_grade": 1}
    nlu = json.loads(ended.out)["nlu"]
    assert (nlu["task"], nlu["rows"], nlu["ungraded"], nlu["collapsed"]) == ("cola", 12, 1, False)
    assert nlu["invalid_rate"] == pytest.approx(1 / 12)
    assert nlu["metrics"].keys() == nlu["baselines"].keys() == {"matthews"}
    assert nlu["baselines"]["matthews"] == 0
    assert 0 < nlu["metrics"]["matthews"] < 1
    same = write(tmp_path / "same.jsonl", [{**row, "completion": rows[0]["completion"]} for row in rows])
    collapsed = json.loads(underdog("verify", "nlu", same, "--task", "cola").out)["nlu"]
    assert collapsed["collapsed"]
    assert collapsed["metrics"]["matthews"] == 0


def test_multirc_is_measured_by_question(underdog: Any, tmp_path: Path) -> None:
    rows = [
        {
            "problem": f"{question}{i}",
            "question": question,
            "answer": "true",
            "completion": f"<Judgement>{said}</Judgement>",
        }
        for question, answers in {"a": ["true", "true"], "b": ["true", "false"]}.items()
        for i, said in enumerate(answers)
    ]
    ended = underdog("verify", "nlu", write(tmp_path / "m.jsonl", rows), "--task", "multirc")
    assert json.loads(ended.out)["nlu"]["metrics"]["em"] == 0.5
    for row in rows:
        del row["question"]
    ended = underdog("verify", "nlu", write(tmp_path / "n.jsonl", rows), "--task", "multirc")
    assert ended.code == 0
    assert "question" in json.loads(ended.out)["nlu"]["note"]


LEAN_ROWS = [
    {"name": "one", "statement": "theorem one : 1 = 1 := by sorry", "proof": "by rfl", "source": "valid"},
    {"name": "one", "header": "", "preamble": "", "statement": "theorem one : 1 = 1", "proof": "by wrong"},
    {"name": "two", "statement": "theorem two : 2 = 2 :=", "file": "theorem two : 2 = 2 := by rfl"},
    {"name": "two", "statement": "theorem two : 2 = 2"},
    {"name": "one", "statement": "theorem one : 1 = 1", "proof": "by set_option debug.skipKernelTC true in decide"},
]


def test_lean_rows(underdog: Any, tmp_path: Path) -> None:
    file, out = write(tmp_path / "lean.jsonl", LEAN_ROWS), tmp_path / "lean.judged.jsonl"
    said = underdog("verify", "lean", file, "--lean", PROVER, "workers=1")
    assert said.code == 0, said.err
    judged = read(out)
    assert [(row["outcome"], row["reason"], row["certificate"]) for row in judged] == [
        ("right", "proved", "declarations"),
        ("wrong", "lean_error", ""),
        ("right", "proved", "declarations"),
        ("could_not_grade", "bad_row", ""),
        ("wrong", "cheat", ""),
    ]
    assert all(row.items() <= got.items() for row, got in zip(LEAN_ROWS, judged, strict=True))
    lean = json.loads(said.out)["lean"]
    assert "scripted_prover.py" in lean["surroundings"]
    assert lean["certificates"] == {"declarations": 2}
    assert "unscanned" not in lean
    measured = json.loads(underdog("eval", "--samples", out).out)
    assert measured["problems"] == 2  # by the theorem's name
    assert measured["pass@1"] == pytest.approx((1 / 3 + 1) / 2)
    assert measured["toolchain"] == lean["surroundings"]
    assert measured["certificates"] == {"declarations": 2}
    out.write_text(out.read_text() + "\n")  # no longer the file that the note beside it is about
    assert json.loads(underdog("eval", "--samples", out).out)["toolchain"] is None


def test_without_the_scan_a_proof_is_a_measurement(underdog: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "lean.jsonl", LEAN_ROWS[-1:])
    said = underdog("verify", "lean", file, "--lean", PROVER, "--no-scan", "workers=1")
    (judged,) = read(tmp_path / "lean.judged.jsonl")
    assert (judged["outcome"], judged["reason"], judged["certificate"]) == ("right", "proved", "declarations")
    assert json.loads(said.out)["lean"]["unscanned"] == 1
    assert json.loads(underdog("eval", "--samples", tmp_path / "lean.judged.jsonl").out)["unscanned"] == 1


def test_it_needs_no_torch(tmp_path: Path) -> None:
    write(tmp_path / "samples.jsonl", sums(8))
    write(tmp_path / "rte.jsonl", [{"answer": "entailment", "completion": "<Judgement>entailment</Judgement>"}])
    for arguments in (
        ["verify", "math", "samples.jsonl"],
        ["eval", "--samples", "samples.judged.jsonl"],
        ["verify", "nlu", "rte.jsonl", "--task", "rte"],
    ):
        command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)


def test_a_full_disk_leaves_whole_lines(underdog: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, out = write(tmp_path / "samples.jsonl", sums(300)), tmp_path / "samples.judged.jsonl"
    calls: list[int] = []
    original = verify_module.append

    def append(handle: Any, lines: list[bytes]) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device", str(out))
        original(handle, lines)

    monkeypatch.setattr(verify_module, "append", append)
    said = underdog("verify", "math", file)
    assert said.code == 1
    assert "the disk is full" in said.sentence
    assert "the same command continues" in said.sentence
    assert underdog("verify", "math", file).code == 0
    assert [row["at"] for row in read(out)] == list(range(300))


def test_help_is_short(underdog: Any) -> None:
    said = underdog("verify", "--help")
    assert said.code == 0
    assert said.out.count("\n") < 40
