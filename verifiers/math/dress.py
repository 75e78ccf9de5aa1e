r"""What only dresses an answer: dollar signs, spacing, `\left`, `\dfrac`, units, a full stop. All in linear time."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

MAX_DRESS = 4000
"""Characters of a text whose nested boxes are looked for."""

_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_SPECIAL = re.compile(r"(?:<\|[A-Za-z_]{1,30}\|>|</s>)$")
_DROPPED = re.compile(
    r"\\(?:left|right)\.|\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits)(?![a-zA-Z])|\\!"
)
_SPACES = re.compile(r"(?<!\\)\\[,;: ]|\\q?quad(?![a-zA-Z])|[\s~\u00a0\u2009\u202f]+")
_LOOSE = re.compile(r"(?<![0-9A-Za-z]) +| +(?![0-9A-Za-z])")
_FRAC = re.compile(r"\\[dtc]frac(?![a-zA-Z])")


def clean(text: str) -> str:
    """The text without spaces around it, dollar signs, a box around all of it, a full stop, a model's end token."""
    text = text.strip()
    for _ in range(4):
        before = text
        text = _SPECIAL.sub("", text).strip()
        text = text if text.endswith("..") else text.removesuffix(".").strip()
        for opening, closing in _WRAPPERS:
            if len(text) > len(opening + closing) and text.startswith(opening) and text.endswith(closing):
                inner = text[len(opening) : -len(closing)]
                if "$" not in inner.replace(r"\$", "") and not inner.endswith("\\"):
                    text = inner.strip()
        if text == before:
            break
    return text


def canonical(text: str) -> str:
    r"""One spelling for texts that differ only in spacing, `\left` and `\right`, or `\dfrac` for `\frac`."""
    text = _FRAC.sub(r"\\frac", _DROPPED.sub("", text))
    return _LOOSE.sub("", _SPACES.sub(" ", text).strip())


_LETTERS = {
    "\u2212": "-", "\u2013": "-", "\u00d7": r"\times ", "\u00b7": r"\cdot ", "\u22c5": r"\cdot ", "\u00f7": "/",
    "\u03c0": r"\pi ", "\u221e": r"\infty ", "\u221a": r"\sqrt ", "\u00b0": r"\degree ", "\u2264": r"\le ",
    "\u2265": r"\ge ", "\u2260": r"\ne ", "\u222a": r"\cup ", "\u2208": r"\in ", "\u00b1": r"\pm ", "\u2213": r"\mp ",
    "\u00b2": "^2", "\u00b3": "^3", "\u03b8": r"\theta ", "\u00bd": r"\frac{1}{2}", "\u2032": "'",
}  # fmt: skip
_UNICODE = re.compile("|".join(_LETTERS))
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r",\\!\s*", "{,}"),
        (r"\{\s*,\s*\}(?=\s*[0-9])\s*", "{,}"),
        (r"\\d?t?binom(?![a-zA-Z])", r"\\binom"),
        (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degrees?(?![a-zA-Z])", r"\\degree "),
        (r"\\lbrace(?![a-zA-Z])", r"\\{"),
        (r"\\rbrace(?![a-zA-Z])", r"\\}"),
        (r"\\(?:mid|vert)(?![a-zA-Z])", "|"),
        (r"\\colon(?![a-zA-Z])", ":"),
        (r"\\ast(?![a-zA-Z])|\\star(?![a-zA-Z])", "*"),
        (r"\*\*", "^"),
        (r"\\varnothing(?![a-zA-Z])", r"\\emptyset"),
        (r"\\mathbb\s*\{?\s*([A-Z])\s*\}?", r"\\mathbb{\1}"),
        (r"\\h?space\s*\{[^{}]*\}", " "),
        (r"\\prime(?![a-zA-Z])", "'"),
        (r"\\mathopen|\\mathclose|\\mathrel|\\mathbin", ""),
    )
)
_REPEATING = re.compile(r"([0-9]*)\.([0-9]*)\\(?:overline|bar)\s*\{([0-9]+)\}")


@lru_cache(maxsize=1024)
def normalise(text: str) -> str:
    """One spelling of symbols and spacing, for the readers in this folder."""
    text = _UNICODE.sub(lambda match: _LETTERS[match.group()], text)
    for pattern, replacement in _REWRITES:
        if "\\" in text or "*" in text or "{" in text:
            text = pattern.sub(replacement, text)
    text = _FRAC.sub(r"\\frac", _DROPPED.sub("", text))
    text = _REPEATING.sub(_repeated, text)
    if len(_DOLLAR.findall(text)) % 2 == 0:  # formulas within prose; a single one is a currency
        text = _DOLLAR.sub("", text)
    return _SPACES.sub(" ", text).strip()


def _repeated(match: re.Match[str]) -> str:
    r"""`0.1\overline{6}` as a fraction."""
    whole, fixed, cycle = match.groups()
    value = Fraction(int(whole or "0") * 10 ** len(fixed) + int(fixed or "0"), 10 ** len(fixed))
    value += Fraction(int(cycle), (10 ** len(cycle) - 1) * 10 ** len(fixed))
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


