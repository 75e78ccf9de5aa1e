"""Lean statements as problems: both published miniF2F files, the splits kept apart, what the policy goes on from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from underdog.parts import UserError
from underdog.rl.data.lean_statements import LeanStatements
from underdog.rl.data.split import load
from underdog.verifiers.lean.source import extract, task_of

SHARED = Path(__file__).resolve().parents[3] / "../shared/data"
FILES = {"minif2f_lean4_v4.24.0.jsonl": "4.24.0", "deepseek_prover_v1.5_minif2f.jsonl": "4.9.0"}
ROWS: list[dict[str, Any]] = [
    {
        "name": "one",
        "split": "valid",
        "formal_statement": "theorem one : 1 = 1 := by sorry",
        "reference_proof": "by rfl",
    },
    {"name": "two", "split": "test", "formal_statement": "theorem two : 2 = 2 := by\n", "header": "import Init\n\n"},
    {
        "name": "three",
        "split": "test",
        "formal_statement": "theorem three : 3 = 3",
        "informal_prefix": "/-- Three. -/\n",
    },
]


def written(folder: Path, rows: list[dict[str, Any]]) -> str:
    path = folder / "statements.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_splits_are_kept_apart(tmp_path: Path) -> None:
    path = written(tmp_path, ROWS)
    both = load(LeanStatements(path=path, split="valid", eval_split="test"), seed=0)
    assert {p.id for p in both.train} == {"one"}
    assert {p.id for p in both.held_out} == {"two", "three"}
    only = load(LeanStatements(path=path, eval_split="test"), seed=0)
    assert only.train == ()
    assert {p.id for p in only.held_out} == {"two", "three"}


def test_what_a_prover_writes_after_the_prompt_is_a_whole_file(tmp_path: Path) -> None:
    for problem in LeanStatements(path=written(tmp_path, ROWS)).load(0):
        assert isinstance(problem.prompt, str)
        assert problem.prompt.endswith(problem.info["opening"])
        text, whole = extract(problem.info["opening"] + "  rfl\n```\nDone.", problem.id)
        assert whole
        assert text.endswith(f"{task_of(problem.info).statement} := by\n  rfl")


def test_a_chat_model_is_asked_for_a_block_and_solutions_stand_in_one(tmp_path: Path) -> None:
    problem = LeanStatements(path=written(tmp_path, ROWS), ask="block").load(0)[0]
    assert "opening" not in problem.info
    assert problem.solution is not None
    assert extract(problem.solution, problem.id) == ("by rfl", False)


def test_bad_files_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no row of split 'train'; its splits are test, valid"):
        LeanStatements(path=written(tmp_path, ROWS), split="train").load(0)
    with pytest.raises(UserError, match="row 4: the row has no 'statement'"):
        LeanStatements(path=written(tmp_path, [*ROWS, {"name": "four"}])).load(0)
    with pytest.raises(UserError, match="holds the theorem one twice"):
        LeanStatements(path=written(tmp_path, [ROWS[0], ROWS[0]])).load(0)


@pytest.mark.skipif(not (SHARED / "minif2f").is_dir(), reason="no copy of miniF2F beside the repository")
@pytest.mark.parametrize("name", FILES)
def test_the_published_files_are_known(name: str) -> None:
    data = LeanStatements(path=str(SHARED / "minif2f" / name), split="valid", eval_split="test")
    valid, test = data.load(0), data.load_evaluation(0)
    assert test is not None
    assert (len(valid), len(test)) == (244, 244)
    assert not {p.id for p in valid} & {p.id for p in test}
    assert {p.info["lean"] for p in (*valid, *test)} == {FILES[name]}
    assert all(str(p.prompt).rstrip().endswith(":= by") for p in test)
