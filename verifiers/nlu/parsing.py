"""What a completion answers: one label, one number or one text between the tags, or nothing. Linear time, no eval."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

MAX_ANSWER = 200
"""Characters between the tags; a longer text is an essay, not an answer."""
SCALE = (0.0, 5.0)
"""Ends of the scale that a number is clipped to (STS-B)."""

Phrases = Mapping[tuple[str, ...], str]
"""The label that each way of saying it, as casefolded words, stands for."""

_WORD = re.compile(r"[^\W_]+(?:['\-‐][^\W_]+)*")
_NUMBER = re.compile(r"(?<![\w.])[-−]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?!\.?[\w%])")
_NEGATIONS = frozenset({"not", "never", "neither", "nor", "cannot", "without", "hardly", "none", "nothing"})
_DENIALS = frozenset({"no", "false"})
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_INVISIBLE = {"Cf": "", "Cs": "", "Cc": " "}
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class Reading:
    """The answer, or None and why there is none: no_tag, no_label, no_number, no_text, several, negated, too_long."""

    answer: str | None
    why: str = ""


def read_label(completion: str, tag: str, phrases: Phrases) -> Reading:
    """The one label that the completion names, by whole words; words around it are allowed, another label is not.

    A negation voids the answer (`not acceptable`, unless that is itself a way of saying a label), save after a label
    that denies (`No, it is not`).
    """
    return _read(completion, tag, lambda text: _label(text, phrases))


def read_number(completion: str, tag: str) -> Reading:
    """The one number that the completion names, in digits, clipped to `SCALE`; percentages and fractions are none."""
    return _read(completion, tag, _number)


def read_text(completion: str, tag: str) -> Reading:
    """The text between the tags, white space joined, as long as anything is left of it by `normalise`."""
    return _read(completion, tag, lambda text: Reading(text) if normalise(text) else Reading(None, "no_text"))


def normalise(text: str) -> str:
    """Lower case without punctuation, articles and surplus space: how SQuAD and ReCoRD compare texts."""
    return " ".join(_ARTICLES.sub(" ", _plain(text).lower().translate(_PUNCTUATION)).split())


def words(text: str) -> tuple[str, ...]:
    """The casefolded words of a text; hyphens and apostrophes join, all other marks (underscores too) separate."""
    return tuple(_WORD.findall(_plain(text).casefold()))


def spans(completion: str, tag: str) -> list[str] | None:
    """The distinct texts between the tags after the reasoning, or None where no closing tag stands.

    An opening tag that the prompt already holds need not stand in the completion. Of several opening tags the last
    before the closing one counts; what follows the last closing tag does not. Without a tag all the text is one span.
    """
    _, _, body = completion.rpartition("</think>")
    if "<think>" in body:
        return None
    if not tag:
        return [body]
    found: dict[str, None] = {}
    start: int | None = 0
    for match in _tags(tag).finditer(body):
        if not match.group(1):
            start = match.end()
        elif start is not None:
            found[body[start : match.start()]] = None
            start = None
    return list(found) or None


def _read(completion: str, tag: str, one: Callable[[str], Reading]) -> Reading:
    """What `one` reads in each span, if all spans say the same."""
    texts = spans(completion, tag)
    if texts is None:
        return Reading(None, "no_tag")
    first: Reading | None = None
    for text in texts:
        text = text.strip()
        reading = Reading(None, "too_long") if len(text) > MAX_ANSWER else one(" ".join(_plain(text).split()))
        if reading.answer is None:
            return reading
        if first is not None and reading != first:
            return Reading(None, "several")
        first = reading
    assert first is not None
    return first


def _label(text: str, phrases: Phrases) -> Reading:
    said = words(text)
    longest = max(map(len, phrases))
    labels: list[str] = []
    negated = False
    at = 0
    while at < len(said):
        for length in range(min(longest, len(said) - at), 0, -1):
            label = phrases.get(said[at : at + length])
            if label is not None:
                labels.append(label)
                at += length
                break
        else:
            if _negates(said[at]) and not (labels and labels[0].casefold() in _DENIALS):
                negated = True
            at += 1
    if len(set(labels)) != 1:
        return Reading(None, "several" if labels else "no_label")
    return Reading(None, "negated") if negated else Reading(labels[0])


def _number(text: str) -> Reading:
    if any(map(_negates, words(text))):
        return Reading(None, "negated")
    values = {float(number.replace("−", "-")) for number in _NUMBER.findall(text)}
    if len(values) != 1:
        return Reading(None, "several" if values else "no_number")
    low, high = SCALE
    return Reading(f"{min(max(values.pop(), low), high):g}")


def _negates(word: str) -> bool:
    return word in _NEGATIONS or word.endswith("n't")


def _plain(text: str) -> str:
    """One spelling of what looks the same: compatibility forms and typographic apostrophes; nothing invisible."""
    text = unicodedata.normalize("NFKC", text).replace("’", "'")
    return "".join(_INVISIBLE.get(unicodedata.category(char), char) for char in text)


@lru_cache(maxsize=64)
def _tags(tag: str) -> re.Pattern[str]:
    return re.compile(rf"<\s?(/?)\s?{re.escape(tag)}\s?>", re.IGNORECASE)
