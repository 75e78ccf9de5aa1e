"""Multiple choice: which letter a completion settles on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underdog.records import Problem
from underdog.verifiers.letter import Letter


def judged(text: str, gold: str = "C") -> tuple[str, str, str]:
    verdict = Letter().judge(Problem("p", "?", gold), text)
    return verdict.outcome, verdict.reason, verdict.detail


@pytest.mark.parametrize(
    "text",
    [
        "Answer: C",
        "It was A at first.\nAnswer: A\nNo.\nAnswer: C",
        "so\n**Answer: C**",
        "Answer: $C$",
        "Answer: $\\text{C}$",
        "**Answer:** (C)",
        "The final answer is C.",
        "The correct answer is (C) 12 m",
        "hence $\\boxed{C}$",
        "hence \\boxed{\\text{C}}.",
        "Answer: \\boxed{C}",
        "<think>Answer: A</think>\nAnswer: C",
        "Answer: C\n\nThank you!",
        "Option A is wrong, so the answer is C",
    ],
)
def test_right(text: str) -> None:
    assert judged(text) == ("right", "exact", "C")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Answer: B", "different"),
        ("Answer: C\nAnswer: D", "different"),
        ("Answer: A, answer: C", "several"),
        ("Answer: A\\boxed{C}", "several"),
        ("<think>Answer: C", "unfinished_reasoning"),
        ("", "no_answer"),
        ("C", "no_answer"),
        ("Answer: Carbon", "no_answer"),
        ("the answer is a mystery", "no_answer"),
        ("Answer: C'mon", "no_answer"),
        ("A B C D", "no_answer"),
    ],
)
def test_wrong(text: str, reason: str) -> None:
    outcome, why, _ = judged(text)
    assert (outcome, why) == ("wrong", reason)


def test_a_gold_answer_that_is_no_letter_is_about_us() -> None:
    assert judged("Answer: C", "12 m")[:2] == ("could_not_grade", "gold")
    assert judged("Answer: C", "")[:2] == ("could_not_grade", "gold")


@given(gold=st.sampled_from("ABCD"), before=st.text(max_size=200))
def test_the_reference_is_right_whatever_stands_before_the_reasoning_s_end(gold: str, before: str) -> None:
    reference = Letter().reference(Problem("p", "?", gold))
    assert judged(f"{before}</think>\n{reference}", gold) == ("right", "exact", gold)


def test_the_answer_is_told_to_the_watch_over_collapse() -> None:
    problem = Problem("p", "?", "C")
    said = Letter().said(problem, Letter().judge(problem, "Answer: B"))
    assert said is not None
    assert (said.golds, said.answer) == (("C",), "B")
    none = Letter().said(problem, Letter().judge(problem, "nothing"))
    assert none is not None
    assert none.answer is None
