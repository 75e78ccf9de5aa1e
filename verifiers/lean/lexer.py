"""Lean's surface, as far as it must be known to find words that are really there: comments, strings, names, symbols.

Lean's own lexer can be taught new tokens, so wherever two readings are possible the text is refused rather than read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LETTER = (
    "A-Za-z_\u0391-\u039f\u03a1\u03a2\u03a4-\u03a9\u03b1-\u03ba\u03bc-\u03fb"
    "\u1f00-\u1ffe\u2100-\u214f\U0001d49c-\U0001d59f"
)
"""Lean's letters (`isIdFirst`): λ, Π and Σ are symbols."""
_REST = _LETTER + "0-9'!?\u2080-\u2089\u2090-\u209c\u1d62-\u1d6a\u2c7c"
_PART = f"(?:[{_LETTER}][{_REST}]*|«[^«»\\n]+»)"
_TOKEN = re.compile(
    rf"""
    (?P<space>[ \t\n]+|\r\n)
  | (?P<line>--[^\n]*)
  | (?P<block>/-)
  | (?P<string>"(?:[^"\\]|\\.|\\\n)*")
  | (?P<char>'(?:\\(?:x[0-9a-fA-F]{{2}}|u[0-9a-fA-F]{{4}}|.)|[^\\'\n])')
  | (?P<name>{_PART}(?:\.{_PART})*)
  | (?P<number>0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|[0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
  | (?P<symbol>.)
    """,
    re.VERBOSE,
)
_NESTING = re.compile(r"/-|-/")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_BEFORE_COMMENT = re.compile(rf"[\s{_REST})\]}}⟩,;]")
MAX_LENGTH = 200_000
"""Characters of one submission."""


class UnreadableError(Exception):
    """A text that has two readings, or none; the message says which."""


@dataclass(frozen=True, slots=True)
class Token:
    """A name, number, string, char or symbol, and where it starts (characters from the start of the text)."""

    kind: str
    text: str
    start: int


def tokens(text: str) -> list[Token]:
    """All tokens but spaces and comments.

    Raises:
        UnreadableError: something is not closed, or could be read in more than one way.
    """
    if len(text) > MAX_LENGTH:
        raise UnreadableError(f"more than {MAX_LENGTH} characters")
    plain = text.replace("\r\n", "\n")
    if _CONTROL.search(plain) or any("\ud800" <= c <= "\udfff" for c in plain):
        raise UnreadableError("a control character")
    found: list[Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise UnreadableError("a character of no kind")
        kind, word = match.lastgroup or "", match.group()
        before = text[position - 1] if position else " "
        position = match.end()
        if kind in ("line", "block"):
            # `//-` is a token that ends in `-` for Lean, and `⁻¹--` may be one in some library.
            if not _BEFORE_COMMENT.match(before) and text[match.start() - 2 : match.start()] != "-/":
                raise UnreadableError("a comment sign that runs into a symbol")
            position = _block_end(text, position) if kind == "block" else position
        elif kind != "space":
            _refuse_ambiguous(kind, word, before, text[position : position + 1])
            found.append(Token(kind, word, match.start()))
    return found


def without_comments(text: str) -> str:
    """The text without comments, blank lines and spaces that no reading depends on; columns stay, as Lean minds them.

    Raises:
        UnreadableError: something is not closed, or could be read in more than one way.
    """
    kept, end = "", 0
    for token in tokens(text):
        column = token.start - text.rfind("\n", 0, token.start) - 1
        gap = "\n" + " " * column if "\n" in text[end : token.start] else " " * (token.start > end)
        kept, end = f"{kept}{gap}{token.text}", token.start + len(token.text)
    return kept.strip()


def _block_end(text: str, position: int) -> int:
    depth = 1
    while depth:
        sign = _NESTING.search(text, position)
        if sign is None:
            raise UnreadableError("a comment that is not closed")
        depth += 1 if sign.group() == "/-" else -1
        position = sign.end()
    return position


def _refuse_ambiguous(kind: str, word: str, before: str, after: str) -> None:
    if kind == "symbol" and word in '"«»\\' and word != "\\":
        raise UnreadableError("a string or name that is not closed")
    if kind == "string" and re.match(rf"[{_REST}#]", before):
        raise UnreadableError("an interpolated or raw string")
    if kind == "char" and ('"' in word or "«" in word or "»" in word):
        raise UnreadableError("a quotation mark as a character")
    if kind == "number" and re.match(r"[A-Za-z_]", after):
        raise UnreadableError("a number that runs into a word")
