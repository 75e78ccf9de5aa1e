"""What is never handed to a library: text that is made to be slow, is not text, or says what no library here knows."""

from __future__ import annotations

import re
import unicodedata

MAX_NESTING = 8
"""Brackets within brackets: the grammar of the library takes exponential time."""
MAX_COMMANDS = 60
"""Commands and signs of one answer."""
MAX_DIGITS = 60
"""Digits in a row."""
MAX_EXPONENT = 4
"""Digits of a number in an exponent."""
MAX_TOWER = 2
"""Exponents within exponents."""
MAX_FACTORIAL = 4
"""Digits of a number before `!` or within a binomial."""

_RUN = re.compile(rf"[0-9]{{{MAX_DIGITS + 1}}}")
_FACTORIAL = re.compile(rf"[0-9]{{{MAX_FACTORIAL + 1}}}\)?\s*!|!\s*!|!\s*\)+\s*!|\^[^!]{{0,40}}!")
_BINOMIAL = re.compile(rf"\\[dt]?binom[^\\]{{0,40}}(?:[0-9]{{{MAX_FACTORIAL + 1}}}|\^)|\\choose")
_EXPONENT = re.compile(rf"\^\s*\{{?\s*[-+]?\s*\(?\s*[0-9.,]{{{MAX_EXPONENT + 1}}}")
_GROUP_POWER = re.compile(r"[)\]}]\s*\^\s*\{?\s*[-+]?[0-9]{3}")
_BOUND = re.compile(r"\\(?:sum|prod|bigcup|bigcap)[^\\]{0,80}(?:[0-9]{4}|\^\s*\{?\s*[0-9]+\s*\^)")
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_TEXT_GROUP = re.compile(
    r"\\(?:text|mbox|textrm|textbf|textit|mathrm|mathbf|mathit|mathbb|mathcal|operatorname)\s*\{([^{}]*)\}"
)
_WORD = re.compile(r"[A-Za-z]{4,}")
_KNOWN = frozenset(
    re.findall(
        r"[A-Za-z]+",
        """frac dfrac tfrac cfrac sqrt cdot times div pm mp pi infty cup cap in notin setminus subset subseteq emptyset
        varnothing mathbb mathbf mathrm mathcal mathit text mbox textrm textbf textit operatorname left
        right begin end sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan arccot arcsec
        arccsc ln log lg exp min max gcd lcm binom dbinom tbinom sum prod int iint lim to lfloor rfloor
        lceil rceil lvert rvert vert mid le leq ge geq lt gt ne neq leqslant geqslant approx equiv pmod bmod
        mod circ degree alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda
        mu nu xi rho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Upsilon
        Phi Psi Omega ell overline underline bar vec hat overrightarrow angle triangle prime ldots cdots
        dots quad qquad displaystyle textstyle limits land lor vee wedge neg Re Im det tr rank partial nabla
        lbrace rbrace langle rangle big Big bigl bigr Bigl Bigr ast star forall exists mapsto rightarrow
        Rightarrow implies iff cong sim perp parallel colon backslash""",
    )
)
_ENVIRONMENTS = {"matrix", "pmatrix", "bmatrix", "Bmatrix", "vmatrix", "Vmatrix", "array", "cases", "aligned"}


def refuse(text: str) -> str:
    """Why an answer is not handed on, or nothing.

    Reasons: malformed (control characters, lone surrogates), nested, long_number, tower, exponent, factorial,
    unreadable.
    """
    if any(unicodedata.category(char) in ("Cc", "Cs", "Cn", "Co") for char in text if char not in "\n\t\r"):
        return "malformed"
    brackets, exponents = depths(text)
    if brackets > MAX_NESTING or len(_COMMAND.findall(text)) + text.count("^") + text.count("_") > MAX_COMMANDS:
        return "nested"
    if _RUN.search(text):
        return "long_number"
    if exponents > MAX_TOWER or text.count("^") > 12:
        return "tower"
    if _EXPONENT.search(text) or _GROUP_POWER.search(text):
        return "exponent"
    if _FACTORIAL.search(text) or _BINOMIAL.search(text) or _BOUND.search(text):
        return "factorial"
    return "unreadable" if _unknown(text) else ""


def depths(text: str) -> tuple[int, int]:
    """The deepest nesting of brackets, and of exponents within exponents."""
    depth = deepest = exponent = highest = 0
    raised: list[int] = []
    previous = ""
    for char in text:
        if char in "([{":
            depth += 1
            if previous == "^":
                raised.append(depth)
        elif char in ")]}":
            if raised and raised[-1] == depth:
                raised.pop()
            depth = max(0, depth - 1)
        if char == "^":
            exponent = len(raised) + 1
        deepest, highest = max(deepest, depth), max(highest, exponent if char == "^" else 0)
        previous = previous if char.isspace() else char
    return deepest, highest


def _unknown(text: str) -> bool:
    """Whether it holds a command, an environment or a word that is no mathematics."""
    if any(name not in _KNOWN for name in _COMMAND.findall(text)):
        return True
    if any(name not in _ENVIRONMENTS for name in re.findall(r"\\(?:begin|end)\s*\{([^{}]*)\}", text)):
        return True
    bare = re.sub(r"\\(?:begin|end)\s*\{[^{}]*\}|\\[a-zA-Z]+", " ", _TEXT_GROUP.sub(" ", text))
    return any(word.lower() not in _KNOWN for word in _WORD.findall(bare))
