"""Whether two answers are the same mathematics: math-verify, with what it is known to accept wrongly refused.

Runs in worker processes only. math-verify 0.9 drops percent signs and number bases, takes `5=5` for 5, and
compares numbers after rounding to six decimals, which makes all tiny numbers equal.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from math_verify import LatexExtractionConfig, grader, parse, verify
from sympy import And, Basic, Eq, Float, MatrixBase, Mul, Number, Rational, Symbol
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational

logging.disable(logging.CRITICAL)

_CONFIG = [LatexExtractionConfig(boxed_match_priority=-1)]
_DIGITS = 50
_EXACT = 1e-40
"""Largest relative difference of equal numbers without decimals, evaluated to `_DIGITS`."""
_DECIMAL = 1e-12
"""The same where a decimal occurs, which sympy reads to 15 digits."""


def judge(request: dict[str, Any], submission: Callable[[], None]) -> tuple[str, str]:
    """Outcome and reason for `{"gold": text, "answer": text}`, neither with dollar signs or a unit around it."""
    gold = _read_gold(request["gold"])
    if not gold:
        return "could_not_grade", "gold"
    submission()
    answer = _read(request["answer"])
    if not answer:
        return "wrong", "unreadable"
    same = (
        _same_marks(request["gold"], request["answer"])
        and all(_is_value(expression) for expression in answer if not _relations(gold))
        and verify(gold, answer, timeout_seconds=0)
    )
    return ("right", "equivalent") if same else ("wrong", "different")


def _read(text: str) -> list[Any]:
    """The expressions in a text; none where it cannot be read."""
    if "$" in text.replace(r"\$", ""):
        return []
    # No time limit of its own (a signal handler, which hostile input outlasts): the pool kills.
    found = parse(f"${text}$", _CONFIG, fallback_mode="no_fallback", parsing_timeout=0, raise_on_error=True)
    return [expression for expression in found if not isinstance(expression, str)]


_read_gold = lru_cache(maxsize=256)(_read)


_BASE = re.compile(r"(?:[0-9][0-9A-Fa-f]*|[)}])_\{?([0-9]+)")

_BRACKET = re.compile(r"\s*(?:\\left)?\s*(\(|\[|\\\{)")


def _same_marks(gold: str, answer: str) -> bool:
    """Whether percent signs and number bases stand on both sides or on none, and no two brackets differ."""
    if ("%" in gold) != ("%" in answer) or _BASE.findall(gold) != _BASE.findall(answer):
        return False
    brackets = {match.group(1) for match in map(_BRACKET.match, (gold, answer)) if match}
    return r"\{" not in brackets or len(brackets) == 1  # a set is no pair and no interval


def _relations(gold: list[Any]) -> bool:
    return any(isinstance(expression, Relational | And) for expression in gold)


def _is_value(expression: Any) -> bool:
    """Not an equation, or one that names what it gives: `x=5`, `AB=2+3=5`, `f(2)=5`; not `5=5` or `2x=10`."""
    first = expression
    while isinstance(first, And):
        arguments = getattr(first, "_unsorted_args", first.args)
        first = arguments[0]
    if not isinstance(first, Eq):
        return True
    name = first.lhs
    if isinstance(name, Mul):
        return all(isinstance(factor, Symbol) for factor in name.args)
    return isinstance(name, Symbol | AppliedUndef)


_library_numeric_eq = grader.sympy_numeric_eq


def _numeric_eq(a: Any, b: Any, float_rounding: int, numeric_precision: int) -> bool:
    """In place of math-verify's: relative closeness to many digits, exact for rationals."""
    if isinstance(a, MatrixBase) or isinstance(b, MatrixBase):
        return _library_numeric_eq(a, b, float_rounding, numeric_precision)
    a, b = grader.safe_sympy_doit(a), grader.safe_sympy_doit(b)
    if isinstance(a, Rational) and isinstance(b, Rational):
        return bool(a == b)
    if not all(isinstance(x, Basic) and x.is_number for x in (a, b)):
        return False  # left to simplification
    tolerance = _DECIMAL if a.has(Float) or b.has(Float) else _EXACT
    x, y = a.evalf(_DIGITS), b.evalf(_DIGITS)
    gap, size = abs(x - y), abs(x) + abs(y)
    if not all(isinstance(v, Number) and v.is_finite for v in (gap, size)):
        return False  # infinity is not close to anything
    return bool(gap <= tolerance * size)


grader.sympy_numeric_eq = _numeric_eq

# What the libraries load and build when first used must not be charged to the first submission.
judge({"gold": "x+1", "answer": r"\frac{2+2x}{2}"}, lambda: None)
