"""Data sets of the hub, through the real library: a local folder laid out like one, and no network."""

from __future__ import annotations

import json

import pytest

from underdog.parts import UserError
from underdog.rl.data.hub import Hub
from underdog.rl.data.multiple_choice import MultipleChoice
from underdog.rl.data.split import load

datasets = pytest.importorskip("datasets")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    root = tmp_path / "toy"
    root.mkdir()
    for split, numbers in {"train": range(6), "test": range(4, 8)}.items():
        rows = [{"question": f"{n}+1?", "answer": f"so\n#### {n + 1}", "level": n} for n in numbers]
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(root)


def message(**options) -> str:
    with pytest.raises(UserError) as caught:
        Hub(**options).load(0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rows_become_problems(folder):
    problems = Hub(id=folder, prompt="question", answer_after="####", solution="answer").load(0)
    assert [(p.id, p.prompt, p.answer) for p in problems] == [(f"train/{n}", f"{n}+1?", str(n + 1)) for n in range(6)]
    assert problems[2].solution == "so\n#### 3"
    assert problems[2].info == {"level": 2}


def test_limit_and_slices_shorten_the_training_split(folder):
    assert len(Hub(id=folder, prompt="question", limit=2).load(0)) == 2
    assert [p.prompt for p in Hub(id=folder, prompt="question", split="train[2:4]").load(0)] == ["2+1?", "3+1?"]


def test_the_evaluation_split_is_held_out_and_cleaned_from_training(folder):
    found = load(Hub(id=folder, prompt="question", answer_after="####", eval_split="test"), 0)
    assert {p.prompt for p in found.held_out} == {f"{n}+1?" for n in range(4, 8)}
    assert {p.prompt for p in found.train} == {f"{n}+1?" for n in range(4)}
    assert found.counts["data/overlap"] == 2


def test_only_the_columns_asked_for_are_kept(folder):
    given = {"id": folder, "prompt": "question", "answer_after": "####"}
    assert {tuple(p.info) for p in Hub(**given, keep=[]).load(0)} == {()}
    assert Hub(**given, keep=["level"]).load(0)[2].info == {"level": 2}
    assert Hub(**given, keep=[], source="level").load(0)[2].info == {"source": "2"}
    assert [p.answer for p in Hub(**given, keep=[]).load(0)] == [p.answer for p in Hub(**given).load(0)]


@pytest.fixture
def quiz(folder, tmp_path):
    """Questions whose right answer says so."""
    rows = [
        {"Question": f"Which one, {n}?", "Right": f"right {n}", **{f"Wrong {i}": f"wrong {n} {i}" for i in (1, 2, 3)}}
        for n in range(200)
    ]
    root = tmp_path / "quiz"
    root.mkdir()
    (root / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"id": str(root), "prompt": "Question", "answer": "Right", "wrong": ["Wrong 1", "Wrong 2", "Wrong 3"]}


def test_the_right_answer_stands_at_a_place_drawn_by_seed(quiz):
    problems = MultipleChoice(**quiz).load(0)
    for number, problem in enumerate(problems):
        question, empty, *lines = str(problem.prompt).split("\n")
        assert (question, empty) == (f"Which one, {number}?", "")
        assert [line[:3] for line in lines] == ["A) ", "B) ", "C) ", "D) "]
        assert sorted(line[3:] for line in lines) == [f"right {number}", *(f"wrong {number} {i}" for i in (1, 2, 3))]
        assert [line[0] for line in lines if "right" in line] == [problem.answer]
    letters = [problem.answer for problem in problems]
    assert all(30 <= letters.count(letter) <= 70 for letter in "ABCD")  # 200 draws: 50 each, deviation 6
    assert [p.prompt for p in MultipleChoice(**quiz, keep=[]).load(7)] == [p.prompt for p in problems]
    others = [p.answer for p in MultipleChoice(**quiz, shuffle_seed=1).load(0)]
    assert 25 <= sum(a == b for a, b in zip(letters, others, strict=True)) <= 75


def test_a_missing_wrong_answer_names_the_columns_found(quiz):
    with pytest.raises(UserError, match=r"no column Wrong 4 \(data.wrong\); its columns are Question, Right, Wrong 1"):
        MultipleChoice(**{**quiz, "wrong": ["Wrong 1", "Wrong 4"]}).load(0)


def test_a_missing_column_names_those_found(folder):
    text = message(id=folder, prompt="problem")
    assert "no column 'problem'" in text
    assert "question, answer, level" in text


@pytest.mark.parametrize("options", [{"split": "dev"}, {"config": "main"}, {"id": "openai/gsm8k"}, {"id": "./nowhere"}])
def test_what_cannot_be_loaded_points_to_a_local_copy(folder, options):
    text = message(**{"id": folder, "prompt": "question"} | options)
    assert "could not be loaded" in text
    assert "data.name=file" in text
