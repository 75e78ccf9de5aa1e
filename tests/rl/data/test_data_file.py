"""Local files: every kind gives the same problems, and what is wrong with one is said in one sentence."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from underdog.parts import UserError
from underdog.rl.data.file import File
from underdog.rl.data.split import load

ROWS = [
    {"question": "What is 1+1?", "gold": "2", "level": 1},
    {"question": "Say “ja”,\nthen stop.", "gold": "ja", "level": 2},
    {"question": "2^5?", "gold": "32", "level": 3},
]
GSM8K = Path(__file__).resolve().parents[3] / "../shared/data/gsm8k"


def write(folder: Path, kind: str, rows=ROWS) -> str:
    path = folder / f"set.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    elif kind == "json":
        path.write_text(json.dumps(rows, indent=1))
    elif kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def lines(folder: Path, *rows) -> str:
    path = folder / "set.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def message(path: str, **options) -> str:
    with pytest.raises(UserError) as caught:
        File(path=path, **options).load(0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_every_kind_of_file_gives_the_same_problems(tmp_path, kind):
    problems = File(path=write(tmp_path, kind), prompt="question", answer="gold").load(0)
    assert [(p.id, p.prompt, p.answer) for p in problems] == [
        (f"set/{k}", row["question"], row["gold"]) for k, row in enumerate(ROWS)
    ]
    assert [int(p.info["level"]) for p in problems] == [1, 2, 3]


def test_json_lines_under_the_name_json_are_read(tmp_path):
    path = tmp_path / "set.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert len(File(path=str(path), prompt="question", answer="gold").load(0)) == 3


def test_paths_are_relative_to_the_working_directory(tmp_path, monkeypatch):
    write(tmp_path, "jsonl")
    monkeypatch.chdir(tmp_path)
    assert len(File(path="set.jsonl", prompt="question", answer="gold").load(0)) == 3


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_limit_reads_the_first_rows_only(tmp_path, kind):
    path = write(tmp_path, kind)
    assert [p.answer for p in File(path=path, prompt="question", answer="gold", limit=2).load(0)] == ["2", "ja"]


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
@pytest.mark.parametrize("option", ["prompt", "answer", "solution", "problem_id"])
def test_a_column_that_is_not_there_names_those_that_are(tmp_path, kind, option):
    options = {"prompt": "question", "answer": "gold", option: "qestion"}
    text = message(write(tmp_path, kind), **options)
    assert f"data.{option}" in text
    assert "'qestion'" in text
    assert "question, gold, level" in text
    assert "did you mean 'question'?" in text


def test_a_missing_default_column_is_an_error_too(tmp_path):
    assert "no column 'prompt'" in message(write(tmp_path, "jsonl"))


def test_fields_of_nested_columns_are_reached_with_a_dot(tmp_path):
    row = {"prompt": [{"role": "user", "content": "1+1?"}], "reward_model": {"ground_truth": 2, "style": "rule"}}
    path = lines(tmp_path, row)
    (problem,) = File(path=path, answer="reward_model.ground_truth").load(0)
    assert (problem.prompt, problem.answer) == (({"role": "user", "content": "1+1?"},), "2")
    assert "reward_model.ground_truth, reward_model.style" in message(path, answer="reward_model.truth")


@pytest.mark.parametrize(
    ("cell", "answer"),
    [(27.0, "27"), (0.5, "0.5"), (-3, "-3"), ("  x ", "x"), (["7"], "7"), (10**400, str(10**400))],
)
def test_answers_become_text(tmp_path, cell, answer):
    (problem,) = File(path=lines(tmp_path, {"prompt": "a", "answer": cell})).load(0)
    assert problem.answer == answer


def test_answer_after_takes_what_follows_the_last_mark(tmp_path):
    path = lines(tmp_path, {"prompt": "a", "answer": "#### 1, no\n#### 1,200 "}, {"prompt": "b", "answer": "####3"})
    problems = File(path=path, answer_after="####", solution="answer").load(0)
    assert [p.answer for p in problems] == ["1,200", "3"]
    assert problems[0].solution == "#### 1, no\n#### 1,200 "


def test_incomplete_rows_are_left_out_and_their_number_is_logged(tmp_path, caplog):
    rows = [
        {"prompt": "a", "answer": "1"},
        {"prompt": "b", "answer": None},
        {"prompt": " ", "answer": "1"},
        {"answer": "4"},
    ]
    problems = File(path=lines(tmp_path, *rows)).load(0)
    assert [p.id for p in problems] == ["set/0"]
    assert "3 of 4 rows left out" in caplog.text


def test_a_set_without_one_complete_row_is_an_error(tmp_path):
    assert "none of its 1 rows" in message(lines(tmp_path, {"prompt": "a", "answer": "18"}), answer_after="####")


def test_problems_need_no_answer_where_the_recipe_says_so(tmp_path):
    (problem,) = File(path=lines(tmp_path, {"prompt": "prove it"}), answer=None).load(0)
    assert problem.answer == ""


def test_ids_come_from_their_column_and_must_tell_problems_apart(tmp_path):
    good = lines(tmp_path, {"prompt": "a", "answer": 1, "key": 7}, {"prompt": "b", "answer": 1, "key": 8})
    assert [p.id for p in File(path=good, problem_id="key").load(0)] == ["7", "8"]
    bad = lines(tmp_path, {"prompt": "a", "answer": 1, "key": 7}, {"prompt": "b", "answer": 1, "key": 7})
    assert "'7' belongs to several problems" in message(bad, problem_id="key")


@pytest.mark.parametrize(
    "damage",
    [
        '{"prompt": "b", "answer"',
        "[1, 2]",
        "nonsense",
        "[" * 100_000,
        '{"prompt": "b", "answer": ' + "9" * 5000 + "}",
    ],
)
def test_a_damaged_line_is_named(tmp_path, damage):
    path = lines(tmp_path, {"prompt": "a", "answer": 1}, damage, {"prompt": "c", "answer": 1})
    assert f"{path}, line 2 " in message(path)


def test_bytes_that_are_not_utf8_are_named_with_their_line(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_bytes(b'{"prompt": "a", "answer": 1}\n{"prompt": "\xff", "answer": 1}\n')
    assert f"{path}, line 2 " in message(str(path))


def test_half_a_character_is_named_with_its_row(tmp_path):
    assert "row 0, column 'prompt'" in message(lines(tmp_path, '{"prompt": "\\ud800", "answer": "1"}'))


def test_a_damaged_json_array_names_its_line(tmp_path):
    path = tmp_path / "set.json"
    path.write_text('[\n{"prompt": "a", "answer": 1},\n{"prompt": "b" "answer": 1}\n]\n')
    assert f"{path}, line 3 " in message(str(path))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("prompt,answer\na,1\nb\n", 3),
        ("prompt,answer\na,1,2\n", 2),
        ('prompt,answer\na,1\n"b" c,1\n', 3),
        ("prompt,prompt\na,1\n", 1),
    ],
)
def test_a_damaged_csv_names_its_line(tmp_path, content, line):
    path = tmp_path / "set.csv"
    path.write_text(content)
    assert f"{path}, line {line} " in message(str(path))


def test_a_damaged_parquet_file_is_one_sentence(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "set.parquet"
    path.write_bytes(b"PAR1 and then nothing of the kind PAR1")
    assert "not a valid Parquet file" in message(str(path))


def test_missing_unknown_and_empty_files_are_errors(tmp_path):
    assert "there is no file" in message(str(tmp_path / "none.jsonl"))
    assert ".jsonl, .json, .csv, .parquet" in message(str(tmp_path / "set.txt"))
    assert "holds no rows" in message(lines(tmp_path))


@pytest.mark.parametrize(
    ("prompt", "complaint"),
    [
        ([{"role": "user"}], "chat turns"),
        ([{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}], "assistant's turn"),
        ({"text": "a"}, "holds a dict"),
    ],
)
def test_prompts_that_are_neither_text_nor_chat_are_errors(tmp_path, prompt, complaint):
    text = message(lines(tmp_path, {"prompt": prompt, "answer": "2"}))
    assert complaint in text
    assert "row 0" in text


def test_an_evaluation_file_is_held_out_whole(tmp_path):
    train = write(tmp_path, "jsonl")
    apart = tmp_path / "test.csv"
    apart.write_text("question,gold\nwhat is 1 + 1,2\n3-1?,2\n")
    found = load(File(path=train, eval_path=str(apart), prompt="question", answer="gold"), 0)
    assert {p.id for p in found.held_out} == {"test/0", "test/1"}
    assert {p.id for p in found.train} == {"set/1", "set/2"}
    assert found.counts["data/overlap"] == 1


@pytest.mark.skipif(not GSM8K.is_dir(), reason="needs a copy of GSM8K")
def test_gsm8k_loads_with_its_own_train_and_test_sets():
    data = File(
        path=str(GSM8K / "train.jsonl"),
        eval_path=str(GSM8K / "test.jsonl"),
        prompt="question",
        answer="answer",
        answer_after="####",
    )
    found = load(data, 0)
    assert (found.counts["data/train"], found.counts["data/held_out"]) == (7473, 1319)
    assert all(p.answer.replace(",", "").lstrip("-").isdigit() for p in found.train)
