"""Where an answer stands and which number it is."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underdog.verifiers.math.dress import canonical
from underdog.verifiers.math.extraction import MAX_ANSWER, MAX_BOXES, boxes, extract, gold_answer
from underdog.verifiers.math.numbers import MAX_LENGTH, rational


@pytest.mark.parametrize(
    ("completion", "answers"),
    [
        (r"so \boxed{7}.", ("7",)),
        (r"<think>\boxed{8}</think> \boxed{7}", ("7",)),
        (r"reasoning with a pre-filled tag \boxed{8} </think> \boxed{7}", ("7",)),
        (r"\boxed{7} and again \boxed{ 7 }", ("7",)),
        (r"\boxed{8}, no: \boxed{7}", ("7", "8")),
        (r"\boxed{\frac{1}{2}}", (r"\frac{1}{2}",)),
        (r"\boxed{\boxed{7}}", ("7",)),
        (r"\fbox{7}", ("7",)),
        (r"\boxed {7}", ("7",)),
        (r"\boxed{\{1,2\}}", (r"\{1,2\}",)),
        (r"\boxed{7} then \boxed{8 is never closed", ("7",)),
        (r"\boxed{ open \boxed{7}", ("7",)),
        ("$\\boxed{$7.$}$", ("7",)),
        ("<answer>7</answer>", ("7",)),
        ("<answer>8</answer> <answer> $7$ </answer>", ("7",)),
        (r"<answer>It is \boxed{7}</answer>", ("7",)),
        (r"\boxed{7} <answer>the box holds it</answer>", ("7",)),
    ],
)
def test_the_answer_is_found(completion: str, answers: tuple[str, ...]):
    assert extract(completion).answers == answers


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ("the answer is 7", "no_answer"),
        ("", "no_answer"),
        (r"\boxed{", "no_answer"),
        (r"\boxed{7", "no_answer"),
        (r"\boxed{}", "no_answer"),
        ("<answer>7", "no_answer"),
        (r"<think>\boxed{7}", "unfinished_reasoning"),
        (r"<think>a</think>\boxed{7}<think>", "unfinished_reasoning"),
        (r"<think>\boxed{7}</think> done", "no_answer"),
        (r"\boxed{" + "7" * (MAX_ANSWER + 1) + "}", "too_long"),
        ("".join(rf"\boxed{{{i}}}" for i in range(MAX_BOXES + 1)), "contradictory"),
    ],
)
def test_no_answer_says_why(completion: str, reason: str):
    assert extract(completion).answers == ()
    assert extract(completion).reason == reason


@pytest.mark.parametrize(
    "hostile",
    [r"\boxed{" * 200_000, "}" * 1_000_000, "{" * 1_000_000, "\\" * 1_000_001, r"\boxed{{" * 100_000 + "}" * 200_000],
)
def test_a_megabyte_of_braces_is_read_in_one_pass(hostile: str):
    assert extract(hostile + r" \boxed{7}").answers[:1] in ((), ("7",))


PIECES = [*"ab7{}\\$ <>/", r"\boxed{", "</think>", "<answer>", "</answer>"]


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_boxes_are_balanced_and_nothing_raises(text: str):
    extract(text)
    for box in boxes(text):
        depth = 0
        for token in box.replace("\\\\", "").replace(r"\{", "").replace(r"\}", ""):
            depth += (token == "{") - (token == "}")
            assert depth >= 0
        assert depth == 0


def test_gold_answers_of_the_usual_data_sets():
    assert gold_answer("She makes 9 * 2 = $<<9*2=18>>18.\n#### 18") == "18"
    assert gold_answer("#### 1,080") == "1,080"
    assert gold_answer(r"We get $\boxed{\frac{3}{4}}$.") == r"\frac{3}{4}"
    assert gold_answer(r"$\left( 3, \frac{\pi}{2} \right)$") == r"\left( 3, \frac{\pi}{2} \right)"
    assert gold_answer("  ") == ""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("72", Fraction(72)),
        ("+72", Fraction(72)),
        ("-72", Fraction(-72)),
        ("\u22125", Fraction(-5)),
        ("007", Fraction(7)),
        ("72.", Fraction(72)),
        ("72.00", Fraction(72)),
        (".5", Fraction(1, 2)),
        ("1,234,567.5", Fraction(2469135, 2)),
        ("10{,}000", Fraction(10000)),
        (r"10\!,\!000", Fraction(10000)),
        ("6/8", Fraction(3, 4)),
        ("-1/2", Fraction(-1, 2)),
        (r"\frac{1}{2}", Fraction(1, 2)),
        (r"-\dfrac{1}{2}", Fraction(-1, 2)),
        (r"\frac{-1}{2}", Fraction(-1, 2)),
        (r"\frac{-1}{-2}", Fraction(1, 2)),
        (r"\frac12", Fraction(1, 2)),
        (r"\frac{1,000}{3}", Fraction(1000, 3)),
        ("0.1", Fraction(1, 10)),
    ],
)
def test_plain_numbers_have_their_exact_value(text: str, value: Fraction):
    assert rational(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "x", "1,2", "1,00", "1,0000", "12,34", "1 2", "1/0", r"\frac{1}{0}", "1/2/3", "--1", "1e5", "10%", "1_000",
     "١٢", "７", "½", "0x10", "1/", "/2", ".", "-", "1.2.3", r"\frac1", "nan", "inf", "9" * (MAX_LENGTH + 1)],
)  # fmt: skip
def test_what_is_no_plain_number_has_no_value(text: str):
    assert rational(text) is None


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**6))
def test_every_spelling_of_a_fraction_is_that_fraction(above: int, below: int):
    value, sign = Fraction(above, below), "-" if above < 0 else ""
    assert rational(f"{above}/{below}") == value
    assert rational(rf"\frac{{{above}}}{{{below}}}") == value
    assert rational(rf"{sign}\dfrac{{{abs(above)}}}{{{below}}}") == value
    assert rational(f"{above:,}") == above
    assert rational(f" {above}.000 ") == above


def test_spelling_differs_only_in_dress():
    assert canonical(r"\left( 3, \dfrac{\pi}{2} \right)") == canonical(r"(3,\frac{\pi}{2})")
    assert canonical("1 2") != canonical("12")
    assert canonical("x y") != canonical("xy")
    assert canonical(r"\leftarrow") == r"\leftarrow"
