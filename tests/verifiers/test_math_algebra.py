"""The exact stage: what it calls equal is equal, what it calls different is different, its conventions are options."""

from __future__ import annotations

import cmath
from fractions import Fraction

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from underdog.records import Problem
from underdog.verifiers.math import balls
from underdog.verifiers.math.balls import Ball, NoBallError
from underdog.verifiers.math.compare import Conventions, same
from underdog.verifiers.math.latex import UnreadableError, read_expression
from underdog.verifiers.math.math import Math
from underdog.verifiers.math.values import UndefinedError

STRICT = Conventions()


def rational_trees() -> st.SearchStrategy[tuple[str, Fraction]]:
    r"""An expression in LaTeX and its value, as Python's own fractions have it."""
    leaves = st.integers(0, 30).map(lambda n: (str(n), Fraction(n)))

    def grow(children: st.SearchStrategy) -> st.SearchStrategy:
        pairs = st.tuples(children, children)
        divided = pairs.filter(lambda p: p[1][1] != 0)
        return st.one_of(
            pairs.map(lambda p: (f"{p[0][0]} + {p[1][0]}", p[0][1] + p[1][1])),
            pairs.map(lambda p: (rf"{p[0][0]}-\left({p[1][0]}\right)", p[0][1] - p[1][1])),
            pairs.map(lambda p: (rf"({p[0][0]})\cdot({p[1][0]})", p[0][1] * p[1][1])),
            pairs.map(lambda p: (f"({p[0][0]})({p[1][0]})", p[0][1] * p[1][1])),
            divided.map(lambda p: (rf"\frac{{{p[0][0]}}}{{{p[1][0]}}}", p[0][1] / p[1][1])),
            divided.map(lambda p: (f"({p[0][0]})/({p[1][0]})", p[0][1] / p[1][1])),
            children.map(lambda c: (rf"\dfrac{{{c[0]}}}{{2}}", c[1] / 2)),
            children.map(lambda c: (f"({c[0]})^{{2}}", c[1] ** 2)),
            children.map(lambda c: (f"-({c[0]})", -c[1])),
        )

    return st.recursive(leaves, grow, max_leaves=8)


@given(rational_trees(), rational_trees())
@settings(deadline=None, max_examples=300)
def test_rational_expressions_are_equal_if_and_only_if_their_values_are(one: tuple, other: tuple):
    assert (
        read_expression(one[0].replace(r"\left", "").replace(r"\right", "").replace(r"\dfrac", r"\frac")).value.number
        == one[1]
    )
    assert same(one[0], other[0], STRICT) is (one[1] == other[1])


X, Y = sympy.symbols("x y")
POLYNOMIALS = st.lists(
    st.tuples(st.integers(-5, 5), st.integers(0, 3), st.integers(0, 2), st.sampled_from([1, 2, 3, 6, 8])),
    min_size=1,
    max_size=4,
)


def as_latex(terms: list[tuple[int, int, int, int]]) -> str:
    return "+".join(rf"({c})\sqrt{{{r}}}x^{{{a}}}y^{{{b}}}" for c, a, b, r in terms)


def as_sympy(terms: list[tuple[int, int, int, int]]) -> sympy.Expr:
    return sympy.Add(*(c * sympy.sqrt(r) * X**a * Y**b for c, a, b, r in terms))


@given(POLYNOMIALS, POLYNOMIALS, POLYNOMIALS)
@settings(deadline=None, max_examples=60)
def test_polynomials_with_radicals_agree_with_sympy(f: list, g: list, h: list):
    left, right = rf"({as_latex(f)})({as_latex(g)})", as_latex(h)
    expanded = sympy.expand(as_sympy(f) * as_sympy(g))
    assert same(left, right, STRICT) is (sympy.expand(expanded - as_sympy(h)) == 0)
    assert same(left, sympy.latex(expanded), STRICT)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
