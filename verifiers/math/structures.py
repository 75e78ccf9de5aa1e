r"""Reads an answer as what it is: a value, a list, tuple, set, union of intervals, matrix, relation or a word.

`x=2 \text{ or } x=-3`, `(-\infty,2)\cup(3,\infty)`, `\{1\pm\sqrt5,-2\}`, `864\mbox{ inches}^2`, `\text{(B)}`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .dress import clean, letters_of, normalise, split_unit
from .latex import Reading, UnreadableError, read_expression
from .numbers import grouped
from .numbers import rational as plain_number
from .values import INFINITE, Arithmetic, UndefinedError, Value, rational

MAX_ITEMS = 24
"""Items of a list, entries of a row, rows of a matrix."""
MAX_NESTING = 4
"""Structures within structures."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value, and what of its spelling matters."""

    value: Value
    text: str
    bases: tuple[int, ...] = ()
    bare_log: bool = False
    letters: frozenset[str] = frozenset()
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Items in brackets; the kind is `list` (no brackets), `set`, the two brackets, `()`, `[)` ..., or `:` (ratio)."""

    kind: str
    items: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Union:
    """A union of intervals or sets."""

    parts: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of values."""

    rows: tuple[tuple[Answer, ...], ...]


@dataclass(frozen=True, slots=True)
class Relation:
    """A chain of sides with the signs between them; `name` is the left side's spelling if that only names something."""

    sides: tuple[Answer, ...]
    signs: tuple[str, ...]
    name: str = ""


@dataclass(frozen=True, slots=True)
class Word:
    """An answer in letters."""

    letters: str


@dataclass(frozen=True, slots=True)
class Undefined:
    """A division by zero: equal to nothing."""


Answer = Scalar | Group | Union | Matrix | Relation | Word | Undefined


def read(text: str, as_list: bool = False) -> Answer | None:
    """The answer that a text spells; None if it is not known here. `as_list`: `1,234` are two numbers."""
    try:
        return _Structure(as_list).answer(normalise(text), 0)
    except (UnreadableError, RecursionError):
        return None
    except UndefinedError:
        return Undefined()


_AND = re.compile(
    r"\\(?:text|mbox|textrm|mathrm)\s*\{\s*,?\s*(?:and|or|,)\s*\}|\s+(?:and|or)\s+|\\(?:lor|land|vee|wedge)(?![a-zA-Z])"
)
_MEMBER = re.compile(r"^\s*\\?[a-zA-Z]+(?:_\{?\w+\}?)?\s*\\in(?![a-zA-Z])")
_PROSE = re.compile(
    r"^(?![A-Z ]*\b(?:not|no|never)\b)[A-Z][A-Z ]*"
    r"(?:\s(?:is|are|equals)(?:\s*:)?\s|(?:answer|result|solution|value|total)s?:\s)(?=.)",
    re.IGNORECASE,
)
_SIGNS = re.compile(r"\\(?:leq?|geq?|neq?|lt|gt|leqslant|geqslant)(?![a-zA-Z])|<=|>=|[=<>]")
_SAME_SIGN = {
    r"\le": "<=", r"\leq": "<=", r"\leqslant": "<=", r"\ge": ">=", r"\geq": ">=", r"\geqslant": ">=",
    r"\lt": "<", r"\gt": ">", r"\ne": "!=", r"\neq": "!=",
}  # fmt: skip
_NAME = re.compile(
    r"\s*(?:\(\s*[A-Za-z]\w{0,3}(?:\s*,\s*[A-Za-z]\w{0,3})*\s*\)|\|[A-Za-z]{1,3}\|)\s*"
    r"|\s*(?:\\(?:angle|triangle|overline|vec|overrightarrow|measuredangle)\s*)?\{?"
    r"(?:[A-Za-z]{1,3}|\\[a-z]+)\}?(?:_(?:\{\w+\}|\w))?'*(?:\s*\(\s*[-\w,+\s]{1,20}\s*\))?\s*"
)
_MATRIX = re.compile(r"\\begin\{([pbvBV]?matrix|array)\}(?:\{[lcr|]*\})?(.*)\\end\{\1\}", re.DOTALL)
_WORDS = re.compile(
    r"\s*\(?\s*(?:\\(?:text|mbox|textbf|textrm|mathrm|textit)\s*\{[^{}]*\}|[A-Za-z]{4,}+|\s|[-.,'])+\s*\)?\s*"
)