_DOLLAR = re.compile(r"(?<!\\)\$")
_KNOWN_UNITS = {
    "centimeter": "cm", "centimetre": "cm", "millimeter": "mm", "millimetre": "mm", "kilometer": "km",
    "kilometre": "km", "meter": "m", "metre": "m", "inch": "in", "inche": "in", "foot": "ft", "feet": "ft",
    "yard": "yd", "mile": "mi", "gram": "g", "kilogram": "kg", "pound": "lb", "lbs": "lb", "ounce": "oz",
    "second": "s", "sec": "s", "minute": "min", "hour": "h", "hr": "h", "hrs": "h", "day": "day", "week": "week",
    "liter": "l", "litre": "l", "milliliter": "ml", "dollar": "dollar", "usd": "dollar", "cent": "cent",
    "degree": "degree", "deg": "degree", "rad": "radian", "radian": "radian", "mph": "mph",
}  # fmt: skip
_SHORT_UNITS = {*_KNOWN_UNITS.values(), *_KNOWN_UNITS} - {"m", "g", "h", "s", "l", "in"}
_TEXT = r"\\(?:text|mbox|textrm|textbf|textit|mathrm|rm)\s*\{[^{}0-9=+<>]*\}"
_UNIT = re.compile(
    rf"\s*+(?P<unit>(?:(?:{_TEXT}|(?<![A-Za-z\\_])[A-Za-z]{{2,}}+)(?:\s*\^\s*(?:[0-9]|\{{\s*-?[0-9]\s*\}}))?\s*+(?:[/*]\s*+)?)+)$"
)
_DEGREES = re.compile(r"\s*\\degree\s*(?:\\?[CF])?$")
_OF_AN_ANGLE = re.compile(r"sin|cos|tan|cot|sec|csc")
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\s*\{\s*(?:percent|\\?%)\s*\}|(?<![A-Za-z])(?:percent(?:age)?|pct))$")
_CURRENCY = re.compile(r"^([+-]?)\s*(?:\\?\$|\\textdollar|\\text\s*\{\s*\\?\$\s*\}|\\mathdollar)\s*")
_CURRENCY_AFTER = re.compile(r"(?<=[0-9])\s*(?:\\?\$)$")
_NO_UNITS = {
    "e",
    "i",
    "x",
    "sqrt",
    "theta",
    "alpha",
    "beta",
    "sin",
    "cos",
    "tan",
    "log",
    "exp",
    "infinity",
    "infty",
    "none",
}


def split_unit(text: str) -> tuple[str, str]:
    """A normalised text without the unit at its end (or currency at its start), and that unit in one spelling.

    `%` is the unit of a percentage. A word of four letters or more, or in a text group, is taken for a unit; the
    variables of an expression are not.
    """
    currency = _CURRENCY.match(text)
    if currency:
        return currency.group(1) + _PERCENT.sub("", text[currency.end() :]), "dollar"
    if match := _CURRENCY_AFTER.search(text):
        return text[: match.start()], "dollar"
    if match := _PERCENT.search(text):
        return text[: match.start()], "%"
    if (match := _DEGREES.search(text)) and not _OF_AN_ANGLE.search(text):
        return text[: match.start()], "degree"
    match = _UNIT.search(text)
    if match is None or not text[: match.start()].strip():
        return text, ""
    unit = match.group("unit")
    plain = re.findall(r"[A-Za-z]+", re.sub(_TEXT, " ", unit))
    inside = [word.lower() for word in re.findall(r"[A-Za-z]+", re.sub(r"\\[a-z]+", " ", unit))]
    if any(word in _NO_UNITS for word in inside) or not inside:
        return text, ""
    if any(
        len(word) < 4 and word.lower().rstrip("s") not in _SHORT_UNITS and word.lower() not in _SHORT_UNITS
        for word in plain
    ):
        return text, ""
    return text[: match.start()], _one_unit(unit)


def _one_unit(unit: str) -> str:
    r"""Words in the singular and short, powers as digits: `square inches` and `\mbox{inches}^2` are `in2`."""
    words = re.findall(r"[A-Za-z]+|/|[0-9]", re.sub(r"\\[a-z]+", " ", unit).lower())
    spelled: list[str] = []
    power = ""
    for word in words:
        if word in ("square", "sq", "cubic"):
            power = "3" if word == "cubic" else "2"
        elif word == "per":
            spelled.append("/")
        elif word not in ("unit", "units"):
            short = _KNOWN_UNITS.get(word) or _KNOWN_UNITS.get(word.removesuffix("s"))
            spelled.append((short or (word.removesuffix("s") if len(word) > 3 else word)) + power)
            power = ""
    joined = "".join(spelled)
    return "" if joined.isdigit() else joined


def letters_of(text: str) -> str:
    r"""The letters of a text without `\text` and such, in one case unless it is a single letter: `(C)` is `C`."""
    letters = "".join(re.findall(r"[^\W\d_]+", re.sub(r"\\[a-zA-Z]+", " ", text)))
    return letters if len(letters) == 1 else letters.casefold()
