"""The best constant policy of a study with Lean goals: how many held-out goals might one proof text prove at most?

A text proves a goal only if the goal holds every name that it uses, if its first step can open the goal, and, where it
names no hypothesis, if the goal has none: each goal's hypotheses are needed, and no tactic of the language uses one
that it does not name. So the share of goals that meet all this bounds what the text proves, without a run of Lean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...records import Problem
from ..data.goals.language import HYPOTHESES, NUMBERS, PROPOSITIONS, steps_of
from ..runs.reading import objects, rollout_files

_NAMES = frozenset((*HYPOTHESES, *NUMBERS, *PROPOSITIONS))
_CONCLUSION = {"exists": "∃", "constructor": "∃∧", "rw": "=", "induction": ""}
"""Signs of which a conclusion must hold one, for a first step of that tactic."""


@dataclass(frozen=True)
class Constant:
    """The proof that might prove most held-out goals, out of `texts` different ones, and the share that it might."""

    text: str
    bound: float
    texts: int


def best_constant(goals: Sequence[Problem], folders: Sequence[Path]) -> Constant:
    """Of all references of the goals and all right proofs that the runs in `folders` sampled."""
    texts = {str(goal.solution) for goal in goals} | {text for folder in folders for text in _sampled(folder)}
    bounds = {text: sum(may_prove(text, goal) for goal in goals) / len(goals) for text in sorted(texts)}
    best = max(bounds, key=lambda text: bounds[text])
    return Constant(best, bounds[best], len(texts))


def may_prove(text: str, goal: Problem) -> bool:
    """Whether a proof might prove a goal, as far as names and its first step tell."""
    statement = str(goal.info["statement"])
    stated, _, conclusion = statement.rpartition(" : ")
    names = {word for word in text.split() if word in _NAMES}
    if not names <= set(re.findall(r"\w+", statement)):
        return False
    if not names & set(HYPOTHESES):
        return not set(re.findall(r"\w+", stated)) & set(HYPOTHESES)
    tactic, *arguments = steps_of(text)[0].split()
    if tactic == "induction" and arguments[0] in NUMBERS:
        return arguments[0] in conclusion.split()
    if tactic == "rcases":
        assumed = re.search(rf"\({arguments[0]} : ([^()]*(?:\([^()]*\)[^()]*)*)\)", stated)
        return assumed is not None and ("∨" if "|" in arguments else "∃") in assumed[1]
    signs = _CONCLUSION.get(tactic, "")
    return not signs or any(sign in conclusion for sign in signs)


def _sampled(folder: Path) -> Iterator[str]:
    """The right proofs among a run's rollouts, and among the samples of its evaluations that it kept."""
    for _, path in rollout_files(folder):
        with path.open("rb") as lines:
            for row in objects(iter(lines)):
                if row is not None and row.get("outcome") == "right":
                    yield str(row["text"])
