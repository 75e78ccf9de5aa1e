"""The verifier `nlu`: a hundred awkward outputs, tags, gold answers, and text that no model should be able to use."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from underdog.parts import RunError, UserError
from underdog.records import Group, Problem, Sample, Verdict, Version
from underdog.rewards.nlu_code import NluCode
from underdog.rewards.nlu_paper import NluPaper
from underdog.verifiers.nlu.nlu import Nlu
from underdog.verifiers.nlu.parsing import MAX_ANSWER, SCALE
from underdog.verifiers.nlu.task import task_names, task_of
from underdog.verifiers.validate import validate

TAGGED = "<Judgement>{}</Judgement>"

# task, text between the tags, the answer that it gives (None: invalid)
BETWEEN_THE_TAGS = [
    ("cola", "Yes", "Yes"),
    ("cola", "yes", "Yes"),
    ("cola", "YES", "Yes"),
    ("cola", "  Yes \n", "Yes"),
    ("cola", "Yes.", "Yes"),
    ("cola", '"Yes"', "Yes"),
    ("cola", "“Yes”", "Yes"),
    ("cola", "**Yes**", "Yes"),
    ("cola", "_Yes_", "Yes"),
    ("cola", "✅ Yes!", "Yes"),
    ("cola", "Ｙｅｓ", "Yes"),
    ("cola", "Ye\u200bs", "Yes"),
    ("cola", "Yes, yes", "Yes"),
    ("cola", "The answer is Yes", "Yes"),
    ("cola", "Yes, it is grammatical.", "Yes"),
    ("cola", "acceptable", "Yes"),
    ("cola", "unacceptable", "No"),
    ("cola", "not acceptable", "No"),
    ("cola", "ungrammatical", "No"),
    ("cola", "No, it is not.", "No"),
    ("cola", "No, it isn’t.", "No"),
    ("cola", "", None),
    ("cola", "...", None),
    ("cola", "Not", None),
    ("cola", "None", None),
    ("cola", "Note", None),
    ("cola", "Nope", None),
    ("cola", "Know", None),
    ("cola", "Yesterday", None),
    ("cola", "Eyes", None),
    ("cola", "Y", None),
    ("cola", "1", None),
    ("cola", "0", None),
    ("cola", "Yes/No", None),
    ("cola", "Yes or No", None),
    ("cola", "Yes, no", None),
    ("cola", "Yes-No", None),
    ("cola", "Not yes", None),
    ("cola", "Not a yes", None),
    ("cola", "It isn't acceptable", None),
    ("cola", "I cannot say yes", None),
    ("cola", "Yes, it is not", None),
    ("cola", "unacceptable, yes", None),
    ("cola", "maybe", None),
    ("cola", "да", None),
    ("cola", "Уes", None),  # the first letter is Cyrillic
    ("cola", "Yes " * 60, None),  # longer than an answer may be
    ("cola", "Yes" + " " * MAX_ANSWER + "No", None),
    ("sst2", "Positive", "Positive"),
    ("sst2", "negative", "Negative"),
    ("sst2", "Positively", None),
    ("sst2", "nonpositive", None),
    ("sst2", "non-negative", None),
    ("sst2", "not positive", None),
    ("sst2", "positive and negative", None),
    ("sst2", "neither positive nor negative", None),
    ("sst2", "Yes", None),
    ("rte", "entailment", "Yes"),
    ("rte", "not_entailment", "No"),
    ("rte", "not entailment", "No"),
    ("rte", "Not Entailment.", "No"),
    ("rte", "False", "No"),
    ("rte", "0", None),
    ("mnli", "Entailment", "Entailment"),
    ("mnli", "neither", "Neutral"),
    ("mnli", "contradicts", "Contradiction"),
    ("mnli", "not contradiction", None),
    ("mnli", "neither entailment nor contradiction", None),
    ("mnli", "entailment or neutral", None),
    ("mnli", "2", None),
    ("cb", "2", None),
    ("mrpc", "equivalent", "Yes"),
    ("mrpc", "not_equivalent", "No"),
    ("copa", "Option one", "Option one"),
    ("copa", "option 2.", "Option two"),
    ("copa", "choice2", "Option two"),
    ("copa", "The second one", "Option two"),
    ("copa", "Option one or option two", None),
    ("copa", "option", None),
    ("copa", "one", None),
    ("copa", "0", None),  # id 0 is option one, but a reader would say that 1 is
    ("copa", "1", None),
    ("copa", "2", None),
    ("wic", "Same", "Same"),
    ("wic", "Not the same", "Different"),
    ("wic", "same or different", None),
    ("wic", "indifferent", None),
    ("multirc", "True", "True"),
    ("multirc", "untrue", None),
    ("multirc", "True or False", None),
    ("boolq", "true", "Yes"),
    ("stsb", "3.5", "3.5"),
    ("stsb", "4", "4"),
    ("stsb", "4.", "4"),
    ("stsb", ".5", "0.5"),
    ("stsb", "The similarity is 3.80!", "3.8"),
    ("stsb", "３.５", "3.5"),
    ("stsb", "7", "5"),
    ("stsb", "-1", "0"),
    ("stsb", "\N{MINUS SIGN}2", "0"),
    ("stsb", "9" * 150, "5"),
    ("stsb", "2 and 2", "2"),
    ("stsb", "3.5/5", None),
    ("stsb", "3-4", None),
    ("stsb", "3,5", None),
    ("stsb", "3.5.1", None),
    ("stsb", "1e3", None),
    ("stsb", "80%", None),
    ("stsb", "three", None),
    ("stsb", "nan", None),
    ("stsb", "inf", None),
    ("stsb", "not 3", None),
    ("stsb", "", None),
    ("record", "Donald Trump", "Donald Trump"),
    ("record", " the\nU.S. ", "the U.S."),
    ("record", "The ...", None),
    ("record", "", None),
]

# a whole completion for CoLA, and the answer that it gives
COMPLETIONS = [
    ("Yes</Judgement>", "Yes"),
    ("Yes</Judgement> Analysis: it has no verb.", "Yes"),
    ("<judgement>no</JUDGEMENT>", "No"),
    ("< Judgement >No</ Judgement >", "No"),
    ("<Judgement><Judgement>No</Judgement>", "No"),
    ("<think>Yes or no? <Judgement>No</Judgement></think>\n<Judgement>Yes</Judgement>", "Yes"),
    ("<Judgement>Yes</Judgement> again <Judgement>yes.</Judgement>", "Yes"),
    ("<Judgement>Yes</Judgement></Judgement>", "Yes"),
    ("<Judgement>Yes</Judgement> <Judgement>No", "Yes"),
    ("", None),
    ("Yes", None),
    ("<Judgement>Yes", None),
    ("<Judgement>Yes</Judgement", None),
    ("<Answer>Yes</Answer>", None),
    ("<think><Judgement>Yes</Judgement>", None),
    ("<Judgement>Yes</Judgement><think>hm", None),
    ("<Judgement>Yes</Judgement><Judgement>No</Judgement>", None),
    ("<Judgement>Yes</Judgement><Judgement></Judgement>", None),
    ("Yes</Judgement>\n\nSentence: Him left.\n\n<Judgement>No</Judgement>", None),
    ("&lt;Judgement&gt;Yes&lt;/Judgement&gt;", None),
]


def judge(task: str, completion: str, gold: str, tag: str | None = None) -> Verdict:
    return Nlu(task=task, tag=tag).judge(Problem("p", "?", gold), completion)


def answers_of(task: str) -> list[str]:
    return (
        list(task_of(task).labels)
        or {"number": ["0", "2.5", "5"], "text": ["Donald Trump", "U.S"]}[task_of(task).answer]
    )


def both_rewards(task: str, gold: str, verdict: Verdict) -> tuple[float, float]:
    """By the paper's scheme and by its code's."""
    ids = np.zeros(1, np.int64)
    sample = Sample("p", 0, Version(0, ""), 0, ids, ids, None, "", "eos")
    group = Group(Problem("p", "?", gold, info={"task": task}), (sample,), (verdict,))
    return NluPaper().score(group).item(), NluCode().score(group).item()


def expected_rewards(task: str, gold: str, answer: str | None) -> tuple[float, float]:
    """RL4GLUE: right 1 and 1, wrong 0 and -1, invalid -1 and -3; of numbers 2.5 - |error|, invalid -2.5, in both."""
    if task == "stsb":
        earned = -2.5 if answer is None else 2.5 - abs(float(answer) - float(gold))
        return earned, earned
    if answer is None:
        return -1.0, -3.0
    right = answer == gold or (task, gold, answer) == ("record", "U.S", "the U.S.")  # articles and marks aside
    return (1.0, 1.0) if right else (0.0, -1.0)


def test_there_are_a_hundred_awkward_outputs():
    assert len(set(BETWEEN_THE_TAGS)) >= 100


@pytest.mark.parametrize(("task", "text", "answer"), BETWEEN_THE_TAGS)
def test_between_the_tags(task: str, text: str, answer: str | None):
    for gold in answers_of(task):
        verdict = judge(task, TAGGED.format(text), gold)
        if answer is None:
            assert (verdict.outcome, verdict.reason) == ("wrong", "invalid")
            assert verdict.detail != gold
        else:
            assert verdict.detail == answer
            assert verdict.reason != "invalid"
        assert both_rewards(task, gold, verdict) == pytest.approx(expected_rewards(task, gold, answer))


@pytest.mark.parametrize(("completion", "answer"), COMPLETIONS)
def test_whole_completions(completion: str, answer: str | None):
    for gold in ("Yes", "No"):
        verdict = judge("cola", completion, gold)
        if answer is None:
            assert (verdict.outcome, verdict.reason) == ("wrong", "invalid")
        else:
            expected = ("right", "exact", answer) if answer == gold else ("wrong", "different", answer)
            assert (verdict.outcome, verdict.reason, verdict.detail) == expected


def test_why_an_answer_is_invalid():
    texts = {
        "Yes": "no_tag",
        TAGGED.format("perhaps"): "no_label",
        TAGGED.format("Yes or no"): "several",
        TAGGED.format("not yes"): "negated",
        TAGGED.format("yes " * 99): "too_long",
    }
    assert {text: judge("cola", text, "Yes").detail for text in texts} == texts
    assert judge("stsb", TAGGED.format("high"), "1").detail == "no_number"
    assert judge("record", TAGGED.format("a"), "Trump").detail == "no_text"


def test_a_tag_of_ones_own_or_none():
    assert judge("cola", "<answer>Yes</answer>", "Yes", tag="answer").outcome == "right"
    assert judge("cola", TAGGED.format("Yes"), "Yes", tag="answer").reason == "invalid"
    assert judge("cola", " yes", "Yes", tag="").outcome == "right"
    assert judge("cola", "<think>no</think> yes", "Yes", tag="").outcome == "right"
    assert judge("cola", "a.*b", "Yes", tag=".*").reason == "invalid"


def test_the_problem_names_its_task_and_tag():
    verifier = Nlu()
    info = {"task": "sst2", "tag": "a"}
    assert verifier.judge(Problem("p", "?", "Positive", info=info), "<a>positive</a>").outcome == "right"
    with pytest.raises(UserError, match="names no task"):
        verifier.judge(Problem("p", "?", "Positive"), TAGGED.format("positive"))


def test_gold_answers_validate_unless_prompts_ask_for_another_tag():
    bare = [Problem("p", "?", "Yes"), Problem("q", "?", "unacceptable")]
    assert validate(Nlu(task="cola"), bare) == validate(Nlu(task="cola", tag=""), bare) == 1
    asked = [Problem("p", "?", "Yes", solution="<a>Yes</a>", info={"tag": "a"})]
    assert validate(Nlu(task="cola"), asked) == 1
    with pytest.raises(RunError, match="invalid"):
        validate(Nlu(task="cola", tag="b"), asked)
    with pytest.raises(RunError, match="could_not_grade"):
        validate(Nlu(task="cola"), [Problem("p", "?", "1")])


def test_an_unknown_task_is_refused_with_the_nearest_name():
    with pytest.raises(ValidationError, match="'cola'"):
        Nlu(task="colla")
    assert Nlu(task="SST-2").task == "sst2"


@pytest.mark.parametrize(
    ("task", "gold"),
    [("cola", "1"), ("cola", ""), ("cola", "yes or no"), ("stsb", "nan"), ("stsb", "6"), ("record", " ")],
)
def test_a_gold_answer_that_is_none_is_our_fault(task: str, gold: str):
    verdict = judge(task, TAGGED.format("Yes"), gold)
    assert (verdict.outcome, verdict.reason) == ("could_not_grade", "gold")


@pytest.mark.parametrize(
    ("gold", "said", "outcome"),
    [
        ("3.8", "3.8", "right"),
        ("3.8", "4.3", "right"),
        ("3.8", "3.3", "right"),
        ("0.6", "1.1", "right"),  # 1.1 - 0.6 is a little more than 0.5
        ("3.8", "4.31", "wrong"),
        ("5", "900", "right"),
        ("0.4", "-3", "right"),
    ],
)
def test_a_number_is_right_within_half_a_point_after_clipping(gold: str, said: str, outcome: str):
    assert judge("stsb", TAGGED.format(said), gold).outcome == outcome


@pytest.mark.parametrize(
    ("said", "outcome"),
    [("donald trump", "right"), ("The Trump!", "right"), ("Trump Tower", "wrong"), ("Donald", "wrong")],
)
def test_any_of_several_gold_texts_will_do(said: str, outcome: str):
    problem = Problem("p", "?", "Donald Trump", info={"answers": ["Donald Trump", "Trump"]})
    assert Nlu(task="record").judge(problem, TAGGED.format(said)).outcome == outcome


PIECES = st.sampled_from(
    [
        "<Judgement>",
        "</Judgement>",
        "<think>",
        "</think>",
        "Yes",
        "no",
        "not ",
        "3",
        ".",
        "5",
        " ",
        "\n",
        "\ud800",
        "\0",
    ]
)
TEXTS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=14).map("".join))


@given(st.sampled_from(task_names()), TEXTS, st.booleans())
def test_whatever_a_model_writes_gets_one_answer_or_is_invalid(task: str, text: str, tagged: bool):
    gold = answers_of(task)[0]
    verdict = judge(task, TAGGED.format(text) if tagged else text, gold)
    assert verdict.outcome in ("right", "wrong")
    verdict.detail.encode()
    kind = task_of(task).answer
    if verdict.reason == "invalid":
        assert verdict.outcome == "wrong"
    elif kind == "label":
        assert verdict.detail in task_of(task).labels
    elif kind == "number":
        assert SCALE[0] <= float(verdict.detail) <= SCALE[1]


@pytest.mark.parametrize(
    "piece", ["<Judgement>Yes</Judgement>", "<Judgement>", "<", "< ", "</Judgement>", "<think>", "9"]
)
def test_a_megabyte_is_answered(piece: str):
    text = piece * (1_000_000 // len(piece))
    for task, gold in (("cola", "Yes"), ("stsb", "1"), ("record", "Yes")):
        assert judge(task, text, gold).outcome in ("right", "wrong")
        assert judge(task, TAGGED.format(text), gold).outcome in ("right", "wrong")
