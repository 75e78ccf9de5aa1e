"""Training and held-out problems share no text, however it is typed and wherever it stands in the file."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from underdog.parts import UserError
from underdog.records import Message, Problem
from underdog.rl.data.split import normalise, split


def problem(text: str, name: str = "", answer: str = "1") -> Problem:
    return Problem(name or text, text, answer)


def texts(problems):
    return {normalise(p) for p in problems}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 1+1?", "  what  IS 1 + 1 "),
        ("Janet’s ducks — how many?", "Janet's ducks - how many"),
        ("It costs $5. Why?", "It costs $5\nwhy"),
        ("ｆｕｌｌ width", "full width"),
        ("soft\u00adhyphen and zero\u200bwidth", "softhyphen and zerowidth"),
        ("Straße", "STRASSE"),
        ("caf\u00e9", "cafe\u0301"),
    ],
)
def test_texts_that_say_the_same_are_the_same(one, other):
    assert normalise(problem(one)) == normalise(problem(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1-2", "1+2"),
        ("1.5", "15"),
        ("1 2", "12"),
        ("3, 4", "34"),
        ("x²", "x2"),
        ("2³", "23"),
        ("f'(x)", "f(x)"),
        ("n!", "n"),
        ("12*7+35=", "12*73+5="),
        ("x<y", "x>y"),
    ],
)
def test_texts_that_mean_another_problem_stay_apart(one, other):
    assert normalise(problem(one)) != normalise(problem(other))


def test_a_chat_is_the_same_as_its_text_whatever_its_system_turn():
    turns = (Message(role="system", content="Think."), Message(role="user", content="What is 1+1?"))
    assert normalise(Problem("a", turns)) == normalise(problem("what is 1+1"))


@settings(deadline=None)
@given(
    words=st.lists(st.text("abXY12+-*=<>()$é.,?", min_size=1, max_size=5), min_size=1, max_size=8),
    gap=st.sampled_from(["  ", "\n", " \t\u00a0", "\u200b "]),
    end=st.sampled_from(["", ".", "?", " .\n"]),
)
def test_case_white_space_and_closing_marks_never_tell_problems_apart(words, gap, end):
    retyped = gap.join(words).swapcase() + end
    assert normalise(problem(" ".join(words))) == normalise(problem(retyped))


WORDS = st.sampled_from(["a", "A ", " a?", "b", "B", "c", "c.", "d", "e", "f", "g", "h", "what is a", "What  is A?"])


@settings(max_examples=200, deadline=None)
@given(words=st.lists(WORDS, min_size=1, max_size=30), n=st.integers(0, 4), seed=st.integers(0, 3), data=st.data())
def test_split_is_a_partition_that_no_order_of_the_file_changes(words, n, seed, data):
    problems = [problem(word) for word in words]
    distinct = texts(problems)
    if n >= len(distinct):
        with pytest.raises(UserError, match="leaves none"):
            split(problems, n, seed)
        return
    found = split(problems, n, seed)
    assert len(found.held_out) == n
    assert not texts(found.train) & texts(found.held_out)
    assert texts(found.train) | texts(found.held_out) == distinct
    assert len(found.train) + len(found.held_out) == len(distinct)
    counts = found.counts
    assert counts["data/loaded"] - counts["data/duplicates"] == counts["data/train"] + counts["data/held_out"]

    shuffled = split(data.draw(st.permutations(problems)), n, seed)
    assert [normalise(p) for p in shuffled.train] == [normalise(p) for p in found.train]
    assert [normalise(p) for p in shuffled.held_out] == [normalise(p) for p in found.held_out]


@settings(deadline=None)
@given(train=st.lists(WORDS, min_size=1, max_size=20), test=st.lists(WORDS, min_size=1, max_size=5))
def test_problems_of_the_evaluation_set_leave_the_training_side(train, test):
    problems, evaluation = [problem(w) for w in train], [problem(w) for w in test]
    expected = texts(problems) - texts(evaluation)
    if not expected:
        with pytest.raises(UserError, match="evaluation set"):
            split(problems, 3, 0, evaluation)
        return
    found = split(problems, 3, 0, evaluation)
    assert sorted(map(normalise, found.held_out)) == sorted(map(normalise, evaluation)), "official sets stay whole"
    assert texts(found.train) == expected
    counts = found.counts
    assert counts["data/loaded"] == len(train) + len(test)
    assert counts["data/overlap"] == len(texts(problems) & texts(evaluation))
    removed = counts["data/duplicates"] + counts["data/overlap"]
    assert counts["data/loaded"] - removed == counts["data/train"] + counts["data/held_out"]


def test_a_fraction_holds_out_that_share_and_none_holds_out_nothing():
    problems = [problem(f"problem {k}") for k in range(200)]
    assert len(split(problems, 0.25).held_out) == 50
    assert split(problems, 0).held_out == ()


def test_another_split_seed_holds_out_other_problems():
    problems = [problem(f"problem {k}") for k in range(200)]
    assert texts(split(problems, 50, 0).held_out) != texts(split(problems, 50, 1).held_out)


def test_duplicates_with_another_answer_are_counted_as_conflicting():
    problems = [problem("a", "1", "1"), problem("A ", "2", "1"), problem("a?", "3", "2"), problem("b", "4", "5")]
    counts = split(problems, 1).counts
    assert (counts["data/duplicates"], counts["data/conflicting"]) == (2, 1)
