"""Families of goals about propositions and predicates: implications that must be found and put in order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from .language import FRESH, HYPOTHESES, NUMBERS, PROPOSITIONS, Form, Goal, Steps, both, counted, implies, leaf, of


class Link(NamedTuple):
    """An assumed implication: its name, and from what to what it leads."""

    label: str
    before: str
    after: str


class Draft:
    """A goal in the making: names are drawn from shuffled pools, so that no proof's names fit many goals."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.free = [str(name) for name in rng.permutation(PROPOSITIONS)]
        self.labels = [str(name) for name in rng.permutation(HYPOTHESES)]
        self.said: list[tuple[str, Form]] = []

    def fresh(self) -> str:
        """A proposition (or predicate) that no other part of the goal speaks of yet."""
        return self.free.pop()

    def say(self, form: Form) -> str:
        """Assume a formula; its hypothesis' name."""
        self.said.append((self.labels.pop(), form))
        return self.said[-1][0]

    def chain(self, start: str, end: str, length: int, argument: str | None = None) -> list[Link]:
        """Assume `length` implications that lead from one proposition to another, in order."""
        points = [start, *(self.fresh() for _ in range(length - 1)), end]
        return [Link(self.say(self.implication(*ends, argument)), *ends) for ends in pairwise(points)]

    def implication(self, before: str, after: str, argument: str | None) -> Form:
        """P → Q, or ∀ x, P x → Q x."""
        if argument is None:
            return implies(leaf(before), leaf(after))
        return both("∀", leaf(argument), implies(of(before, argument), of(after, argument)))

    def distract(self, count: int, argument: str | None = None) -> None:
        """Assume implications that lead nowhere: from what is not known, or to what nobody asked."""
        used = [name for name in PROPOSITIONS if name not in self.free]
        for _ in range(min(count, len(self.free), len(self.labels))):
            other, known = self.fresh(), str(self.rng.choice(used))
            ends = (other, known) if self.rng.random() < 0.5 else (known, other)
            self.say(self.implication(*ends, argument))

    def goal(self, family: str, conclusion: Form, proofs: Sequence[Steps], kind: str, *, numbers: bool = False) -> Goal:
        """The goal, its hypotheses in an order that says nothing."""
        used = tuple(name for name in PROPOSITIONS if name not in self.free)
        variables: tuple[tuple[tuple[str, ...], str], ...] = ((used, kind),)
        if numbers:
            variables = ((NUMBERS, "Nat"), *variables)
        order = self.rng.permutation(len(self.said))
        return Goal(family, variables, tuple(self.said[i] for i in order), conclusion, tuple(dict.fromkeys(proofs)))


def backward(links: Sequence[Link], start: str, argument: str = "") -> Steps:
    """From the goal to what is known."""
    applied = [step for link in reversed(links) for step in (f"apply {link.label}", _shown(link.before, argument))]
    return (*applied, f"exact {start}")


def forward(links: Sequence[Link], start: str, names: Sequence[str], argument: str = "") -> Steps:
    """From what is known to the goal; each conclusion but the last gets a name."""
    *firsts, last = links
    known = (start, *names)
    return (*_named(firsts, start, names, argument), f"exact {_applied(last, known[len(firsts)], argument)}")


def _named(links: Sequence[Link], start: str, names: Sequence[str], argument: str = "") -> Steps:
    """Each implication forward, its conclusion under a name."""
    rows = zip(names, links, (start, *names), strict=False)
    return tuple(
        f"have {name} : {f'{link.after} {argument}'.strip()} := {_applied(link, known, argument)}"
        for name, link, known in rows
    )


def _applied(link: Link, known: str, argument: str) -> str:
    return " ".join(filter(None, (link.label, argument, known)))


def _shown(point: str, argument: str = "") -> str:
    return f"show {point} {argument}".rstrip()


