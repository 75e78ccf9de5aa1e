"""Where the answer stands in a text, in one pass over it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .dress import clean

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
    answers = tuple(dict.fromkeys(text for text in (unboxed(a) for a in reversed(found)) if text))
    if not answers:
        return Extracted(reason="no_answer")
    if max(map(len, answers)) > MAX_ANSWER:
        return Extracted(reason="too_long")
    if len(answers) > MAX_BOXES:
        return Extracted(reason="contradictory")
    return Extracted(answers)


def unboxed(text: str) -> str:
    """A cleaned text, without a box around all of it."""
    text = clean(text)
    for _ in range(4):
        found = boxes(text) if text.startswith(("\\boxed", "\\fbox")) else []
        if len(found) != 1 or not text.endswith("}") or len(found[0]) < len(text) - 10:
            break
        text = clean(found[0])
    return text


def gold_answer(gold: str) -> str:
    """The answer in a data set's column: what follows `####` (GSM8K), else the last box, else the whole text."""
    _, marker, after = gold.rpartition("####")
    if marker:
        return unboxed(after)
    found = boxes(gold)
    return unboxed(found[-1]) if found else unboxed(gold)


def boxes(text: str) -> list[str]:
    r"""Contents of the balanced `\boxed{}` and `\fbox{}`, in order; of nested ones the outermost balanced one."""
    stack: list[tuple[bool, int, int]] = []
    spans: list[tuple[int, int, int]] = []
    first = min((at for at in (text.find("\\boxed"), text.find("\\fbox")) if at >= 0), default=len(text))
    for match in _BRACES.finditer(text, first):
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
