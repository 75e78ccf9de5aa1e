r"""Reads the arithmetic of LaTeX and plain text into values: `\frac{\sqrt 3}{2}x^2`, `-2*pi`, `1\frac{4}{5}`, `204_5`.

A recursive descent of bounded depth that evaluates as it reads. What it does not know it refuses; it never guesses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction

from . import balls
from .values import (
    E_VALUE,
    I_VALUE,
    ONE_VALUE,
    PI_VALUE,
    Arithmetic,
    Value,
    binomial,
    factorial_of,
    rational,
    variable,
)

MAX_DEPTH = 24
"""Groups within groups."""
MAX_TOKENS = 600

_GREEK = frozenset(
    re.findall(
        r"[A-Za-z]+",
        """alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau
        upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Upsilon Phi Psi Omega ell hbar""",
    )
)
_FUNCTIONS = {*balls.FUNCTIONS} - {"abs"}
_PLAIN_WORDS = {*_FUNCTIONS, "pi", "sqrt", "log", "lg", "asin", "acos", "atan", "theta", "alpha", "beta"}
_SAME_FUNCTION = {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}

_TOKEN = re.compile(
    r"(?P<number>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+(?:\{,\}[0-9]{3})*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3}(?![0-9A-Za-z.]))?|\.[0-9]+)"
    r"|(?P<text>\\(?:text|mbox|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|operatorname)\s*\{(?P<inside>[^{}]*)\})"
    r"|(?P<command>\\[a-zA-Z]+)"
    r"|(?P<word>[a-zA-Z]+)"
    r"|(?P<space>\s+)"
    r"|(?P<mark>[-+*/^_!(){}\[\]|']|\\[{}|])"
)


class UnreadableError(ValueError):
    """Not arithmetic that this reader knows."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token; `spaced` if a space stands before it."""

    kind: str
    text: str
    spaced: bool


@dataclass(slots=True)
class Reading:
    """A value, and what of its spelling matters beyond it."""

    value: Value
    bases: list[int] = field(default_factory=list)
    """Number bases written out."""
    bare_log: bool = False
    r"""Whether a `\log` without its base occurs, which some read as natural and some as decimal."""
    letters: set[str] = field(default_factory=set)
    """Names of the variables, and `i` and `e`."""


def read_expression(text: str) -> Reading:
    """The value of one expression.

    Raises:
        UnreadableError: it is none, or not one that is known here.
        UndefinedError: it divides by zero.
    """
    parser = _Parser(tokenise(text))
    value = parser.expression()
    parser.end()
    return Reading(value, parser.bases, parser.bare_log, parser.letters)


def tokenise(text: str) -> list[Token]:
    """The tokens of a text.

    Raises:
        UnreadableError: a character that has no meaning here, or too many tokens.
    """
    tokens: list[Token] = []
    position, spaced = 0, False
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or len(tokens) > MAX_TOKENS:
            raise UnreadableError(text[position : position + 10])
        position = match.end()
        kind = match.lastgroup or ""
        if match.group("space"):
            spaced = True
            continue
        if match.group("text"):
            tokens += [Token(t.kind, t.text, spaced or t.spaced) for t in _inside(match.group("inside"))]
        else:
            tokens.append(Token(kind, match.group(), spaced))
        spaced = False
    return tokens


def _inside(content: str) -> Iterator[Token]:
    r"""The tokens of `\text{42}`, `\mathrm{e}` or `\operatorname{lcm}`: numbers, single letters, known functions."""
    stripped = content.strip()
    if re.fullmatch(r"[A-Za-z]", stripped) or stripped in _PLAIN_WORDS:
        yield Token("word", stripped, False)
    elif re.fullmatch(r"[-+]?[0-9][0-9., /]*", stripped):
        yield from tokenise(stripped)
    else:
        raise UnreadableError(content)


def _plain(text: str) -> Value:
    return rational(Fraction(text.replace("{,}", "").replace(",", "")))


_OPENING = {"(": ")", "[": "]", "{": "}"}