@dataclass(slots=True)
class _Structure:
    as_list: bool
    arithmetic: Arithmetic = field(default_factory=Arithmetic)

    def answer(self, text: str, depth: int) -> Answer:
        """The answer in a normalised text."""
        text = _ungrouped(text)
        if depth > MAX_NESTING:
            raise UnreadableError("nested")
        if depth == 0:
            text = clean(_PROSE.sub("", text))
            text = _AND.sub(",", text)
            text = re.sub(r",(?:\s*,)+", ",", text)
        parts = split(text, ",;", keep_grouped=depth == 0 and not self.as_list)
        if len(parts) > 1:
            return self._list(parts, depth)
        member = _MEMBER.match(text)
        if member:
            return self.answer(text[member.end() :], depth + 1)
        pieces = split(text, "\\cup")
        if len(pieces) > 1:
            return Union(tuple(self._piece(piece, depth) for piece in pieces))
        if _SIGNS.search(text):
            return self._relation(text, depth)
        return self._single(text, depth)

    def _list(self, parts: list[str], depth: int) -> Answer:
        items: list[Answer] = []
        for part in parts:
            item = self.answer(part, depth + 1)
            items += item.items if isinstance(item, Group) and item.kind == "list" else [item]
        return Group("list", tuple(items))

    def _piece(self, text: str, depth: int) -> Answer:
        piece = self.answer(text, depth + 1)
        if not isinstance(piece, Group) or piece.kind in ("list", ":"):
            raise UnreadableError("no interval")
        return piece

    def _relation(self, text: str, depth: int) -> Answer:
        sides = split_signs(text)
        signs = tuple(_SAME_SIGN.get(sign, sign) for sign in sides[1::2])
        texts = sides[::2]
        name = ""
        if signs[0] == "=" and _NAME.fullmatch(texts[0]):
            name = re.sub(r"[\s{}]", "", texts[0])
        first = self._named(texts[0], depth) if name else self.answer(texts[0], depth + 1)
        return Relation((first, *(self.answer(side, depth + 1) for side in texts[1:])), signs, name)

    def _named(self, text: str, depth: int) -> Answer:
        """A left side that may be a name without a value, such as an angle."""
        try:
            return self.answer(text, depth + 1)
        except UnreadableError:
            return Word(letters_of(text))

    def _single(self, text: str, depth: int) -> Answer:
        if _WORDS.fullmatch(text) and not re.search("[0-9]", text) and (word := letters_of(text)):
            if len(word) > 1:
                return Word(word)
            text = word
        body, unit = split_unit(text)
        body = body.strip()
        if "\\pm" in body or "\\mp" in body:
            return self._both(body, unit, depth)
        number = plain_number(body)
        if number is not None:
            return Scalar(rational(number), body, unit=unit)
        match = _MATRIX.fullmatch(body)
        if match:
            return self._matrix(match.group(2), depth)
        infinite = re.fullmatch(r"([+-]?)\s*\\infty", body)
        if infinite:
            value = self.arithmetic.negative(INFINITE) if infinite.group(1) == "-" else INFINITE
            return Scalar(value, body)
        bracketed = self._bracketed(body, depth)
        if bracketed is not None:
            return bracketed
        ratio = split(body, ":")
        if len(ratio) > 1:
            return Group(":", tuple(self.answer(part, depth + 1) for part in ratio))
        return _scalar(read_expression(body), body, unit)

    def _both(self, body: str, unit: str, depth: int) -> Answer:
        if body.count("\\pm") > 1 or ("\\mp" in body and "\\pm" not in body):
            raise UnreadableError("which signs?")
        one = body.replace("\\pm", "+").replace("\\mp", "-")
        other = body.replace("\\pm", "-").replace("\\mp", "+")
        return Group("list", tuple(_with_unit(self.answer(text, depth + 1), unit) for text in (one, other)))

    def _bracketed(self, body: str, depth: int) -> Answer | None:
        """What stands in one pair of brackets: a set, a tuple or an interval; None if the brackets only group."""
        opening = next((b for b in ("\\{", "(", "[", "{") if body.startswith(b)), "")
        closing = next((b for b in ("\\}", ")", "]", "}") if body.endswith(b)), "")
        inner = body[len(opening) : len(body) - len(closing)]
        if not opening or not closing or not inner.strip() or not _balanced(inner):
            return None
        parts = split(inner, ",;")
        if opening == "\\{" or closing == "\\}":
            if (opening, closing) != ("\\{", "\\}"):
                return None
            return Group("set", self._items(parts, depth))
        if (opening == "{") != (closing == "}"):
            return None
        if len(parts) == 1:
            return None
        return Group("set" if opening == "{" else opening + closing, self._items(parts, depth))

    def _items(self, parts: list[str], depth: int) -> tuple[Answer, ...]:
        listed: list[Answer] = []
        for part in parts:
            item = self.answer(part, depth + 1)
            listed += item.items if isinstance(item, Group) and item.kind == "list" else [item]
        return tuple(listed)

    def _matrix(self, body: str, depth: int) -> Answer:
        rows = [row for row in split(body, "\\\\") if row.strip()]
        if len(rows) > MAX_ITEMS:
            raise UnreadableError("too many rows")
        return Matrix(tuple(tuple(self.answer(cell, depth + 1) for cell in split(row, "&")) for row in rows))


