"""The task files: rows of every layout become problems, and no label changes its meaning on the way."""

from __future__ import annotations

import pytest

from underdog.parts import UserError
from underdog.records import Problem
from underdog.verifiers.nlu.nlu import Nlu
from underdog.verifiers.nlu.parsing import read_label, words
from underdog.verifiers.nlu.rows import flat
from underdog.verifiers.nlu.task import task_names, task_of

# What the hub's label ids mean: the names of its ClassLabel features, in their order.
HUB_CLASSES = {
    "cola": ["unacceptable", "acceptable"],
    "sst2": ["negative", "positive"],
    "mrpc": ["not_equivalent", "equivalent"],
    "qqp": ["not_duplicate", "duplicate"],
    "mnli": ["entailment", "neutral", "contradiction"],
    "qnli": ["entailment", "not_entailment"],
    "rte": ["entailment", "not_entailment"],
    "wnli": ["not_entailment", "entailment"],
    "boolq": ["False", "True"],
    "cb": ["entailment", "contradiction", "neutral"],
    "copa": ["choice1", "choice2"],
    "multirc": ["False", "True"],
    "wic": ["False", "True"],
    "wsc": ["False", "True"],
}
MEANING = {
    "acceptable": "Yes",
    "unacceptable": "No",
    "equivalent": "Yes",
    "not_equivalent": "No",
    "duplicate": "Yes",
    "not_duplicate": "No",
    "choice1": "Option one",
    "choice2": "Option two",
}
BY_TASK = {
    "boolq": {"True": "Yes", "False": "No"},
    "wsc": {"True": "Yes", "False": "No"},
    "wic": {"True": "Same", "False": "Different"},
    "multirc": {"True": "True", "False": "False"},
    **{task: {"entailment": "Yes", "not_entailment": "No"} for task in ("rte", "qnli", "wnli")},
    **{task: {name.lower(): name for name in ("Entailment", "Neutral", "Contradiction")} for task in ("mnli", "cb")},
    "sst2": {"positive": "Positive", "negative": "Negative"},
}
FIELDS = {
    "cola": {"sentence": "Him left."},
    "sst2": {"sentence": "a joy"},
    "mrpc": {"sentence1": "A b.", "sentence2": "B a."},
    "qqp": {"question1": "A?", "question2": "B?"},
    "stsb": {"sentence1": "A b.", "sentence2": "B a."},
    "mnli": {"premise": "It rains.", "hypothesis": "It is wet."},
    "qnli": {"question": "Who?", "sentence": "Ann did."},
    "rte": {"sentence1": "It rains.", "sentence2": "It is wet."},
    "wnli": {"sentence1": "Ann met Bea; she ran.", "sentence2": "Bea ran."},
    "boolq": {"passage": "Ice floats.", "question": "does ice float"},
    "cb": {"premise": "I doubt it rains.", "hypothesis": "It rains."},
    "copa": {"premise": "It rained.", "choice1": "It got wet.", "choice2": "It sang.", "question": "effect"},
    "multirc": {
        "paragraph": "P.",
        "question": "Q?",
        "answer": "A.",
        "idx": {"paragraph": 3, "question": 7, "answer": 1},
    },
    "record": {
        "passage": "Rome and Paris.",
        "query": "@placeholder is old.",
        "entities": ["Paris", "Rome"],
        "idx": {"passage": 1, "query": 2},
    },
    "wic": {"word": "bank", "sentence1": "A bank.", "sentence2": "The bank."},
    "wsc": {
        "text": "He saw that he, Tom, fell.",
        "span1_text": "Tom",
        "span1_index": 4,
        "span2_text": "he",
        "span2_index": 3,
    },
}
GOLD = {"stsb": 3.799999952316284, "record": ["Rome"]}


def problem(task: str, label: object, **changes: object) -> Problem | None:
    column = "answers" if task == "record" else "label"
    (row,) = flat({**FIELDS[task], column: label})
    return task_of(task).problem({**row, **changes}, "p")


def made(task: str, label: object, **changes: object) -> Problem:
    found = problem(task, label, **changes)
    assert found is not None
    return found


def test_every_task_is_here():
    assert set(task_names()) == set(FIELDS)
    assert len(task_names()) == 16


@pytest.mark.parametrize("task", sorted(HUB_CLASSES))
def test_label_ids_and_class_names_mean_what_the_hub_says(task: str):
    for number, word in enumerate(HUB_CLASSES[task]):
        name = BY_TASK.get(task, MEANING)[word]
        spellings = [number, str(number), float(number), word, word.lower()]
        if word in ("True", "False"):
            spellings.append(word == "True")
        for spelling in spellings:
            assert made(task, spelling).answer == name


@pytest.mark.parametrize("task", task_names())
def test_a_row_becomes_a_problem_whose_solution_is_right(task: str):
    found = made(task, GOLD.get(task, 0))
    for name, value in FIELDS[task].items():
        if isinstance(value, str) and name != "text":
            assert value in found.prompt
    assert "{" not in found.prompt
    assert found.solution == f"<Judgement>{found.answer}</Judgement>"
    assert Nlu().judge(found, found.solution or "").outcome == "right"
    for name in task_of(task).labels:
        assert f"<Judgement>{name}</Judgement>" in found.prompt


