"""Exact sums of monomials: rationals, radicals, i, pi, e, variables and opaque functions in one normal form.

A monomial is a sorted tuple of (generator, exponent); a polynomial maps monomials to rational coefficients. Primes are
generators with exponents in [0, 1), so that sqrt(12) is 2 * 3^(1/2): products of such radicals of distinct exponents
are linearly independent over the rationals (Besicovitch 1940), hence two numbers are equal only if their forms are.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import gcd, isqrt, lcm
from typing import Any

Generator = tuple[str, Any]
"""Kind and payload. `FREE` kinds: `prime`, `constant` (pi, e), `i`, `variable`. Opaque ones, whose relations are not
all known: `root` of a polynomial, `power` with a symbolic exponent, `function` of an argument, `cofactor`."""
Monomial = tuple[tuple[Generator, Fraction | int], ...]
Poly = dict[Monomial, Fraction]
Key = tuple[tuple[Monomial, Fraction], ...]
"""A polynomial that can be hashed and ordered."""

FREE = {"prime", "constant", "i", "variable"}
I: Generator = ("i", "")
PI: Generator = ("constant", "pi")
E: Generator = ("constant", "e")
ZERO: Poly = {}
ONE: Poly = {(): Fraction(1)}

MAX_BITS = 4096
"""Of a coefficient."""
MAX_TERMS = 150
"""Of a polynomial."""
MAX_STEPS = 30_000
"""Products of monomials that one reading or one comparison may take: some tens of milliseconds."""
SMALL_PRIMES = tuple(n for n in range(2, 1000) if all(n % d for d in range(2, isqrt(n) + 1)))


class TooLargeError(Exception):
    """The exact form would be larger than it is worth; others decide."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """`above / below`, neither reduced; `below` is not the zero polynomial."""

    above: Poly
    below: Poly

    @property
    def number(self) -> Fraction | None:
        """The rational value; None if it is none, or only after a cancellation."""
        if set(self.above) <= {()} and set(self.below) == {()}:
            return self.above.get((), Fraction(0)) / self.below[()]
        return None


def constant(value: Fraction | int) -> Ratio:
    """A rational number."""
    return Ratio({(): Fraction(value)} if value else ZERO, ONE)


def generator(name: Generator, exponent: Fraction | int = 1) -> Ratio:
    """A power of one generator."""
    return Ratio({((name, exponent),): Fraction(1)}, ONE)


def key(poly: Poly) -> Key:
    """A canonical, hashable form."""
    return tuple(sorted(poly.items()))


def is_free(poly: Poly) -> bool:
    """Whether all generators are free, so that equal polynomials are those with the same form."""
    return all(name[0] in FREE for monomial in poly for name, _ in monomial)


class Algebra:
    """Arithmetic within a budget of steps.

    Raises:
        TooLargeError: from any method, once the budget, the terms or the digits are spent.
        ZeroDivisionError: division by the zero polynomial.
    """

    def __init__(self, steps: int = MAX_STEPS):
        self._steps = steps

    def add(self, a: Ratio, b: Ratio) -> Ratio:
        """a + b."""
        if a.below == b.below:
            return Ratio(self.sum(a.above, b.above), a.below)
        above = self.sum(self.product(a.above, b.below), self.product(b.above, a.below))
        return Ratio(above, self.product(a.below, b.below))

    def multiply(self, a: Ratio, b: Ratio) -> Ratio:
        """a * b."""
        return Ratio(self.product(a.above, b.above), self.product(a.below, b.below))

    def divide(self, a: Ratio, b: Ratio) -> Ratio:
        """a / b; dividing by a single term leaves no denominator."""
        if not b.above:
            raise ZeroDivisionError
        if len(b.above) == 1 and not _has(b.above, "root"):
            inverse = self._inverse(b.above)
            return Ratio(self.product(self.product(a.above, b.below), inverse), a.below)
        return Ratio(self.product(a.above, b.below), self.product(a.below, b.above))

    def negative(self, a: Ratio) -> Ratio:
        """-a."""
        return Ratio({monomial: -c for monomial, c in a.above.items()}, a.below)

    def power(self, base: Ratio, exponent: Ratio) -> Ratio:
        """base ** exponent, principal value; fractional powers of single variables as if these were positive.

        Raises:
            TooLargeError: also where the power has no form here.
        """
        number = exponent.number
        if number is not None and number.denominator == 1:
            return self._integer_power(base, number.numerator)
        if number is not None:
            return self.root(base, number)
        return self._symbolic_power(base, exponent)

    def root(self, base: Ratio, exponent: Fraction) -> Ratio:
        """base ** exponent for a proper fraction."""
        if exponent.numerator > 64 or exponent.denominator > 64:
            raise TooLargeError
        if not base.above:
            if exponent < 0:
                raise ZeroDivisionError
            return constant(0)
        # sqrt(a/b) = sqrt(a b) / b, so that only polynomials have roots.
        if base.below != ONE:
            if exponent.denominator != 2:
                raise TooLargeError
            inner = self._poly_root(self.product(base.above, base.below), exponent)
            return self.divide(inner, self._integer_power(Ratio(base.below, ONE), int(2 * exponent)))
        return self._poly_root(base.above, exponent)

    def equal(self, a: Ratio, b: Ratio) -> bool:
        """Whether a and b have the same form; for free ones whether they are equal."""
        return self.product(a.above, b.below) == self.product(b.above, a.below)

    def sum(self, a: Poly, b: Poly) -> Poly:
        """a + b."""
        self._spend(len(b))
        total = dict(a)
        for monomial, c in b.items():
            value = total.get(monomial, 0) + c
            if value:
                total[monomial] = self._checked(value)
            else:
                total.pop(monomial, None)
        if len(total) > MAX_TERMS:
            raise TooLargeError
        return total

    def product(self, a: Poly, b: Poly) -> Poly:
        """a * b."""
        if a is ONE or b is ONE:
            return b if a is ONE else a
        self._spend(len(a) * len(b))
        total: Poly = {}
        carried: list[Poly] = []
        for left, x in a.items():
            for right, y in b.items():
                monomial, factor, roots = _merge(left, right)
                value = x * y * factor
                if roots:
                    carried.append(self._with_roots({monomial: value}, roots))
                    continue
                value = total.get(monomial, 0) + value
                if value:
                    total[monomial] = self._checked(value)
                else:
                    total.pop(monomial, None)
        for extra in carried:
            total = self.sum(total, extra)
        if len(total) > MAX_TERMS:
            raise TooLargeError
        return total

    def _with_roots(self, poly: Poly, roots: list[tuple[Key, int]]) -> Poly:
        for radicand, times in roots:
            for _ in range(times):
                poly = self.product(poly, dict(radicand))
        return poly

    def _inverse(self, single: Poly) -> Poly:
        ((monomial, c),) = single.items()
        inverted: Monomial = tuple((name, -exponent) for name, exponent in monomial)
        flipped, factor, _ = _merge(inverted, ())
        return {flipped: self._checked(factor / c)}

    def _integer_power(self, base: Ratio, exponent: int) -> Ratio:
        if exponent < 0:
            return self._integer_power(self.divide(Ratio(ONE, ONE), base), -exponent)
        if abs(exponent) * _bits(base) > 2 * MAX_BITS:
            raise TooLargeError
        result = Ratio(ONE, ONE)
        while exponent:
            if exponent & 1:
                result = self.multiply(result, base)
            exponent >>= 1
            if exponent:
                base = self.multiply(base, base)
        return result

    def _poly_root(self, poly: Poly, exponent: Fraction) -> Ratio:
        if len(poly) > 1:
            content = _content(poly)
            primitive = {monomial: c / content for monomial, c in poly.items()}
            whole, rest = divmod(exponent, 1)
            opened = generator(("root", key(primitive)), rest)
            result = self.multiply(self._number_root(content, exponent), opened)
            return self.multiply(result, self._integer_power(Ratio(primitive, ONE), int(whole)))
        ((monomial, c),) = poly.items()
        sign = c < 0
        if sign and exponent.denominator != 2:
            raise TooLargeError
        result = self._number_root(abs(c), exponent)
        if sign:
            result = self.multiply(result, self._integer_power(generator(I), int(2 * exponent)))
        variables = [(name, e) for name, e in monomial if name[0] not in ("prime", "constant", "cofactor")]
        if any(name == I for name, _ in variables) or (sign and variables):
            raise TooLargeError
        simple = len(variables) <= 1 and all(name[0] == "variable" and abs(e) == 1 for name, e in variables)
        for name, e in monomial:
            if simple or (name, e) not in variables:
                result = self.multiply(result, _generator_power(name, e * exponent))
        if not simple:
            opaque: Key = ((tuple(variables), Fraction(1)),)
            if not 0 < exponent < 1:
                raise TooLargeError
            result = self.multiply(result, generator(("root", opaque), exponent))
        return result

    def _number_root(self, value: Fraction, exponent: Fraction) -> Ratio:
        result = Ratio(ONE, ONE)
        for number, sign in ((value.numerator, 1), (value.denominator, -1)):
            for name, times in factors(number):
                result = self.multiply(result, _generator_power(name, exponent * times * sign))
        return result

    def _symbolic_power(self, base: Ratio, exponent: Ratio) -> Ratio:
        """g^(c1 m1 + c2 m2 + ...) as the product of (g^m1)^c1, (g^m2)^c2 ... for every generator g of a single term."""
        if exponent.below != ONE or base.below != ONE or len(base.above) != 1:
            raise TooLargeError
        ((monomial, c),) = base.above.items()
        if c <= 0:
            raise TooLargeError
        names = [*monomial]
        names += [(n, t) for n, t in factors(c.numerator)] + [(n, -t) for n, t in factors(c.denominator)]
        if any(name[0] not in ("prime", "constant", "variable", "cofactor") for name, _ in names):
            raise TooLargeError
        result = Ratio(ONE, ONE)
        for name, times in names:
            for part, weight in exponent.above.items():
                result = self.multiply(result, _symbolic(name, part, weight * times))
        return result

    def _spend(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0:
            raise TooLargeError

    def _checked(self, value: Fraction) -> Fraction:
        if value.numerator.bit_length() > MAX_BITS or value.denominator.bit_length() > MAX_BITS:
            raise TooLargeError
        return value


def _merge(left: Monomial, right: Monomial) -> tuple[Monomial, Fraction | int, list[tuple[Key, int]]]:
    """The product of two monomials: its normal form, a rational factor, and radicands that came out of their roots."""
    if not left and not right:
        return (), 1, []
    exponents: dict[Generator, Fraction | int] = dict(left)
    for name, exponent in right:
        exponents[name] = exponents.get(name, 0) + exponent
    factor: Fraction | int = 1
    roots: list[tuple[Key, int]] = []
    kept: list[tuple[Generator, Fraction | int]] = []
    for name, exponent in exponents.items():
        kind = name[0]
        if kind == "i":
            turns = int(exponent) % 4
            factor = -factor if turns >= 2 else factor
            exponent = turns % 2
        elif kind == "prime" or kind == "cofactor":
            whole = exponent // 1
            if whole:
                if abs(whole) > MAX_BITS:
                    raise TooLargeError
                factor *= Fraction(name[1]) ** int(whole)
                exponent -= whole
        elif kind == "root" and exponent >= 1:
            roots.append((name[1], int(exponent // 1)))
            exponent %= 1
        if exponent:
            kept.append((name, exponent))
    return tuple(sorted(kept)), factor, roots


def _generator_power(name: Generator, exponent: Fraction | int) -> Ratio:
    monomial, factor, _ = _merge(((name, exponent),), ())
    return Ratio({monomial: Fraction(factor)}, ONE)


def _symbolic(name: Generator, part: Monomial, weight: Fraction) -> Ratio:
    """name ** (weight * part), where e ** (i pi q) is a root of unity if q is a multiple of 1/12."""
    if not part:
        return _generator_power(name, weight)
    if name == E and part == ((PI, 1), (I, 1)):
        return unit_root(weight)
    return generator(("power", (name, part)), weight)


def unit_root(turns: Fraction) -> Ratio:
    """e ** (i pi turns).

    Raises:
        TooLargeError: `turns` is no multiple of 1/12.
    """
    real, imaginary = cosine(turns), cosine(turns - Fraction(1, 2))
    algebra = Algebra()
    return algebra.add(real, algebra.multiply(generator(I), imaginary))


def cosine(turns: Fraction) -> Ratio:
    """cos(pi turns) for multiples of 1/12.

    Raises:
        TooLargeError: other angles.
    """
    steps = turns * 12
    if steps.denominator != 1:
        raise TooLargeError
    step = abs((steps.numerator + 12) % 24 - 12)
    sign = -1 if step > 6 else 1
    step = 12 - step if step > 6 else step
    half = Fraction(1, 2)
    two, three = (("prime", 2), half), (("prime", 3), half)
    quarter, parts = Fraction(sign, 4), Fraction(sign, 2)
    table: dict[int, Poly] = {
        0: {(): Fraction(sign)},
        1: {(two, three): quarter, (two,): quarter},
        2: {(three,): parts},
        3: {(two,): parts},
        4: {(): parts},
        5: {(two, three): quarter, (two,): -quarter},
        6: {},
    }
    return Ratio(table[step], ONE)


def factors(number: int) -> list[tuple[Generator, int]]:
    """Prime factors with multiplicity; what has none below 1000 stays whole, as a `cofactor` if it may not be prime."""
    found: list[tuple[Generator, int]] = []
    if number.bit_length() > 256:
        raise TooLargeError
    for prime in SMALL_PRIMES:
        if prime * prime > number:
            break
        times = 0
        while number % prime == 0:
            number //= prime
            times += 1
        if times:
            found.append((("prime", prime), times))
    if number > 1:
        whole = isqrt(number)
        if whole * whole == number:
            found += [(name, 2 * times) for name, times in factors(whole)]
        else:
            found.append((("prime" if number < 1000 * 1000 else "cofactor", number), 1))
    return found


def _content(poly: Poly) -> Fraction:
    """The positive rational that leaves integer coefficients without a common factor."""
    above = gcd(*(c.numerator for c in poly.values()))
    below = lcm(*(c.denominator for c in poly.values()))
    return Fraction(above, below)


def _bits(ratio: Ratio) -> int:
    """About how many bits a power adds each time; at least 1 for what grows."""
    sizes = [
        max(c.numerator.bit_length(), c.denominator.bit_length()) - 1
        for p in (ratio.above, ratio.below)
        for c in p.values()
    ]
    grows = len(ratio.above) > 1 or len(ratio.below) > 1
    return max([*sizes, 40 if grows else 0])


def _has(poly: Poly, kind: str) -> bool:
    return any(name[0] == kind for monomial in poly for name, _ in monomial)