def _scalar(reading: Reading, text: str, unit: str) -> Scalar:
    return Scalar(reading.value, text, tuple(reading.bases), reading.bare_log, frozenset(reading.letters), unit)


def _with_unit(answer: Answer, unit: str) -> Answer:
    if isinstance(answer, Scalar) and unit:
        return Scalar(answer.value, answer.text, answer.bases, answer.bare_log, answer.letters, unit)
    return answer


def _ungrouped(text: str) -> str:
    """The text without brackets around all of it that only group."""
    while len(text) > 2 and text[0] + text[-1] in ("()", "{}", "[]") and _balanced(text[1:-1]):
        inner = text[1:-1].strip()
        if not inner or re.search(r"[,;]", inner):
            break
        text = inner
    return text


_BRACKET = re.compile(r"\\begin\{|\\end\{|\\\{|\\\}|[()\[\]{}]")
# What a bracket adds to the depth: \begin{ opens the environment and its name's brace, \end{ closes one and opens one.
_STEP = {"\\begin{": 2, "\\end{": 0, "\\{": 1, "(": 1, "[": 1, "{": 1, "\\}": -1, ")": -1, "]": -1, "}": -1}


def _balanced(text: str) -> bool:
    """Whether no bracket in it closes one from before it."""
    depth = 0
    for match in _BRACKET.finditer(text):
        depth += _STEP[match.group()]
        if depth < 0:
            return False
    return depth == 0


def split(text: str, at: str, keep_grouped: bool = False) -> list[str]:
    """The parts of a text between separators outside brackets: any of the characters `,;:&`, or one command.

    `keep_grouped`: a comma between groups of three digits, as in 1,234, is part of a number.

    Raises:
        UnreadableError: more than `MAX_ITEMS` parts.
    """
    if at not in text and not (len(at) == 2 and at[0] in ",;" and any(c in text for c in at)):
        return [text]
    pattern = re.escape(at) + ("(?![a-zA-Z])" if at[-1].isalpha() else "") if at.startswith("\\") else f"[{at}]"
    parts, depth, start = [], 0, 0
    for match in re.finditer(rf"(?P<bracket>{_BRACKET.pattern})|(?P<separator>{pattern})|\\.", text, re.DOTALL):
        if match.group("bracket"):
            depth += _STEP[match.group()]
        elif match.group("separator") and depth <= 0 and not (keep_grouped and grouped(text, match.start())):
            parts.append(text[start : match.start()])
            start = match.end()
    parts.append(text[start:])
    if len(parts) > MAX_ITEMS:
        raise UnreadableError("too many items")
    return parts if len(parts) == 1 or parts[-1].strip() else parts[:-1]


def split_signs(text: str) -> list[str]:
    """Sides and the signs between them, alternately; signs within brackets do not count."""
    pieces, depth, start = [], 0, 0
    for match in re.finditer(rf"(?P<bracket>{_BRACKET.pattern})|(?P<sign>{_SIGNS.pattern})", text):
        if match.group("bracket"):
            depth += _STEP[match.group()]
        elif depth == 0:
            pieces += [text[start : match.start()], match.group()]
            start = match.end()
    pieces.append(text[start:])
    if len(pieces) < 3 or not pieces[-1].strip() or len(pieces) > 2 * MAX_ITEMS:
        raise UnreadableError("no relation")
    return pieces