@pytest.mark.parametrize("task", sorted(HUB_CLASSES))
def test_ways_of_saying_a_label_are_words_and_never_ids(task: str):
    phrases = task_of(task).phrases()
    for phrase, name in phrases.items():
        assert any(char.isalpha() for word in phrase for char in word)
        assert read_label("<a>" + " ".join(phrase) + "</a>", "a", phrases).answer == name
    assert all(phrases[words(name)] == name for name in task_of(task).labels)


def test_numbers_and_texts():
    assert made("stsb", 3.799999952316284).answer == "3.8"
    assert made("stsb", "5.000").answer == "5"
    found = made("record", ["Rome", "The Eternal City"])
    assert (found.answer, found.info["answers"]) == ("Rome", ["Rome", "The Eternal City"])
    assert "Entities: Paris; Rome" in found.prompt


@pytest.mark.parametrize(
    ("task", "label"), [("cola", -1), ("mnli", "-"), ("stsb", -1.0), ("rte", None), ("record", [])]
)
def test_rows_without_a_label_make_no_problem(task: str, label: object):
    assert problem(task, label) is None


@pytest.mark.parametrize(
    ("task", "label"), [("cola", 2), ("rte", "neutral"), ("stsb", 5.1), ("stsb", "x"), ("copa", "1st")]
)
def test_an_unknown_label_is_named(task: str, label: object):
    with pytest.raises(UserError, match=r"is no label of"):
        problem(task, label)


def test_a_missing_column_is_named():
    with pytest.raises(UserError, match="lacks 'sentence'.*columns are text, label"):
        task_of("cola").problem({"text": "Him left.", "label": 1}, "p")


def test_a_task_that_is_none():
    with pytest.raises(UserError, match="did you mean 'multirc'"):
        task_of("multi-rcc")


def test_braces_in_a_text_stay():
    assert str(made("cola", 1, sentence="a {label} {sentence} {0}").prompt).endswith(
        "Sentence: a {label} {sentence} {0}"
    )


def test_the_prompt_may_open_the_tag_or_ask_for_no_tag():
    (row,) = flat({**FIELDS["cola"], "label": 1})
    opened = task_of("cola").problem(row, "p", tag="a", opened=True)
    assert opened is not None
    assert str(opened.prompt).endswith("\n\n<a>")
    assert opened.solution == "Yes</a>"
    bare = task_of("cola").problem(row, "p", tag="", opened=True)
    assert bare is not None
    assert str(bare.prompt).endswith("Answer Yes or No.\n\nSentence: Him left.")
    assert bare.solution == "Yes"
    for found in (opened, bare):
        assert Nlu().judge(found, found.solution or "").outcome == "right"


def test_passages_with_questions_become_rows_as_on_the_hub():
    answers = [{"text": "A.", "idx": 1, "label": 1}, {"text": "B.", "idx": 2, "label": 0}, {"text": "C.", "idx": 3}]
    passage = {"text": "P.", "questions": [{"question": "Q?", "idx": 7, "answers": answers}]}
    rows = list(flat({"idx": 3, "passage": passage}))
    assert rows[0] == {**FIELDS["multirc"], "label": 1}
    problems = [task_of("multirc").problem(row, "p") for row in rows]
    assert problems[2] is None
    assert [(p.answer, p.info["question"]) for p in problems[:2] if p] == [("True", "3/7"), ("False", "3/7")]


def test_passages_with_queries_become_rows_as_on_the_hub():
    spans = [{"start": 9, "end": 13}, {"start": 0, "end": 3}, {"start": 0, "end": 3}]
    query = {"query": "@placeholder is old.", "idx": 2, "answers": [{"text": "Rome"}, {"text": "Rome"}]}
    (row,) = flat({"idx": 1, "passage": {"text": "Rome and Paris.", "entities": spans}, "qas": [query]})
    assert row == {**FIELDS["record"], "answers": ["Rome"]}


@pytest.mark.parametrize(
    ("text", "pronoun", "index", "marked"),
    [
        ("He saw that he, Tom, fell.", "he", 3, "He saw that *he*, Tom, fell."),
        ("He saw that he, Tom, fell.", "He", 0, "*He* saw that he, Tom, fell."),
        ("Tom (his hat) fell on his foot", "his", 1, "Tom (*his* hat) fell on his foot"),
        ("they hit theirs, they said", "they", 4, "they hit theirs, *they* said"),
        ("Ann knows theyscold her", "they", 2, "Ann knows *they*scold her"),
    ],
)
def test_the_pronoun_in_question_is_marked(text: str, pronoun: str, index: int, marked: str):
    span = {"span1_text": "Tom", "span1_index": 0, "span2_text": pronoun, "span2_index": index}
    (hub,) = flat({"text": text, **span, "label": 1})
    (original,) = flat({"text": text, "target": span, "label": True})
    assert hub["marked"] == original["marked"] == marked
    first, second = task_of("wsc").problem(hub, "p"), task_of("wsc").problem(original, "p")
    assert first is not None
    assert first == second
