"""What an expression is worth: its exact form where it has one, and a ball that certainly holds it.

The exact form proves that two expressions are equal; forms of free generators, or balls that do not meet, prove that
they are not. What neither decides is left to others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import comb, factorial
from typing import TypeVar

from . import balls
from .algebra import PI, Algebra, E, I, Poly, Ratio, TooLargeError, constant, cosine, factors, generator, is_free, key
from .balls import Ball, NoBallError

MAX_FACTORIAL = 300
INFINITY = ("constant", "infinity")

T = TypeVar("T")


class UndefinedError(ArithmeticError):
    """A division by zero: the expression equals nothing."""


@dataclass(frozen=True, slots=True)
class Value:
    """An expression's worth; `form` and `ball` are None where they are not known."""

    form: Ratio | None
    ball: Ball | None

    @property
    def number(self) -> Fraction | None:
        """The rational number that it is, if it is known to be one."""
        return self.form.number if self.form else None

    @property
    def integer(self) -> int | None:
        """The integer that it is, if it is known to be one."""
        number = self.number
        return number.numerator if number is not None and number.denominator == 1 else None


def _known(compute: Callable[[], T]) -> T | None:
    try:
        return compute()
    except (TooLargeError, NoBallError):
        return None


@lru_cache(maxsize=4096)
def rational(value: Fraction | int) -> Value:
    """A rational number."""
    return Value(constant(value), _known(lambda: balls.exact(value)))


@lru_cache(maxsize=1024)
def variable(name: str) -> Value:
    """A letter that stands for itself."""
    return Value(generator(("variable", name)), balls.variable(name))


PI_VALUE = Value(generator(PI), balls.PI)
E_VALUE = Value(generator(E), balls.E)
I_VALUE = Value(generator(I), balls.I)
INFINITE = Value(generator(INFINITY), None)
ONE_VALUE = rational(1)


