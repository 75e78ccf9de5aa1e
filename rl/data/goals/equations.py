"""Families of goals about numbers: equations that are rewritten until both sides are one."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from .language import FUNCTIONS, HYPOTHESES, LEMMAS, NUMBERS, Form, Goal, Steps, both, leaf, of

_WRAPPED = {
    "zero_add": lambda form: both("+", leaf("0"), form),
    "one_mul": lambda form: both("*", leaf("1"), form),
    "mul_one": lambda form: both("*", form, leaf("1")),
}
"""Each lemma's left side around a term; none of them holds by computation alone, since the term is a variable."""


def rewrite(rng: np.random.Generator) -> Goal:
    """a = b, f b = c, c = d ⊢ f a = d, by the equations in one order or another."""
    numbers = [str(name) for name in rng.permutation(NUMBERS)]
    labels = [str(name) for name in rng.permutation(HYPOTHESES)]
    function = str(rng.choice(FUNCTIONS))
    first, *path = numbers[: int(rng.integers(4, 6))]
    inside = int(rng.integers(1, len(path) - 1))
    ends = [*zip([first, *path], path[:inside], strict=False)]
    terms: list[tuple[Form, Form]] = [(leaf(one), leaf(two)) for one, two in ends]
    terms.append((of(function, path[inside - 1]), leaf(path[inside])))
    terms += [(leaf(one), leaf(two)) for one, two in zip(path[inside:], path[inside + 1 :], strict=False)]
    said = [(labels.pop(), both("=", *pair)) for pair in terms]
    used = [label for label, _ in said]
    if rng.random() < 0.5:  # one that leads away
        said.append((labels.pop(), both("=", of(function, path[-1]), leaf(first))))
    ahead = _forward(terms, used)
    closed = (*ahead[:-1], f"exact {used[-1]}")
    back = (*(f"rw [ ← {label} ]" for label in reversed(used[1:])), f"rw [ {used[0]} ]")
    order = rng.permutation(len(said))
    goal = both("=", of(function, first), leaf(path[-1]))
    variables = ((NUMBERS, "Nat"), (FUNCTIONS, "Nat → Nat"))
    return Goal("rewrite", variables, tuple(said[i] for i in order), goal, (ahead, closed, back))


def _forward(terms: list[tuple[Form, Form]], labels: list[str]) -> Steps:
    """Each equation from left to right, and between them what is left to prove."""
    last, steps = terms[-1][1].lean(), []
    for at, label in enumerate(labels):
        steps.append(f"rw [ {label} ]")
        if at + 1 < len(labels):
            left = terms[at][1].lean()
            function = next(one.parts[0].op for one, _ in terms if one.op == "of")
            inside = not any(one.op == "of" for one, _ in terms[: at + 1])
            steps.append(f"show {f'{function} {left}' if inside else left} = {last}")
    return tuple(steps)


def algebra(rng: np.random.Generator) -> Goal:
    """0 + a + b * 1 = b + a: a law of sums and products, with terms on both sides wrapped in what adds nothing."""
    a, b, c = (str(name) for name in rng.permutation(NUMBERS)[:3])
    law = str(rng.choice(LEMMAS[:4]))
    wraps = [str(name) for name in rng.permutation(list(_WRAPPED))[: int(rng.integers(2, 4))]]
    slots: list[Form] = [
        leaf(name) for name in {"add_comm": (a, b, b, a), "mul_comm": (a, b, b, a)}.get(law, (a, b, c))
    ]
    for wrap, place in zip(wraps, rng.permutation(len(slots)), strict=False):
        slots[place] = _WRAPPED[wrap](slots[place])
    goal = _law(law, slots, (a, b, c))
    orders = [tuple(f"rw [ Nat.{lemma} ]" for lemma in (*order, law)) for order in permutations(wraps)]
    start = int(rng.integers(len(orders)))
    return Goal("algebra", ((NUMBERS, "Nat"),), (), goal, tuple(orders[start:] + orders[:start]))


def _law(law: str, slots: list[Form], names: tuple[str, str, str]) -> Form:
    """The law's equation, with `slots` where its variables stand first."""
    a, b, c = map(leaf, names)
    if law.endswith("_comm"):
        sign = "+" if law == "add_comm" else "*"
        return both("=", both(sign, slots[0], slots[1]), both(sign, slots[2], slots[3]))
    if law == "add_assoc":
        return both("=", both("+", both("+", slots[0], slots[1]), slots[2]), both("+", a, both("+", b, c)))
    left = both("*", slots[0], both("+", slots[1], slots[2]))
    return both("=", left, both("+", both("*", a, b), both("*", a, c)))
