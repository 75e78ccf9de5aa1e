"""Where the answer stands in a text, and what number it is if it is a plain one: linear time, no float."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_ANSWER = 300
"""Characters of an answer; a longer one is wrong unread."""
MAX_GOLD = 2000
"""Characters of a gold answer; a longer one cannot be graded."""
MAX_BOXES = 8
"""Different boxes of one completion; more are contradictory unread."""

_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_TAGS = re.compile(r"</?answer>")


@dataclass(frozen=True, slots=True)
class Extracted:
    """The answers that a completion gives, the last one first, each once; or none and the reason why."""

    answers: tuple[str, ...] = ()
    reason: str = ""


def extract(completion: str) -> Extracted:
    """The answer of a completion: its boxes after the reasoning, else its last `<answer>` tag.

    Reasons for none: `unfinished_reasoning` (a `<think>` that never closes), `no_answer`, `too_long`,
    `contradictory` (more different boxes than can be checked).
    """
    body = completion.rpartition("</think>")[2]
    if "<think>" in body:
        return Extracted(reason="unfinished_reasoning")
    found = boxes(body)
    if not found:
        tag = _last_tag(body)
        found = [] if tag is None else [tag]
    answers = tuple(dict.fromkeys(text for text in (clean(a) for a in reversed(found)) if text))
    if not answers:
        return Extracted(reason="no_answer")
    if max(map(len, answers)) > MAX_ANSWER:
        return Extracted(reason="too_long")
    if len(answers) > MAX_BOXES:
        return Extracted(reason="contradictory")
    return Extracted(answers)


def gold_answer(gold: str) -> str:
    """The answer in a data set's column: what follows `####` (GSM8K), else the last box, else the whole text."""
    _, marker, after = gold.rpartition("####")
    if marker:
        return clean(after)
    found = boxes(gold)
    return clean(found[-1]) if found else clean(gold)


def boxes(text: str) -> list[str]:
    r"""Contents of the balanced `\boxed{}` and `\fbox{}`, in order; of nested ones the outermost balanced one."""
    stack: list[tuple[bool, int, int]] = []
    spans: list[tuple[int, int, int]] = []
    for match in _BRACES.finditer(text):
        token = match.group()
        if token == "{":
            stack.append((False, match.start(), match.end()))
        elif token == "}":
            if stack:
                boxed, start, inside = stack.pop()
                if boxed:
                    while spans and spans[-1][0] > start:
                        spans.pop()
                    spans.append((start, inside, match.start()))
        elif token.endswith("{") and len(token) > 2:
            stack.append((True, match.start(), match.end()))
    return [text[inside:end] for _, inside, end in spans]


def _last_tag(text: str) -> str | None:
    start: int | None = None
    last: str | None = None
    for match in _TAGS.finditer(text):
        if match.group() == "<answer>":
            start = match.end()
        elif start is not None:
            last, start = text[start : match.start()], None
    return last


_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_DROPPED = re.compile(r"\\left(?![a-zA-Z])|\\right(?![a-zA-Z])|\\!|\\displaystyle(?![a-zA-Z])")
_SPACES = re.compile(r"\\[,;: ]|[\s~\u00a0\u2009\u202f]+")
_LOOSE = re.compile(r"(?<![0-9A-Za-z]) +| +(?![0-9A-Za-z])")


def clean(text: str) -> str:
    """The text without what only dresses it: spaces around it, dollar signs, nested boxes, a full stop."""
    text = text.strip()
    for _ in range(4):
        before = text
        text = text.rstrip(".").strip() if not text.endswith("..") else text
        for opening, closing in _WRAPPERS:
            if len(text) > len(opening + closing) and text.startswith(opening) and text.endswith(closing):
                inner = text[len(opening) : -len(closing)]
                if "$" not in inner.replace(r"\$", "") and not inner.endswith("\\"):
                    text = inner.strip()
        whole = re.fullmatch(r"\\(?:boxed|fbox)\s*\{(.*)\}", text, re.DOTALL) if len(text) < 2 * MAX_GOLD else None
        if whole and boxes(text) == [whole.group(1)]:
            text = whole.group(1).strip()
        if text == before:
            break
    return text


def canonical(text: str) -> str:
    r"""One spelling for texts that differ only in spacing, `\left` and `\right`, or `\dfrac` for `\frac`."""
    text = re.sub(r"\\[dt]frac(?![a-zA-Z])", r"\\frac", _DROPPED.sub("", text))
    return _LOOSE.sub("", _SPACES.sub(" ", text).strip())


_NUMBER = r"(?:[0-9]+(?:,[0-9]{3})*(?:\.[0-9]*)?|\.[0-9]+)"
_SIGNED = re.compile(rf"([+-]?)({_NUMBER})")
_SLASH = re.compile(rf"([+-]?)({_NUMBER})/({_NUMBER})")
_FRAC = re.compile(rf"([+-]?)\\frac(?:\{{([+-]?)({_NUMBER})\}}|([0-9]))(?:\{{([+-]?)({_NUMBER})\}}|([0-9]))")
_GROUPED = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?")


def rational(text: str) -> Fraction | None:
    r"""The exact value of an integer (`-1,234`), a decimal (`0.50`) or a simple fraction (`3/4`, `\frac{3}{4}`).

    None for everything else, a zero denominator, wrongly grouped commas and more than `MAX_ANSWER` characters included.
    """
    if len(text) > MAX_ANSWER:
        return None
    text = canonical(text).replace("{,}", ",").replace("\u2212", "-").rstrip(".")
    if match := _SIGNED.fullmatch(text):
        sign, number = match.groups()
        return _ratio((sign,), number, "1")
    if match := _SLASH.fullmatch(text):
        sign, above, below = match.groups()
        return _ratio((sign,), above, below)
    if match := _FRAC.fullmatch(text):
        sign, sign_above, above, digit_above, sign_below, below, digit_below = match.groups()
        return _ratio((sign, sign_above, sign_below), above or digit_above, below or digit_below)
    return None


def _ratio(signs: tuple[str | None, ...], above: str, below: str) -> Fraction | None:
    if any("," in number and not _GROUPED.fullmatch(number) for number in (above, below)):
        return None
    numerator, denominator = (Fraction(number.replace(",", "").rstrip(".")) for number in (above, below))
    if denominator == 0:
        return None
    negative = sum(sign == "-" for sign in signs) % 2
    return -numerator / denominator if negative else numerator / denominator