def _meeting(links: Sequence[Link], start: str, at: int) -> Steps:
    """The first `at` implications forward, the rest backward."""
    return (*_named(links[:at], start, FRESH), *backward(links[at:], FRESH[at - 1]))


def chain(rng: np.random.Generator) -> Goal:
    """P, P → Q, Q → R, R → S ⊢ S."""
    draft = Draft(rng)
    length = int(rng.integers(3, 5))
    start, end = draft.fresh(), draft.fresh()
    links, fact = draft.chain(start, end, length), draft.say(leaf(start))
    draft.distract(int(rng.integers(1, 4)))
    proofs = [backward(links, fact), forward(links, fact, FRESH)]
    proofs += [_meeting(links, fact, at) for at in range(1, length)]
    return draft.goal("chain", leaf(end), proofs, "Prop")


def fork(rng: np.random.Generator) -> Goal:
    """P → Q → R, and chains to P and to Q ⊢ R."""
    draft = Draft(rng)
    lengths = [(1, 1), (1, 2), (2, 1)][int(rng.integers(3))]
    end, tips = draft.fresh(), [draft.fresh(), draft.fresh()]
    last = draft.say(implies(*map(leaf, tips), leaf(end)))
    starts = [draft.fresh(), draft.fresh()]
    links = [draft.chain(*row) for row in zip(starts, tips, lengths, strict=True)]
    facts = [draft.say(leaf(start)) for start in starts]
    draft.distract(int(rng.integers(0, 2)))
    back = [(_shown(tip), *backward(row, fact)) for tip, row, fact in zip(tips, links, facts, strict=True)]
    names = (FRESH[:2], FRESH[2:4])
    ahead = [_named(*row) for row in zip(links, facts, names, strict=True)]
    closing = f"exact {last} {names[0][lengths[0] - 1]} {names[1][lengths[1] - 1]}"
    proofs = [(f"apply {last}", *back[0], *back[1]), (*ahead[0], *ahead[1], closing), (*ahead[1], *ahead[0], closing)]
    return draft.goal("fork", leaf(end), proofs, "Prop")


def cases(rng: np.random.Generator) -> Goal:
    """P ∨ Q, and chains from each to R ⊢ R."""
    draft = Draft(rng)
    lengths = [(1, 2), (2, 1), (2, 2)][int(rng.integers(3))]
    end, starts = draft.fresh(), [draft.fresh(), draft.fresh()]
    either = draft.say(both("∨", *map(leaf, starts)))
    links = [draft.chain(start, end, n) for start, n in zip(starts, lengths, strict=True)]
    draft.distract(int(rng.integers(0, 3)))
    split = f"rcases {either} with x | y"
    back = (split, _shown(end), *backward(links[0], "x"), _shown(end), *backward(links[1], "y"))
    ahead = (split, *forward(links[0], "x", "zu"), *forward(links[1], "y", "zu"))
    return draft.goal("cases", leaf(end), [back, ahead], "Prop")


def pair(rng: np.random.Generator) -> Goal:
    """Chains to P and to Q ⊢ P ∧ Q."""
    draft = Draft(rng)
    lengths = [(1, 2), (2, 1), (2, 2)][int(rng.integers(3))]
    ends, starts = [draft.fresh(), draft.fresh()], [draft.fresh(), draft.fresh()]
    links = [draft.chain(*row) for row in zip(starts, ends, lengths, strict=True)]
    facts = [draft.say(leaf(start)) for start in starts]
    draft.distract(int(rng.integers(0, 2)))
    back = [(_shown(end), *backward(row, fact)) for end, row, fact in zip(ends, links, facts, strict=True)]
    ahead = [forward(*row, FRESH) for row in zip(links, facts, strict=True)]
    proofs = [("constructor", *one, *two) for one, two in (back, ahead, (ahead[0], back[1]), (back[0], ahead[1]))]
    return draft.goal("pair", both("∧", *map(leaf, ends)), proofs, "Prop")