class Arithmetic:
    """Operations on values within one budget, see `Algebra`. All raise `UndefinedError` for divisions by zero."""

    def __init__(self) -> None:
        self._algebra = Algebra()

    def _combine(
        self,
        form: Callable[..., Ratio],
        ball: Callable[..., Ball],
        *values: Value,
    ) -> Value:
        forms, bounds = [v.form for v in values], [v.ball for v in values]
        try:
            exact = None if None in forms else _known(lambda: form(*forms))
        except ZeroDivisionError:
            raise UndefinedError from None
        return Value(exact, None if None in bounds else _known(lambda: ball(*bounds)))

    def add(self, a: Value, b: Value) -> Value:
        """a + b."""
        return self._combine(self._algebra.add, balls.add, a, b)

    def negative(self, a: Value) -> Value:
        """-a."""
        return self._combine(self._algebra.negative, balls.negative, a)

    def subtract(self, a: Value, b: Value) -> Value:
        """a - b."""
        return self.add(a, self.negative(b))

    def multiply(self, a: Value, b: Value) -> Value:
        """a * b."""
        return self._combine(self._algebra.multiply, balls.multiply, a, b)

    def divide(self, a: Value, b: Value) -> Value:
        """a / b."""
        result = self._combine(self._algebra.divide, lambda x, y: balls.multiply(x, balls.inverse(y)), a, b)
        return self._unless_zero(b, result)

    def power(self, base: Value, exponent: Value) -> Value:
        """base ** exponent."""
        number = exponent.number
        if number is not None and abs(number) > 2**31:
            return Value(None, None)
        result = self._combine(self._algebra.power, balls.power, base, exponent)
        return self._unless_zero(base, result) if number is None or number < 0 else result

    def root(self, base: Value, degree: int) -> Value:
        """The principal square root, the real odd root of a negative number."""
        number = base.number
        if degree % 2 and number is not None and number < 0:
            return self.negative(self.root(self.negative(base), degree))
        return self.power(base, rational(Fraction(1, degree)))

    def function(self, name: str, argument: Value) -> Value:
        """A function of `balls.FUNCTIONS` by its LaTeX name."""
        inner = argument.form
        try:
            form = None if inner is None else _known(lambda: self._function_form(name, inner))
        except ZeroDivisionError:
            raise UndefinedError from None
        ball = _known(lambda: balls.FUNCTIONS[name](argument.ball)) if argument.ball else None  # type: ignore[arg-type]
        return Value(form, ball)

    def _function_form(self, name: str, argument: Ratio) -> Ratio:
        number = argument.number
        if name == "exp":
            return self._algebra.power(generator(E), argument)
        if name == "ln":
            return self._logarithm(argument)
        if name == "abs" and number is not None:
            return constant(abs(number))
        if name in ("sin", "cos"):
            turns = _turns(argument)
            if turns is not None:
                return cosine(turns - Fraction(1, 2) if name == "sin" else turns)
        if name in ("tan", "cot", "sec", "csc"):  # by sine and cosine, so that quotients of them are seen
            one, sine, cosine_ = constant(1), self._function_form("sin", argument), self._function_form("cos", argument)
            above, below = {"tan": (sine, cosine_), "cot": (cosine_, sine), "sec": (one, cosine_), "csc": (one, sine)}[
                name
            ]
            if not below.above:
                raise ZeroDivisionError
            return self._algebra.divide(above, below)
        return generator(("function", (name, key(argument.above), key(argument.below))))

    def _logarithm(self, argument: Ratio) -> Ratio:
        """ln as a sum over prime factors and powers of e."""
        if len(argument.above) != 1 or len(argument.below) != 1:
            return generator(("function", ("ln", key(argument.above), key(argument.below))))
        ((monomial, c),) = self._algebra.divide(argument, constant(1)).above.items()
        c /= next(iter(argument.below.values()))
        if (
            c <= 0
            or set(argument.below) != {()}
            or any(n[0] not in ("prime", "constant", "cofactor") for n, _ in monomial)
        ):
            return generator(("function", ("ln", key(argument.above), key(argument.below))))
        total = constant(0)
        parts = [*monomial, *factors(c.numerator), *((name, -times) for name, times in factors(c.denominator))]
        for name, times in parts:
            log = constant(1) if name == E else generator(("function", ("ln", name, ())))
            total = self._algebra.add(total, self._algebra.multiply(constant(Fraction(times)), log))
        return total

    def _unless_zero(self, divisor: Value, result: Value) -> Value:
        """Without the form where the divisor may be zero though its form is not: opaque generators can cancel."""
        number = divisor.number
        if number is not None or (divisor.form and is_free(divisor.form.above)):
            return result
        certain = divisor.ball is not None and divisor.ball.low > 0
        return result if certain else Value(None, result.ball)

    def equal(self, a: Value, b: Value) -> bool | None:
        """Whether two values are equal; None where that is not known."""
        if a.form and b.form:
            one, other = a.number, b.number
            if one is not None and other is not None:
                return one == other
            same = _known(lambda: self._algebra.equal(a.form, b.form))  # type: ignore[arg-type]
            if same:
                return True
            if same is False and all(is_free(p) for r in (a.form, b.form) for p in (r.above, r.below)):
                return False
        if a.ball and b.ball and a.ball.apart(b.ball):
            return False
        return None

    def proportional(self, a: Value, b: Value, positive: bool = False) -> bool | None:
        """Whether a = c b for a constant c that is not zero (`positive`: a positive rational); None if not known.

        Both are taken as polynomials: factors without a variable, and denominators, do not matter.
        """
        if a.form is None or b.form is None:
            return None
        tops = [self._cleared(r, positive) for r in (a.form, b.form)]
        if None in tops:
            return None
        first, second = tops
        assert first is not None
        assert second is not None
        if not first or not second:
            return not first and not second
        return _known(lambda: self._proportional(first, second, positive))

    def _cleared(self, ratio: Ratio, positive: bool) -> Poly | None:
        """The numerator, if the denominator holds no variable."""
        if any(name[0] != "prime" and name[0] != "constant" for m in ratio.below for name, _ in m):
            return None
        if not all(is_free(p) for p in (ratio.above, ratio.below)):
            return None
        if positive and set(ratio.below) != {()}:
            return None
        return ratio.above

    def _proportional(self, a: Poly, b: Poly, positive: bool) -> bool:
        parts_a, parts_b = _by_variables(a), _by_variables(b)
        if parts_a.keys() != parts_b.keys():
            return False
        lead = min(parts_a)
        if positive:
            ((_, x),), ((_, y),) = parts_a[lead].items(), parts_b[lead].items()
            return x / y > 0 and {m: c * y for m, c in a.items()} == {m: c * x for m, c in b.items()}
        product = self._algebra.product
        return all(product(parts_a[m], parts_b[lead]) == product(parts_b[m], parts_a[lead]) for m in parts_a)


def _by_variables(poly: Poly) -> dict[tuple, Poly]:
    """Coefficients, themselves polynomials without variables, by monomials of variables."""
    parts: dict[tuple, Poly] = {}
    for monomial, c in poly.items():
        variables = tuple(pair for pair in monomial if pair[0][0] == "variable")
        rest = tuple(pair for pair in monomial if pair[0][0] != "variable")
        parts.setdefault(variables, {})[rest] = c
    return parts


def _turns(argument: Ratio) -> Fraction | None:
    """q of an argument q pi."""
    if not argument.above:
        return Fraction(0)
    if set(argument.above) != {((PI, 1),)} or set(argument.below) != {()}:
        return None
    return argument.above[((PI, 1),)] / argument.below[()]


def factorial_of(value: Value) -> Value:
    """n! of a small integer, else unknown."""
    n = value.integer
    return rational(factorial(n)) if n is not None and 0 <= n <= MAX_FACTORIAL else Value(None, None)


def binomial(above: Value, below: Value) -> Value:
    """n choose k of small integers, else unknown."""
    n, k = above.integer, below.integer
    if n is None or k is None or not 0 <= n <= MAX_FACTORIAL or k < 0:
        return Value(None, None)
    return rational(comb(n, k))