@settings(deadline=None)
def test_denominators_may_be_rationalised(a: int, b: int, c: int):
    number = sympy.radsimp(c / (a + sympy.sqrt(b)))
    if number.is_finite and a * a != b:
        assert same(rf"\frac{{{c}}}{{{a}+\sqrt{{{b}}}}}", sympy.latex(number), STRICT)
        assert (
            same(rf"\frac{{{c}}}{{{a}+\sqrt{{{b}}}}}", sympy.latex(number + sympy.Rational(1, 10**30)), STRICT) is False
        )


COMPLEX = st.builds(complex, st.floats(-3, 3), st.floats(-3, 3))


@given(
    COMPLEX,
    COMPLEX,
    st.floats(0, 0.01),
    st.floats(0, 6.3),
    st.sampled_from(["add", "multiply", "inverse", "sine", "exponential"]),
)
@settings(deadline=None, max_examples=300)
def test_a_ball_holds_the_result_for_every_point_in_it(a: complex, b: complex, radius: float, angle: float, name: str):
    inside = a + 0.999 * radius * cmath.exp(1j * angle)
    plain = {
        "add": lambda z: z + b,
        "multiply": lambda z: z * b,
        "inverse": lambda z: 1 / z,
        "sine": cmath.sin,
        "exponential": cmath.exp,
    }
    arguments = (Ball(a, radius), Ball(b, 0.0)) if name in ("add", "multiply") else (Ball(a, radius),)
    try:
        result = getattr(balls, name)(*arguments)
    except NoBallError:
        assert name == "inverse"
        assert abs(a) <= max(radius * (1 + 1e-9), 1e-299)
        return
    assert abs(plain[name](inside) - result.middle) <= result.radius * (1 + 1e-9) + 1e-12


@pytest.mark.parametrize(
    "text",
    [
        r"\frac{1}{0}",
        r"\frac{1}{x-x}",
        "0^{-1}",
        r"\frac{1}{\sqrt2-\sqrt2}",
        r"\tan(\frac{\pi}{2})",
        r"\frac{x}{(x+1)^2-x^2-2x-1}",
    ],
)
def test_a_division_by_zero_is_no_value(text: str):
    with pytest.raises(UndefinedError):
        read_expression(text)


@pytest.mark.parametrize(
    "text",
    ["2 3", "x2", "x^^2", "2^3^4", r"\frac{1}", "(1", "1)", r"\sqrt12", r"\frac123", "9_3", "45\\degree", "", "word"],
)
def test_what_is_ambiguous_is_not_guessed(text: str):
    with pytest.raises(UnreadableError):
        read_expression(text)


@pytest.mark.parametrize(
    ("option", "gold", "answer", "default"),
    [
        ({"units": False}, "5", r"5\text{ cm}", True),
        ({"units": False}, r"45^\circ", "45", True),
        ({"percent": True}, r"10\%", "10", False),
        ({"percent": True}, "10", r"10\%", False),
        ({"percent": True}, "0.1", r"10\%", False),
        ({"decimals": 0}, r"\frac{1}{3}", "0.333333333333", True),
        ({"decimals": 6}, r"\frac{1}{3}", "0.333333", False),
        ({"decimals": 6}, r"\pi", "3.141593", False),
        ({"numbers_only": True}, "4", r"\sqrt{16}", True),
    ],
)
def test_each_convention_is_one_option(option: dict, gold: str, answer: str, default: bool):
    problem, completion = Problem("p", "?", gold), rf"\boxed{{{answer}}}"
    assert (Math().judge(problem, completion).outcome == "right") is default
    assert (Math(**option).judge(problem, completion).outcome == "right") is not default


@pytest.mark.parametrize("answer", [r"5\text{ m}", r"5\%", r"5 \text{ cm}^2"])
def test_two_different_units_are_wrong_under_every_convention(answer: str):
    verifier = Math(percent=True, decimals=2)
    assert verifier.judge(Problem("p", "?", r"5\text{ cm}"), rf"\boxed{{{answer}}}").outcome == "wrong"


@pytest.mark.parametrize(
    ("gold", "answer"), [(r"\frac{10^{13}+1}{10^{13}}", "1.0000000000000"), ("2.5", "2.4999999999999")]
)
def test_a_finite_decimal_is_never_rounded(gold: str, answer: str):
    assert same(gold, answer, Conventions(decimals=6)) is False