def witness(rng: np.random.Generator) -> Goal:
    """P a, ∀ x, P x → Q x, ∀ x, Q x → R x ⊢ ∃ x, R x."""
    draft = Draft(rng)
    length, number = int(rng.integers(2, 4)), str(rng.choice(NUMBERS))
    start, end = draft.fresh(), draft.fresh()
    links, fact = draft.chain(start, end, length, "x"), draft.say(of(start, number))
    draft.distract(int(rng.integers(1, 3)), "x")
    back, ahead = backward(links, fact, number), forward(links, fact, FRESH, number)
    chosen, shown = f"exists {number}", _shown(end, number)
    proofs = [(chosen, shown, *back), (chosen, *ahead), ("constructor", *counted(back))]
    return draft.goal("witness", both("∃", leaf("x"), of(end, "x")), proofs, "Nat → Prop", numbers=True)


def unpack(rng: np.random.Generator) -> Goal:
    """∃ x, P x, and ∀ x, P x → Q x ⊢ ∃ x, Q x."""
    draft = Draft(rng)
    length = int(rng.integers(1, 4))
    start, end = draft.fresh(), draft.fresh()
    links, some = draft.chain(start, end, length, "x"), draft.say(both("∃", leaf("x"), of(start, "x")))
    draft.distract(int(rng.integers(1, 3)), "x")
    opened, back, ahead = f"rcases {some} with ⟨x,y⟩", backward(links, "y", "x"), forward(links, "y", "zuv", "x")
    shown = _shown(end, "x")
    proofs = [(opened, "exists x", shown, *back), (opened, "exists x", *ahead), (opened, "constructor", *counted(back))]
    return draft.goal("unpack", both("∃", leaf("x"), of(end, "x")), proofs, "Nat → Prop")


def induct(rng: np.random.Generator) -> Goal:
    """P 0, and a chain from P n to P (n + 1) for each n ⊢ P a."""
    draft = Draft(rng)
    length, number = int(rng.integers(1, 4)), str(rng.choice(NUMBERS))
    start = draft.fresh()
    points = [start, *(draft.fresh() for _ in range(length - 1))]
    links = [Link(draft.say(draft.implication(*ends, "x")), *ends) for ends in pairwise(points)]
    after = Form("of", (Form(start), both("+", leaf("x"), leaf("1"))))
    links.append(Link(draft.say(both("∀", leaf("x"), implies(of(points[-1], "x"), after))), points[-1], start))
    zero = draft.say(of(start, "0"))
    draft.distract(int(rng.integers(1, 3)), "x")
    begun = (f"induction {number}", f"exact {zero}", "rename_i x y")
    proofs = [(*begun, *backward(links, "y", "x")), (*begun, *forward(links, "y", "zuv", "x"))]
    return draft.goal("induct", of(start, number), proofs, "Nat → Prop", numbers=True)


def mixed(rng: np.random.Generator) -> Goal:
    """P ∨ Q, implications from each to R, and one to S from what is known ⊢ R ∧ S, or S ∧ R."""
    draft = Draft(rng)
    end, other, starts, start = draft.fresh(), draft.fresh(), [draft.fresh(), draft.fresh()], draft.fresh()
    either = draft.say(both("∨", *map(leaf, starts)))
    links = [draft.chain(one, end, 1) for one in starts]
    link, fact = draft.chain(start, other, 1), draft.say(leaf(start))
    draft.distract(int(rng.integers(0, 2)))
    branches = [(_shown(end), *backward(row, name)) for row, name in zip(links, "xy", strict=True)]
    split = (f"rcases {either} with x | y", *branches[0], *branches[1])
    straight = (_shown(other), *backward(link, fact))
    halves, ends = [(split, straight), (end, other)], [(straight, split), (other, end)]
    (one, two), (left, right) = halves if rng.random() < 0.5 else ends
    return draft.goal("mixed", both("∧", leaf(left), leaf(right)), [("constructor", *one, *two)], "Prop")
