"""Mathematics: plain numbers exactly and at once, the rest by math-verify in worker processes that can be killed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from pydantic import Field, PrivateAttr

from ...records import Problem, Verdict
from ..base import Verifier
from ..pool import Limits, Pool
from .extraction import MAX_GOLD, canonical, extract, gold_answer, rational

Pair = tuple[str, str]
"""A gold answer and a submitted one."""

_EXACT = Verdict("right", "exact")
_DIFFERENT = Verdict("wrong", "different")
_NOT_A_NUMBER = Verdict("wrong", "not_a_number")
_GRAVITY = ("wrong", "could_not_grade", "right")
"""Which outcome decides when a completion gives several answers."""


@dataclass(frozen=True, slots=True)
class _Gold:
    text: str
    canonical: str
    number: Fraction | None


@dataclass(frozen=True, slots=True)
class _Open:
    """A submission that exact comparison left open: its answers, the last one first."""

    gold: _Gold
    answers: tuple[str, ...]


class Math(Verifier):
    r"""Is the answer of a completion the gold one?

    The answer is the last balanced `\boxed{}` after `</think>`, else the last `<answer>` tag. A completion that
    boxes different answers is right only if each of them is. The gold answer is what follows `####`, else the last
    box, else the whole text. Decided in this order: equal spelling; two plain numbers (integers, decimals, simple
    fractions) by exact arithmetic; the rest by math-verify in worker processes.

    Strict: a unit may be left out but not changed, a percent sign or a number base may not be left out, and a decimal
    is the number that it spells (0.333 is not 1/3).

    Reasons of `right`: exact, equivalent. Of `wrong`: no_answer, unfinished_reasoning, too_long, contradictory,
    different, unreadable, not_a_number, timeout, memory, crash. Of `could_not_grade`: gold, no_worker. The detail of
    a verdict is the submitted answer, or what went wrong.
    """

    seconds: float = Field(default=5.0, gt=0, le=600)
    """Wall-clock seconds for one comparison in a worker; more is wrong, with the reason timeout."""
    memory_mib: int = Field(default=1024, ge=512)
    """Address space of a worker in MiB; more is wrong, with the reason memory."""
    workers: int = Field(default=0, ge=0, le=1024)
    """Worker processes; 0 is one a core, eight at most."""
    numbers_only: bool = False
    """Decide by exact arithmetic alone (GSM8K, AIME): what is no plain number is wrong; no worker ever starts."""

    _pool: Pool = PrivateAttr()

    def model_post_init(self, context: object, /) -> None:
        """Nothing starts here: a worker does when a comparison first needs one."""
        workers = self.workers or min(8, os.cpu_count() or 1)
        self._pool = Pool(f"{__package__}.equivalence", workers, Limits(self.seconds, self.memory_mib))

    def judge_all(self, submissions: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """Verdicts in order. Equal pairs of gold and answer are compared once."""
        golds = {answer: _read_gold(answer) for answer in {problem.answer for problem, _ in submissions}}
        first = [self._exactly(golds[problem.answer], completion) for problem, completion in submissions]
        pairs = dict.fromkeys(pair for item in first if isinstance(item, _Open) for pair in _open_pairs(item))
        found = dict(zip(pairs, self._pool.map([{"gold": g, "answer": a} for g, a in pairs]), strict=True))
        return [_combine(item, found) if isinstance(item, _Open) else item for item in first]

    def close(self) -> None:
        """Kill the workers; they start again when needed."""
        self._pool.close()

    def _exactly(self, gold: _Gold | None, completion: str) -> Verdict | _Open:
        """The verdict that needs no worker, or what is left to compare."""
        if gold is None or (self.numbers_only and gold.number is None):
            return Verdict("could_not_grade", "gold", detail="" if gold is None else "the gold answer is not a number")
        extracted = extract(completion)
        if not extracted.answers:
            return Verdict("wrong", extracted.reason)
        known = [_compare(gold, answer) for answer in extracted.answers]
        if self.numbers_only:
            known = [verdict or _NOT_A_NUMBER for verdict in known]
        if None in known and all(verdict is None or verdict is _EXACT for verdict in known):
            return _Open(gold, extracted.answers)
        return _of_several(extracted.answers, [verdict or _DIFFERENT for verdict in known])


def _read_gold(answer: str) -> _Gold | None:
    text = gold_answer(answer)
    if not text or len(text) > MAX_GOLD:
        return None
    return _Gold(text, canonical(text), rational(text))


def _compare(gold: _Gold, answer: str) -> Verdict | None:
    """Equal spelling, or two numbers; None where neither decides."""
    if canonical(answer) == gold.canonical:
        return _EXACT
    number = rational(answer)
    if gold.number is None or number is None:
        return None
    return _EXACT if number == gold.number else _DIFFERENT


def _open_pairs(item: _Open) -> list[Pair]:
    return [(item.gold.text, answer) for answer in item.answers if _compare(item.gold, answer) is None]


def _combine(item: _Open, found: Mapping[Pair, Verdict]) -> Verdict:
    known = [found.get((item.gold.text, answer), _EXACT) for answer in item.answers]
    return _of_several(item.answers, known)


def _of_several(answers: tuple[str, ...], verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on a completion from those on its answers, the last one first: right only if all are."""
    first = min(verdicts, key=lambda verdict: _GRAVITY.index(verdict.outcome))
    reason = first.reason
    if first.outcome == "wrong" and verdicts[0].outcome != "wrong":
        reason = "contradictory"
    shown = answers[0].encode("utf-8", "replace").decode()
    return replace(first, reason=reason, seconds=sum(v.seconds for v in verdicts), detail=first.detail or shown)
