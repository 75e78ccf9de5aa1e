"""Goals for a tiny prover: formulas, how a prompt words them, and the small language that proofs are written in.

A prompt has words of its own for all that Lean writes with signs, so that what a policy can write is the proof language
and nothing else: it has no brackets, no `fun`, no search (`grind`, `omega`, `decide`, `simp`, `simp_all`) and no
combinator (`<;>`, `first`, `repeat`, `all_goals`, `try`). A step is thus one tactic with names as its arguments.
`show`, which only says what is to be proved next, is not counted as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PROPOSITIONS = tuple("PQRSTUVW")
"""Names of propositions, and of predicates of numbers."""
NUMBERS = tuple("abcde")
FUNCTIONS = tuple("fg")
HYPOTHESES = tuple(f"h{i}" for i in range(1, 10))
FRESH = tuple("xyzuvw")
"""Names that a proof gives."""
PATTERNS = ("⟨x,y⟩", "⟨z,u⟩", "⟨v,w⟩")
LEMMAS = ("add_comm", "mul_comm", "add_assoc", "mul_add", "zero_add", "one_mul", "mul_one")
TACTICS = ("apply", "exact", "have", "show", "rcases", "constructor", "exists", "rw", "induction", "rename_i", "rfl")
SIGNS = (";", ":", ":=", "=", "with", "|", "[", "]", "←")
WORDS = (
    "since",
    "given",
    "goal",
    ".",
    "to",
    "or",
    "and",
    "is",
    "plus",
    "times",
    "all",
    "some",
    "lp",
    "rp",
    "zero",
    "one",
)
"""What only prompts say."""
TOKENS = (
    *(*WORDS, *PROPOSITIONS, *NUMBERS, *FUNCTIONS, *HYPOTHESES, *FRESH),
    *(*TACTICS, *SIGNS, *PATTERNS, *(f"Nat.{lemma}" for lemma in LEMMAS)),
)
"""The whole vocabulary, one token a word; a tiny prover's shape lists it."""

_OPERATORS = {
    "∀": (0, "all"),
    "∃": (0, "some"),
    "→": (1, "to"),
    "∨": (2, "or"),
    "∧": (3, "and"),
    "=": (4, "is"),
    "+": (5, "plus"),
    "*": (6, "times"),
    "of": (8, ""),
}
"""How strongly each binds, and a prompt's word for it; `of` applies a predicate or a function."""
_LEAF = 9
_DIGITS = {"0": "zero", "1": "one"}

Steps = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Form:
    """A formula or a term: an operator with its two parts (a quantifier's are its variable and its body), or a leaf."""

    op: str
    parts: tuple[Form, ...] = ()

    def lean(self) -> str:
        """As Lean reads it."""
        return self._written("(", ")", "{q} {v}, {body}", lambda op: f" {op} " if op != "of" else " ")

    def words(self) -> str:
        """As a prompt says it, one token a word."""
        return self._written("lp ", " rp", "{q} {v} {body}", lambda op: f" {_OPERATORS[op][1]} ".replace("  ", " "))

    def _written(self, opening: str, closing: str, quantified: str, between) -> str:
        if not self.parts:
            return self.op if opening == "(" else _DIGITS.get(self.op, self.op)
        first, second = (part._written(opening, closing, quantified, between) for part in self.parts)
        if self.op in "∀∃":
            sign = self.op if opening == "(" else _OPERATORS[self.op][1]
            return quantified.format(q=sign, v=first, body=second)
        mine = self._binds
        # → groups to the right, + and * to the left; what binds less is bracketed, and so are its equals elsewhere.
        left_ok = self.parts[0]._binds > mine or (self.parts[0]._binds == mine and self.op in "+*")
        right_ok = self.parts[1]._binds > mine or (self.parts[1]._binds == mine and self.op == "→")
        first = first if left_ok else f"{opening}{first}{closing}"
        second = second if right_ok else f"{opening}{second}{closing}"
        return f"{first}{between(self.op)}{second}"

    @property
    def _binds(self) -> int:
        return _OPERATORS[self.op][0] if self.parts else _LEAF


def leaf(name: str) -> Form:
    """A name or a digit."""
    return Form(name)


def of(head: str, argument: str) -> Form:
    """A predicate or a function of a variable."""
    return Form("of", (Form(head), Form(argument)))


def both(op: str, first: Form, second: Form) -> Form:
    """Two forms with a sign between, or a quantifier's variable and body."""
    return Form(op, (first, second))


def implies(*forms: Form) -> Form:
    """P → Q → R."""
    *premises, last = forms
    for premise in reversed(premises):
        last = both("→", premise, last)
    return last


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal of one family, with proofs of it in the language, the plainest first; each is a series of steps."""

    family: str
    variables: tuple[tuple[tuple[str, ...], str], ...]
    """Names and their type, in the order of the statement."""
    hypotheses: tuple[tuple[str, Form], ...]
    conclusion: Form
    proofs: tuple[Steps, ...]

    def statement(self, name: str) -> str:
        """The theorem, up to what would be `:=`."""
        variables = "".join(f" ({' '.join(names)} : {kind})" for names, kind in self.variables if names)
        hypotheses = "".join(f" ({label} : {form.lean()})" for label, form in self.hypotheses)
        return f"theorem {name}{variables}{hypotheses} : {self.conclusion.lean()}"

    def prompt(self) -> str:
        """`Q since h4 given P . P since h1 . goal Q :=`: a conclusion before its name, and what it rests on after."""
        return " ".join((*(_said(*row) for row in self.hypotheses), "goal", self.conclusion.words(), ":="))


def _said(label: str, form: Form) -> str:
    """A hypothesis in a prompt; which variable it holds for is plain from where it stands."""
    while form.op == "∀":
        form = form.parts[1]
    premises = []
    while form.op == "→":
        premises.append(form.parts[0].words())
        form = form.parts[1]
    given = f" given {' and '.join(premises)}" if premises else ""
    return f"{form.words()} since {label}{given} ."


def written(steps: Sequence[str]) -> str:
    """A proof as the policy writes it, and as Lean reads it after `by`."""
    return " ; ".join(steps)


def steps_of(proof: str) -> Steps:
    """The steps of a written proof that do something."""
    return counted(proof.split(" ; "))


def counted(steps: Sequence[str]) -> Steps:
    """Steps without those that only say what is to be proved."""
    return tuple(step for step in steps if not step.startswith("show "))
