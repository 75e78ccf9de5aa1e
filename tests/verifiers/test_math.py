"""The mathematics verifier: exact first, then math-verify, never fooled and never waited for."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underdog.parts import find
from underdog.records import Problem, Verdict
from underdog.verifiers import pool as pool_module
from underdog.verifiers.math.math import Math

DATA = Path(__file__).resolve().parents[2] / "../shared/data"


@pytest.fixture(scope="module")
def math():
    verifier = Math(workers=2)
    yield verifier
    verifier.close()


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr(pool_module.subprocess, "Popen", refuse)


def problem(gold: str) -> Problem:
    return Problem("p", "?", gold)


def boxed(answer: str) -> str:
    return rf"So the answer is $\boxed{{{answer}}}$."


def judged(verifier: Math, pairs: list[tuple[str, str]]) -> list[Verdict]:
    return verifier.judge_all([(problem(gold), boxed(answer)) for gold, answer in pairs])


def rows(path: str) -> list[dict]:
    file = DATA / path
    if not file.exists():
        pytest.skip(f"{path} is not here")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_name_in_a_recipe():
    assert find("verifier", "math") is Math
    assert Math() == Math()
    assert Math(seconds=2.0) != Math()


@pytest.mark.parametrize(
    ("gold", "completion", "outcome", "reason"),
    [
        ("72", r"\boxed{72}", "right", "exact"),
        ("9 * 2 = <<9*2=18>>18\n#### 1,018", r"\boxed{1018.0}", "right", "exact"),
        ("0.5", r"\boxed{\frac{1}{2}}", "right", "exact"),
        (r"\text{Evelyn}", r"\boxed{\text{Evelyn}}", "right", "exact"),
        ("72", r"\boxed{73}", "wrong", "different"),
        ("1/3", r"\boxed{0.333333}", "wrong", "different"),
        ("72", "72", "wrong", "no_answer"),
        ("72", r"<think>\boxed{72}", "wrong", "unfinished_reasoning"),
        ("72", r"\boxed{73} or \boxed{72}", "wrong", "contradictory"),
        ("72", r"\boxed{72} or \boxed{73}", "wrong", "different"),
        ("72", r"\boxed{72} that is \boxed{72.0}", "right", "exact"),
        ("7" * 400, boxed("7" * 400), "wrong", "too_long"),
        ("", r"\boxed{72}", "could_not_grade", "gold"),
        ("x" * 5000, r"\boxed{72}", "could_not_grade", "gold"),
    ],
)
def test_decided_without_a_worker(no_process: None, gold: str, completion: str, outcome: str, reason: str):
    verdict = Math().judge(problem(gold), completion)
    assert (verdict.outcome, verdict.reason) == (outcome, reason)


def test_numbers_only_never_starts_a_worker(no_process: None):
    verifier = Math(numbers_only=True)
    reasons = [v.reason for v in judged(verifier, [("4", r"\sqrt{16}"), ("4", "4"), ("4", "5"), ("x", "4")])]
    assert reasons == ["not_a_number", "exact", "different", "gold"]


@given(st.fractions(), st.fractions())
def test_numbers_are_right_if_and_only_if_they_are_equal(gold: Fraction, answer: Fraction):
    verifier = Math(numbers_only=True)
    text = rf"\frac{{{answer.numerator}}}{{{answer.denominator}}}"
    expected = "right" if gold == answer else "wrong"
    assert verifier.judge(problem(str(gold)), boxed(text)).outcome == expected
    assert verifier.judge(problem(str(gold)), boxed(str(gold))).outcome == "right"


EQUAL = [
    ("x^2+1", "1+x^2"),
    ("4", r"\sqrt{16}"),
    ("7", "x=7"),
    ("x=7", "7"),
    ("7", r"7\text{ cm}"),
    (r"7\text{ cm}", "7"),
    ("10", r"\$10"),
    (r"\{1,2\}", r"\{2,1\}"),
    (r"\frac{\pi}{2}", r"\pi/2"),
    (r"11\sqrt2", r"11\sqrt{2}"),
    (r"x \in [0,1)", "[0,1)"),
    ("(3, \\frac{\\pi}{2})", r"\left(3,\dfrac{\pi}{2}\right)"),
    (r"\frac{1}{\sqrt 2}", r"\frac{\sqrt 2}{2}"),
    (r"0.1\pi", r"\frac{\pi}{10}"),
    ("2^{99}", "633825300114114700748351602688"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix} 1 \\ \frac{4}{2} \end{pmatrix}"),
]

# What math-verify 0.9 accepts, by research and by trying; none of it is equal.
FOOLING = [
    ("3*x-1*y+13=0", "3x + 4y + 14=0"),
    ("1/2^99", "1/2^98"),
    (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"),
    ("1/2004!", "1/2006!"),
    ("(1, 1/2^{99})", "(1, 1/2^{98})"),
    (r"\begin{pmatrix}1/2^{99}\end{pmatrix}", r"\begin{pmatrix}1/2^{98}\end{pmatrix}"),
    ("10^{40}", "10^{40}+1"),
    ("4", r"4\sqrt(2)"),
    ("101_2", "101"),
    ("101", "101_2"),
    ("101_2", "101_3"),
    ("5 cm", "5 m"),
    (r"5\text{ cm}", r"5\text{ m}"),
    (r"3\text{ cm}^2", r"3\text{ cm}^3"),
    (r"10\%", "10"),
    ("10", r"10\%"),
    (r"\pi", "3.141593"),
    ("7", "1 2 3 4 5 6 7"),
    ("5", "5=5"),
    ("5", "2x=5"),
    ("5", "7=5"),
    ("7", r"7\$ or \$8"),
    ("7", "$7$ or $8$"),
    ("7", r"\frac{1}{0}"),
    ("7", r"\infty"),
    (r"\sqrt 2", r"-\infty"),
    ("(1,2)", "(2,1)"),
    ("[0,1)", "[0,1]"),
    ("(0,1)", r"\{0,1\}"),
]


def test_equal_mathematics_is_right(math: Math):
    wrong = [pair for pair, v in zip(EQUAL, judged(math, EQUAL), strict=True) if v.outcome != "right"]
    assert not wrong


def test_what_fools_math_verify_is_refused(math: Math):
    accepted = [pair for pair, v in zip(FOOLING, judged(math, FOOLING), strict=True) if v.outcome == "right"]
    assert not accepted


def test_a_gold_answer_that_does_not_parse_is_our_fault(math: Math):
    first, second = judged(math, [(r"1-\frac{", "5"), ("x+1", r"1-\frac")])
    assert (first.outcome, first.reason) == ("could_not_grade", "gold")
    assert (second.outcome, second.reason) == ("wrong", "unreadable")


def test_every_box_must_be_right(math: Math):
    verdicts = math.judge_all(
        [
            (problem("x^2+1"), r"\boxed{1+x^2}, in order \boxed{x^2+1}"),
            (problem("x^2+1"), r"\boxed{x^2-1}, no, \boxed{1+x^2}"),
            (problem("x^2+1"), r"\boxed{1+x^2}, no, \boxed{x^2-1}"),
        ]
    )
    assert [(v.outcome, v.reason) for v in verdicts] == [
        ("right", "exact"),
        ("wrong", "contradictory"),
        ("wrong", "different"),
    ]


def test_order_is_kept_and_equal_pairs_are_compared_once(math: Math, monkeypatch: pytest.MonkeyPatch):
    asked: list[int] = []
    compare = math._pool.map
    monkeypatch.setattr(math._pool, "map", lambda requests: asked.append(len(requests)) or compare(requests))
    golds = [r"\tan^2(x)+1", "7", r"\sec^2(x)", r"\int_0^1 x dx"] * 20
    verdicts = math.judge_all([(problem(gold), boxed(r"\sec^2(x)")) for gold in golds])
    assert [v.outcome for v in verdicts] == ["right", "wrong", "right", "wrong"] * 20
    assert asked == [2]


HOSTILE = [
    "9^{9^{9^{9}}}",
    "2^{2^{40}}",
    "10^{-10^{10}}",
    "123456789!",
    r"\binom{10^9}{500000000}",
    "(x+1)^{99999}",
    r"\prod_{i=1}^{10^7} i",
    r"\int e^{-x^2}\sin(x^3)\cos(x) dx",
    r"\lim_{x\to 0} \frac{\sin(\sin(\sin x))-x}{x^{99}}",
    "(" * 140 + "7" + ")" * 140,
    r"\sqrt{" * 40 + "2" + "}" * 40,
    "x_" * 100,
    "1," * 140 + "1",
    "9" * 299,
    "\ud800\udfff",
    "\x00\x01\x1b[2J",
    "%",
    "^",
    "_",
    "\\",
    r"\frac",
    r"\input{/etc/passwd}",
    "__import__('os').abort()",
    r"\begin{pmatrix}" + r"a&b&c&d\\" * 20 + r"\end{pmatrix}",
]


@pytest.mark.slow
def test_hostile_answers_are_wrong_and_the_pool_lives():
    verifier = Math(seconds=0.8, workers=2)
    try:
        verdicts = judged(verifier, [("x^2+7", answer) for answer in HOSTILE])
        assert {v.outcome for v in verdicts} == {"wrong"}
        assert "timeout" in {v.reason for v in verdicts}
        assert json.dumps([v.detail for v in verdicts], ensure_ascii=False).encode("utf-8")
        assert judged(verifier, [("x^2+7", "7+x^2")])[0].outcome == "right"
    finally:
        verifier.close()


@pytest.mark.parametrize("size", [10**6])
def test_a_megabyte_is_refused_unread(no_process: None, size: int):
    for completion in (boxed("9" * size), r"\boxed{" * (size // 7), "9" * size, boxed("(" * size + ")" * size)):
        assert Math().judge(problem("7"), completion).outcome == "wrong"


def test_the_caller_imports_nothing_heavy():
    code = (
        "import sys, underdog.verifiers.math.math, underdog.rewards.accuracy, underdog.rewards.shaping.unlikeliness, "
        "underdog.rl.scoring; "
        "print(sorted({'torch', 'sympy', 'math_verify', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_math_py_in_the_working_folder_does_not_stand_before_pythons_own(tmp_path: Path):
    (tmp_path / "math.py").write_text("raise RuntimeError('shadowed')")
    (tmp_path / "json.py").write_text("raise RuntimeError('shadowed')")
    code = (
        "import sys; sys.path.remove('')\n"
        "from underdog.records import Problem\nfrom underdog.verifiers.math.math import Math\n"
        "verifier = Math(workers=1)\n"
        "print(verifier.judge(Problem('p', '?', 'x+1'), r'\\boxed{1+x}').outcome)\nverifier.close()"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert out.stdout.strip() == "right", out.stderr


@pytest.mark.slow
def test_agreement_on_metamorphic_math500(math: Math, record_property):
    pairs = rows("math_equiv/metamorphic_math500.jsonl")
    verdicts = judged(math, [(row["gold"], row["pred"]) for row in pairs])
    ours = [v.outcome == "right" for v in verdicts]
    record_property("agreement", sum(a == row["equal"] for a, row in zip(ours, pairs, strict=True)) / len(pairs))
    assert not [row for a, row in zip(ours, pairs, strict=True) if a and not row["equal"]]
    theirs = sum(row["math_verify_0.9.0"] == row["equal"] for row in pairs)
    assert sum(a == row["equal"] for a, row in zip(ours, pairs, strict=True)) >= theirs


def test_no_false_positive_on_the_tests_of_other_frameworks(math: Math, record_property):
    pairs = [row for row in rows("math_equiv/rl_framework_tests.jsonl") if "convention:" not in row["kind"]]
    ours = [v.outcome == "right" for v in judged(math, [(row["gold"], row["pred"]) for row in pairs])]
    record_property("agreement", sum(a == row["equal"] for a, row in zip(ours, pairs, strict=True)) / len(pairs))
    assert not [row for a, row in zip(ours, pairs, strict=True) if a and not row["equal"]]


@pytest.mark.slow
def test_the_solutions_of_math500_are_right_and_none_is_wrong_for_another(math: Math):
    problems = rows("math500/test.jsonl")
    own = math.judge_all([(problem(row["answer"]), row["solution"]) for row in problems])
    assert sum(v.outcome == "right" for v in own) >= 0.99 * len(problems)
    reworded = [(row["answer"], row["answer"].replace(r"\frac", r"\dfrac") + r"\,") for row in problems]
    assert sum(v.outcome == "right" for v in judged(math, reworded)) >= 0.99 * len(problems)


def test_the_gold_answers_of_gsm8k_are_right_without_a_worker(no_process: None):
    problems = rows("gsm8k/test.jsonl")
    pairs = [(row["answer"], row["answer"].rpartition("####")[2].strip()) for row in problems]
    assert {v.outcome for v in judged(Math(), pairs)} == {"right"}
    shifted = [(gold, str(int(answer.replace(",", "")) + 1)) for gold, answer in pairs]
    assert {v.outcome for v in judged(Math(), shifted)} == {"wrong"}