class _Parser:
    def __init__(self, tokens: list[Token]):
        self.bases: list[int] = []
        self.bare_log = False
        self.letters: set[str] = set()
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._angles = 0
        self._bars = 0
        self._arithmetic = Arithmetic()

    # -- tokens ------------------------------------------------------------------------------------------------------

    def _peek(self) -> Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _is(self, *texts: str) -> bool:
        token = self._peek()
        return token is not None and token.text in texts

    def _take(self) -> Token:
        token = self._peek()
        if token is None:
            raise UnreadableError("the end")
        self._at += 1
        return token

    def _expect(self, text: str) -> None:
        if self._take().text != text:
            raise UnreadableError(f"no {text}")

    def end(self) -> None:
        """Nothing may be left."""
        if self._peek() is not None:
            raise UnreadableError(self._take().text)

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnreadableError("too deep")
        yield
        self._depth -= 1

    # -- grammar -----------------------------------------------------------------------------------------------------

    def expression(self) -> Value:
        """Sums and differences."""
        with self._deeper():
            value = self._term()
            while self._is("+", "-"):
                operator = self._take().text
                term = self._term()
                value = self._arithmetic.add(value, term if operator == "+" else self._arithmetic.negative(term))
            return value

    def _term(self) -> Value:
        signs = 0
        while self._is("+", "-"):
            signs += self._take().text == "-"
        value = self._factor()
        while True:
            if self._is("*", "\\cdot", "\\times"):
                self._take()
                value = self._arithmetic.multiply(value, self._signed_factor())
            elif self._is("/", "\\div"):
                self._take()
                value = self._arithmetic.divide(value, self._signed_factor())
            elif self._continues():
                value = self._arithmetic.multiply(value, self._factor())
            else:
                return self._arithmetic.negative(value) if signs % 2 else value

    def _signed_factor(self) -> Value:
        if self._is("+", "-"):
            negative = self._take().text == "-"
            value = self._factor()
            return self._arithmetic.negative(value) if negative else value
        return self._factor()

    def _continues(self) -> bool:
        """Whether another factor follows without a sign of multiplication. A number cannot: `2 3` is no product."""
        token = self._peek()
        if token is None or token.kind == "number":
            return False
        if token.text == "|":
            return not self._bars
        if token.kind == "mark":
            return token.text in ("(", "[", "{")
        return token.text not in ("\\cdot", "\\times", "\\div", "\\degree", "\\rfloor", "\\rceil", "\\rvert")

    def _factor(self) -> Value:
        value = self._base()
        while True:
            if self._is("!"):
                self._take()
                value = factorial_of(value)
            elif self._is("\\degree"):
                self._take()
                if not self._angles:
                    raise UnreadableError("an angle among numbers")
                value = self._arithmetic.divide(self._arithmetic.multiply(value, PI_VALUE), rational(180))
            elif self._is("^"):
                self._take()
                value = self._arithmetic.power(value, self._argument(whole_number=True))
                if self._is("^"):
                    raise UnreadableError("two exponents")
            else:
                return value

    def _base(self) -> Value:
        token = self._take()
        if token.kind == "number":
            return self._number(token)
        if token.text in _OPENING:
            value = self.expression()
            self._expect(_OPENING[token.text])
            return value
        if token.text == "|":
            return self._absolute("|")
        if token.kind == "word":
            return self._word(token)
        if token.kind == "command":
            return self._command(token.text[1:])
        raise UnreadableError(token.text)

    def _absolute(self, closing: str) -> Value:
        self._bars += 1
        value = self.expression()
        self._bars -= 1
        self._expect(closing)
        return self._arithmetic.function("abs", value)

    # -- numbers -----------------------------------------------------------------------------------------------------

    def _number(self, token: Token) -> Value:
        if self._is("_"):
            self._take()
            return self._in_base(token.text)
        value = _plain(token.text)
        part = self._mixed_part() if token.text.isdigit() else None
        return value if part is None else rational((value.number or Fraction(0)) + part)

    def _in_base(self, digits: str) -> Value:
        base = self._argument(whole_number=True).integer
        if base is None or not 2 <= base <= 10 or not digits.isdigit() or any(int(d) >= base for d in digits):
            raise UnreadableError("no number of this base")
        self.bases.append(base)
        return rational(int(digits, base))

    def _mixed_part(self) -> Fraction | None:
        r"""The proper fraction of a mixed number, `1\frac{4}{5}` or `1 4/5`."""
        following = self._tokens[self._at : self._at + 7]
        spelled = "".join(token.text for token in following)
        match = re.match(r"\\frac(?:\{([0-9]+)\}|([0-9]))(?:\{([0-9]+)\}|([0-9])(?![0-9]))", spelled)
        if match is None:
            if len(following) >= 3 and following[0].spaced and not following[1].spaced:
                match = re.match(r"([0-9]+)()/([0-9]+)()(?![0-9.])", spelled)
            if match is None:
                return None
        above, below = int(match.group(1) or match.group(2)), int(match.group(3) or match.group(4))
        if not 0 < above < below:
            return None
        used = 0
        while used < match.end():
            used += len(self._take().text)
        return Fraction(above, below)

    # -- names and commands ------------------------------------------------------------------------------------------

    def _word(self, token: Token) -> Value:
        word = token.text
        if word in _PLAIN_WORDS:
            return self._command(_SAME_FUNCTION.get(word, word))
        if len(word) > 3:
            raise UnreadableError(word)
        value = ONE_VALUE
        for letter in word[:-1]:
            value = self._arithmetic.multiply(value, self._letter(letter))
        last = self._letter(word[-1])
        if self._is("^"):  # only the last letter is raised: xy^2
            self._take()
            last = self._arithmetic.power(last, self._argument(whole_number=True))
        return self._arithmetic.multiply(value, last)

    def _letter(self, letter: str) -> Value:
        name = self._with_subscript(letter)
        self.letters.add(name)
        return {"e": E_VALUE, "i": I_VALUE}.get(name) or variable(name)

    def _with_subscript(self, name: str) -> str:
        if self._is("_"):
            self._take()
            if not self._is("{"):
                return f"{name}_{self._take().text}"
            start, depth = self._at, 0
            while True:
                text = self._take().text
                depth += (text == "{") - (text == "}")
                if depth == 0:
                    break
            name = f"{name}_{''.join(t.text for t in self._tokens[start + 1 : self._at - 1])}"
        while self._is("'"):
            name += self._take().text
        return name

    def _command(self, name: str) -> Value:
        simple: dict[str, Callable[[], Value]] = {
            "frac": self._fraction,
            "sqrt": self._root,
            "binom": lambda: binomial(self._argument(), self._argument()),
            "log": self._log,
            "lg": lambda: self._log(),
            "lvert": lambda: self._absolute("\\rvert"),
            "lfloor": lambda: self._rounded("\\rfloor", -1),
            "lceil": lambda: self._rounded("\\rceil", 1),
        }
        if name in simple:
            return simple[name]()
        if name in _FUNCTIONS:
            return self._function(lambda argument: self._arithmetic.function(name, argument))
        if name == "pi":
            return PI_VALUE
        if name in _GREEK:
            return self._letter(f"\\{name}")
        raise UnreadableError(name)

    def _argument(self, whole_number: bool = False) -> Value:
        """A group or one token; of a number its first digit, as TeX reads it, or all of it (`whole_number`)."""
        token = self._take()
        if token.text == "{":
            with self._deeper():
                value = self.expression()
            self._expect("}")
            return value
        if token.kind == "number" and not whole_number:
            if len(token.text) > 2 or not token.text.isdigit():
                raise UnreadableError("which digits?")
            if len(token.text) == 2:
                self._at -= 1
                self._tokens[self._at] = Token("number", token.text[1], False)
            return rational(int(token.text[0]))
        if token.kind == "number":
            return _plain(token.text)
        if token.text == "-" and whole_number:  # x^-2
            return self._arithmetic.negative(self._argument(whole_number=True))
        self._at -= 1
        if token.kind == "word" and len(token.text) > 1 and token.text not in _PLAIN_WORDS:
            raise UnreadableError("which letters?")
        with self._deeper():
            return self._base()

    def _fraction(self) -> Value:
        above = self._argument()
        return self._arithmetic.divide(above, self._argument())

    def _root(self) -> Value:
        degree = 2
        if self._is("["):
            self._take()
            index = self.expression().integer
            self._expect("]")
            if index is None or not 2 <= index <= 64:
                raise UnreadableError("root")
            degree = index
        token = self._peek()
        if token is not None and token.kind == "number" and len(token.text) > 1:
            raise UnreadableError("which digits?")
        return self._arithmetic.root(self._argument(), degree)

    def _rounded(self, closing: str, direction: int) -> Value:
        number = self.expression().number
        self._expect(closing)
        if number is None:
            return Value(None, None)
        return rational(number.__floor__() if direction < 0 else number.__ceil__())

    def _log(self) -> Value:
        base: Value | None = None
        if self._is("_"):
            self._take()
            base = self._argument(whole_number=True)
        else:
            self.bare_log = True
        ln = lambda value: self._arithmetic.function("ln", value)  # noqa: E731
        below = ln(base or rational(10))
        return self._function(lambda argument: self._arithmetic.divide(ln(argument), below))

    def _function(self, apply: Callable[[Value], Value]) -> Value:
        r"""`\sin x`, `\sin 2x`, `\sin^2 x`, `\sin(x)`; the argument ends where a sign or another function begins."""
        exponent: Value | None = None
        if self._is("^"):
            self._take()
            exponent = self._argument(whole_number=True)
            if exponent.integer == -1:
                raise UnreadableError("an inverse function or a reciprocal?")
        self._angles += 1
        with self._deeper():
            if self._is("(", "[", "{"):
                argument = self._base()
            else:
                argument = self._factor()
                while self._continues() and not self._at_function():
                    argument = self._arithmetic.multiply(argument, self._factor())
        self._angles -= 1
        value = apply(argument)
        return value if exponent is None else self._arithmetic.power(value, exponent)

    def _at_function(self) -> bool:
        token = self._peek()
        name = token.text.lstrip("\\") if token else ""
        return name in _FUNCTIONS or name in ("log", "lg")
