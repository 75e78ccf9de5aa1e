"""Complex numbers with an error bound: two balls that do not meet are different numbers, whatever was rounded.

Variables stand for fixed generic points between 1 and 3, so that two expressions whose balls do not meet are different
functions. Balls never prove that two things are equal.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from hashlib import sha256

ROUNDING = 2.0**-50
"""Relative error allowed for one floating-point operation or library function, several times what IEEE 754 has."""


class NoBallError(ArithmeticError):
    """No bound is known: overflow, a pole or a branch cut within the ball, a function without one."""


@dataclass(frozen=True, slots=True)
class Ball:
    """All complex numbers within `radius` of `middle`."""

    middle: complex
    radius: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.radius) and cmath.isfinite(self.middle)):
            raise NoBallError

    @property
    def low(self) -> float:
        """A lower bound of the absolute value; 0 where the ball holds zero."""
        return max(0.0, abs(self.middle) - self.radius)

    def apart(self, other: Ball) -> bool:
        """Whether the two certainly differ."""
        return abs(self.middle - other.middle) > (self.radius + other.radius) * (1 + ROUNDING) + 1e-300

    def is_real(self) -> bool:
        """Whether the number is computed as a real one."""
        return self.middle.imag == 0


def exact(value: Fraction | int) -> Ball:
    """A rational number."""
    try:
        middle = float(value)
    except OverflowError:
        raise NoBallError from None
    return Ball(complex(middle), abs(middle) * ROUNDING + 1e-300)


PI = Ball(complex(math.pi), math.pi * ROUNDING)
E = Ball(complex(math.e), math.e * ROUNDING)
I = Ball(1j, 0.0)


@lru_cache(maxsize=1024)
def variable(name: str) -> Ball:
    """The point at which a variable is looked at."""
    fraction = int.from_bytes(sha256(name.encode("utf-8", "replace")).digest()[:6], "big") / 2**48
    return Ball(complex(1.1 + 1.8 * fraction), 0.0)


def add(a: Ball, b: Ball) -> Ball:
    """a + b."""
    middle = a.middle + b.middle
    return Ball(middle, a.radius + b.radius + abs(middle) * ROUNDING)


def negative(a: Ball) -> Ball:
    """-a."""
    return Ball(-a.middle, a.radius)


def multiply(a: Ball, b: Ball) -> Ball:
    """a * b."""
    middle = a.middle * b.middle
    spread = abs(a.middle) * b.radius + abs(b.middle) * a.radius + a.radius * b.radius
    # A product of tiny numbers may round to zero: the ball must still hold it.
    return Ball(middle, spread + abs(middle) * ROUNDING + 1e-300)


def inverse(a: Ball) -> Ball:
    """1 / a."""
    if a.low < 1e-300:
        raise NoBallError
    middle = 1 / a.middle
    return Ball(middle, a.radius / a.low / abs(a.middle) + abs(middle) * ROUNDING)


def power(base: Ball, exponent: Ball) -> Ball:
    """base ** exponent, principal value."""
    whole = exponent.middle.real
    integer = exponent.middle.imag == 0 and whole == round(whole) and abs(whole) < 2**20
    if base.low == 0:
        if integer and 0 < whole <= 64:
            result = base
            for _ in range(int(whole) - 1):
                result = multiply(result, base)
            return result
        raise NoBallError
    if integer:
        try:
            middle = base.middle ** int(whole)
        except (OverflowError, ZeroDivisionError):
            raise NoBallError from None
        spread = abs(middle) * _expm1(abs(whole) * (base.radius / base.low + 4 * ROUNDING))
        return Ball(middle, spread + 1e-300)
    return exponential(multiply(exponent, logarithm(base)))


def exponential(a: Ball) -> Ball:
    """e ** a."""
    try:
        middle = cmath.exp(a.middle)
    except OverflowError:
        raise NoBallError from None
    return Ball(middle, abs(middle) * (_expm1(a.radius) + ROUNDING * (1 + abs(a.middle))) + 1e-300)


def logarithm(a: Ball) -> Ball:
    """The principal logarithm."""
    if a.low == 0:
        raise NoBallError
    if a.middle.real < 0 and (abs(a.middle.imag) <= a.radius) and not a.is_real():
        raise NoBallError
    middle = cmath.log(complex(a.middle.real, 0.0) if a.is_real() else a.middle)
    return Ball(middle, a.radius / a.low + ROUNDING * (1 + abs(middle)))


def _smooth(function: Callable[[complex], complex], slope: Callable[[Ball], float]) -> Callable[[Ball], Ball]:
    def apply(a: Ball) -> Ball:
        try:
            middle = function(a.middle)
            spread = slope(a) * a.radius
        except (OverflowError, ValueError):
            raise NoBallError from None
        return Ball(middle, spread + ROUNDING * (1 + abs(middle) + abs(a.middle)))

    return apply


def _growth(a: Ball) -> float:
    """Bounds |sin|, |cos|, |sinh| and |cosh| anywhere in the ball."""
    return math.cosh(abs(a.middle.imag) + a.radius)


def _growth_real(a: Ball) -> float:
    return math.cosh(abs(a.middle.real) + a.radius)


def _within_one(function: Callable[[float], float]) -> Callable[[Ball], Ball]:
    def apply(a: Ball) -> Ball:
        x = a.middle.real
        if not a.is_real() or abs(x) > 1 + a.radius:
            raise NoBallError
        # |asin x - asin y| <= pi sqrt(|x - y| / 2): the slope has no bound at the ends.
        return Ball(complex(function(max(-1.0, min(1.0, x)))), 4 * math.sqrt(a.radius + ROUNDING))

    return apply


def _arctangent(a: Ball) -> Ball:
    if not a.is_real():
        raise NoBallError
    return Ball(complex(math.atan(a.middle.real)), a.radius + 4 * ROUNDING)


def absolute(a: Ball) -> Ball:
    """|a|."""
    return Ball(complex(abs(a.middle)), a.radius + abs(a.middle) * ROUNDING)


sine = _smooth(cmath.sin, _growth)
cosine = _smooth(cmath.cos, _growth)
hyperbolic_sine = _smooth(cmath.sinh, _growth_real)
hyperbolic_cosine = _smooth(cmath.cosh, _growth_real)


def _quotient(above: Callable[[Ball], Ball], below: Callable[[Ball], Ball]) -> Callable[[Ball], Ball]:
    return lambda a: multiply(above(a), inverse(below(a)))


FUNCTIONS: dict[str, Callable[[Ball], Ball]] = {
    "sin": sine,
    "cos": cosine,
    "tan": _quotient(sine, cosine),
    "cot": _quotient(cosine, sine),
    "sec": lambda a: inverse(cosine(a)),
    "csc": lambda a: inverse(sine(a)),
    "sinh": hyperbolic_sine,
    "cosh": hyperbolic_cosine,
    "tanh": _quotient(hyperbolic_sine, hyperbolic_cosine),
    "coth": _quotient(hyperbolic_cosine, hyperbolic_sine),
    "arcsin": _within_one(math.asin),
    "arccos": _within_one(math.acos),
    "arctan": _arctangent,
    "ln": logarithm,
    "exp": exponential,
    "abs": absolute,
}
"""Functions of one argument by their LaTeX names."""


def _expm1(x: float) -> float:
    return math.expm1(x) if x < 700 else math.inf
