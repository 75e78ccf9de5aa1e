r"""Plain numbers, exactly: integers (`-1,234`), decimals (`0.50`), fractions (`3/4`), mixed (`1\frac{1}{2}`)."""

from __future__ import annotations

import re
from fractions import Fraction

from .dress import canonical

MAX_LENGTH = 400
"""Characters of a number."""

_NUMBER = r"(?:[0-9]+(?:,[0-9]{3})*(?:\.[0-9]*)?|\.[0-9]+)"
_PLAIN = re.compile(rf"([+-]?)({_NUMBER})")
_SLASH = re.compile(rf"([+-]?)({_NUMBER})/({_NUMBER})")
_FRACTION = re.compile(rf"([+-]?)\\frac(?:\{{([+-]?)({_NUMBER})\}}| ?([0-9]))(?:\{{([+-]?)({_NUMBER})\}}| ?([0-9]))")
_MIXED = re.compile(
    r"([+-]?)([0-9]+)(?: ([0-9]+)/([0-9]+)| ?\\frac(?:\{([0-9]+)\}| ?([0-9]))(?:\{([0-9]+)\}| ?([0-9])))"
)
_LISTED = re.compile(r",(?:\s|\\[,;: ])")
"""A space after a comma makes a list: `1,234` is one number, `1, 234` two; `1,\\! 234` is one."""
_GROUPED = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?")


def rational(text: str) -> Fraction | None:
    """The exact value of a plain number.

    None for everything else, a zero denominator, wrongly grouped commas and more than `MAX_LENGTH` characters included.
    """
    if len(text) > MAX_LENGTH or _LISTED.search(text):
        return None
    text = canonical(text).replace("{,}", ",").replace("\u2212", "-")
    if match := _PLAIN.fullmatch(text):
        sign, number = match.groups()
        return _ratio((sign,), number, "1")
    if match := _SLASH.fullmatch(text):
        sign, above, below = match.groups()
        return _ratio((sign,), above, below)
    if match := _FRACTION.fullmatch(text):
        sign, sign_above, above, digit_above, sign_below, below, digit_below = match.groups()
        return _ratio((sign, sign_above, sign_below), above or digit_above, below or digit_below)
    if match := _MIXED.fullmatch(text):
        return _mixed(*match.groups())
    return None


def _ratio(signs: tuple[str | None, ...], above: str, below: str) -> Fraction | None:
    if any("," in number and not _GROUPED.fullmatch(number) for number in (above, below)):
        return None
    numerator, denominator = (Fraction(number.replace(",", "").rstrip(".")) for number in (above, below))
    if denominator == 0:
        return None
    negative = sum(sign == "-" for sign in signs) % 2
    return -numerator / denominator if negative else numerator / denominator


def _mixed(sign: str, whole: str, *parts: str | None) -> Fraction | None:
    """A whole number and a proper fraction; `2\\frac{5}{3}` is none."""
    above, below = (int(part) for part in parts if part is not None)
    if not 0 < above < below:
        return None
    value = int(whole) + Fraction(above, below)
    return -value if sign == "-" else value


def grouped(text: str, comma: int) -> bool:
    """Whether the comma at this place stands within a number: 1,234 but neither 1,23 nor 1, 234."""
    before = re.search(r"(?<![0-9.])[0-9]{1,3}(?:,[0-9]{3})*$", text[:comma])
    return before is not None and re.match(r"[0-9]{3}(?![0-9])", text[comma + 1 :]) is not None
