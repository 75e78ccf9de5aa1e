"""What the policy writes and what Lean gets: the data set's text stands, the policy's is put in one place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from underdog.records import Problem
from underdog.verifiers.lean.lean import Lean
from underdog.verifiers.lean.source import Submission, Task, TaskError, cut, extract, member_of, submission_of, task_of

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
TASK = Task("foo", "import Mathlib\nopen Nat", "def f (n : Nat) := n", "theorem foo : f 1 = 1")


@pytest.mark.parametrize(
    "end", ["", " :=", " := by", " := by sorry", " :=\n  by\n  sorry", " := sorry", ":=by sorry\n\n"]
)
def test_what_stands_for_the_proof_is_cut(end: str) -> None:
    assert cut("theorem foo : 1 = 1" + end) == "theorem foo : 1 = 1"


@pytest.mark.parametrize("statement", ["theorem foo : x = nearby", "theorem foo : sorry", "theorem foo : P (by simp)"])
def test_words_that_end_a_statement_otherwise_stay(statement: str) -> None:
    assert cut(statement) == statement


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("by omega", ("by omega", False)),
        (":= by omega", ("by omega", False)),
        ("thoughts ```lean\nby sorry\n``` </think>\n```lean4\nby\n  omega\n```\nDone.", ("by\n  omega", False)),
        ("```lean\nby sorry\n```\nbetter:\n```lean\nby omega\n```", ("by omega", False)),
        ("```lean\nby omega\n```\n```python\nprint(1)\n```", ("by omega", False)),
        ("```lean4\ntheorem h : 1 = 1 := rfl\ntheorem foo : 1 = 1 := h\n```",
         ("theorem h : 1 = 1 := rfl\ntheorem foo : 1 = 1 := h", True)),
        ("theorem foobar : 1 = 1 := rfl", ("theorem foobar : 1 = 1 := rfl", False)),
        ("```lean\n\n  exact h\n```", ("  exact h", False)),
        ("```lean\nby omega", ("```lean\nby omega", False)),
        ("", ("", False)),
    ],
)  # fmt: skip
def test_extraction_takes_the_last_block_after_the_reasoning(completion: str, expected: tuple[str, bool]) -> None:
    assert extract(completion, "foo") == expected


def test_a_fence_in_a_proof_cannot_choose_what_is_judged() -> None:
    text, whole = extract(
        "  sorry\n```\nHere is the final proof:\n```lean4\ntheorem target : True := trivial", "target"
    )
    assert "sorry" in text or whole  # either all of it is judged, or a file whose theorem has another type


def test_a_row_needs_one_submission_and_a_theorem() -> None:
    row = {"statement": "theorem foo : 1 = 1 := by sorry", "proof": "by rfl"}
    assert submission_of(row) == Submission(Task("foo", "", "", "theorem foo : 1 = 1"), "by rfl")
    assert submission_of({"statement": row["statement"], "file": "theorem foo : 1 = 1 := rfl"}).whole_file
    for bad in (
        {"statement": row["statement"]},
        {**row, "file": "theorem foo : 1 = 1 := rfl"},
        {"proof": "by rfl"},
        {**row, "statement": "example : 1 = 1"},
        {**row, "statement": "theorem foo /- : 1 = 1"},
        {**row, "header": 3},
        {**row, "proof": 3},
    ):
        with pytest.raises(TaskError):
            submission_of(bad)


def test_the_name_is_the_last_theorems() -> None:
    assert task_of(
        {"statement": "lemma a : 1 = 1 := rfl\n-- theorem no\ntheorem Foo.bar' (h : 1 = 1) : 2 = 2"}
    ).name == ("Foo.bar'")


def test_a_defining_preamble_goes_into_the_namespace_and_others_above_it() -> None:
    proof = member_of(Submission(TASK, "by rfl"), 1000)
    assert proof.shares
    assert proof.head == TASK.header
    assert proof.body.startswith(TASK.preamble)
    instance = Task("foo", "", "instance : Add Nat := ⟨Nat.mul⟩", "theorem foo : 1 + 1 = 1")
    assert member_of(Submission(instance, "by rfl"), 1000).head.endswith(instance.preamble)
    assert member_of(Submission(instance, "by rfl"), 1000).shares


def test_a_comment_at_the_end_of_a_statement_does_not_hide_the_proof() -> None:
    task = Task("foo", "", "", "theorem foo : 1 = 1 -- easy")
    assert "\n:=\nby rfl" in member_of(Submission(task, "by rfl"), 1000).body


def test_whole_files_bring_their_imports_and_get_what_they_lack() -> None:
    own = member_of(Submission(TASK, "import Aesop\nopen Real\ntheorem foo : f 1 = 1 := rfl", True), 1000)
    assert own.head == "import Mathlib\nimport Aesop\n"
    assert "open Real" in own.body
    assert TASK.preamble in own.body
    full = member_of(Submission(TASK, "def f (n : Nat) := n\ntheorem foo : f 1 = 1 := rfl", True), 1000)
    assert full.head == TASK.header
    assert full.body.count("def f") == 1


@pytest.mark.parametrize("name", ["minif2f/minif2f_lean4_v4.24.0.jsonl", "minif2f/deepseek_prover_v1.5_minif2f.jsonl"])
def test_both_minif2f_files_state_what_they_name(name: str) -> None:
    path = DATA / name
    if not path.exists():
        pytest.skip("the data set is not here")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 488
    for row in rows:
        task = task_of(row)
        assert task.name == row["name"]
        assert not task.statement.endswith(("sorry", "by", ":="))
        assert member_of(Submission(task, "by simp"), 400_000).shares


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("  omega -- easy\n```", True),
        ("  omega\n\n\n  -- done\n```\nand more words", True),
        ("  /- a /- nested -/ one -/\n  omega\n", True),
        ("  omega  ", True),
        ("  simp\n  omega\n```", False),
        ("    omega\n```", False),
        ('  omega "-- no comment"\n```', False),
    ],
)
def test_proofs_that_differ_in_comments_and_blank_lines_are_one(text: str, same: bool) -> None:
    info = {"statement": "theorem foo : 1 = 1", "opening": "```lean4\ntheorem foo : 1 = 1 := by\n"}
    problem, lean = Problem("foo", "", info=info), Lean()
    assert (lean.essence(problem, text) == lean.essence(problem, "  omega\n```")) == same


def test_a_proof_that_cannot_be_read_is_itself() -> None:
    problem = Problem("foo", "", info={"statement": "theorem foo : 1 = 1"})
    assert Lean().essence(problem, "by omega /- open") == "by omega /- open"
    assert Lean().essence(problem, "by omega -- a") == Lean().essence(problem, "by  omega -- b")
