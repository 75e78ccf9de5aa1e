"""Mathematics: decided exactly and at once where possible, else by math-verify in workers that can be killed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from pydantic import Field, PrivateAttr

from ...records import Problem, Verdict
from ..base import Verifier
from ..pool import Limits, Pool
from .compare import Conventions, same, units_agree
from .dress import canonical, normalise, split_unit
from .extraction import MAX_GOLD, extract, gold_answer
from .numbers import rational
from .prefilter import refuse

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
    unit: str


@dataclass(frozen=True, slots=True)
class _Open:
    """A submission of which some answers are left to a worker: what is known of each, the last answer first."""

    gold: _Gold
    answers: tuple[str, ...]
    known: tuple[Verdict | None, ...]


class Math(Verifier):
    r"""Is the answer of a completion the gold one?

    The answer is the last balanced `\boxed{}` after `</think>`, else the last `<answer>` tag. A completion that
    boxes different answers is right only if each of them is. The gold answer is what follows `####`, else the last
    box, else the whole text. Decided in this order: equal spelling; two plain numbers by exact arithmetic; values,
    lists, tuples, sets, intervals, matrices, equations and words by exact algebra in this process, in bounded time;
    the rest, unless it is made to be slow or holds what no library knows, by math-verify in worker processes.

    Strict: `(1,2)` is not `(2,1)`, `[0,1)` not `[0,1]`, `x+1=0` is `2x+2=0` but not `x+1`, 5 cm is not 5 m, a percent
    sign or a number base may not be left out, a decimal is the number that it spells (0.333 is not 1/3).

    Reasons of `right`: exact, equivalent. Of `wrong`: no_answer, unfinished_reasoning, too_long, contradictory,
    different, unreadable, not_a_number; malformed, nested, long_number, tower, exponent, factorial (see
    `prefilter.refuse`); timeout, memory, crash. Of `could_not_grade`: gold, no_worker. The detail of a verdict is the
    submitted answer, or what went wrong.
    """

    seconds: float = Field(default=5.0, gt=0, le=600)
    """Wall-clock seconds for one comparison in a worker; more is wrong, with the reason timeout."""
    memory_mib: int = Field(default=1024, ge=512)
    """Address space of a worker in MiB; more is wrong, with the reason memory."""
    workers: int = Field(default=0, ge=0, le=1024)
    """Worker processes; 0 is one a core, eight at most."""
    cache: int = Field(default=65536, ge=0)
    """Comparisons by workers that are remembered; 0 for none."""
    numbers_only: bool = False
    """Decide by exact arithmetic alone (GSM8K, AIME): what is no plain number is wrong; no worker ever starts."""
    units: bool = True
    """Whether a unit may be left out on one side: 5 cm for 5. Two different units are wrong in any case."""
    percent: bool = False
    """Whether a percent sign may be left out on one side: 10% is then 10, and 1/10."""
    decimals: int = Field(default=12, ge=0, le=14)
    """Significant digits to which a decimal must agree with a number that has no finite one; 0: never equal."""

    _pool: Pool = PrivateAttr()
    _conventions: Conventions = PrivateAttr()

    def model_post_init(self, context: object, /) -> None:
        """Nothing starts here: a worker does when a comparison first needs one."""
        workers = self.workers or min(8, os.cpu_count() or 1)
        limits = Limits(self.seconds, self.memory_mib)
        self._pool = Pool(f"{__package__}.equivalence", workers, limits, self.cache)
        self._conventions = Conventions(self.decimals, self.percent, self.units)

    def judge_all(self, submissions: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """Verdicts in order. Equal pairs of gold and answer are compared once."""
        known: dict[Pair, Verdict | None] = {}
        first = [self._at_once(_read_gold(problem.answer), completion, known) for problem, completion in submissions]
        pairs = dict.fromkeys(pair for item in first if isinstance(item, _Open) for pair in _open_pairs(item))
        found = dict(zip(pairs, self._pool.map([_request(*pair) for pair in pairs]), strict=True))
        return [_combine(item, found) if isinstance(item, _Open) else item for item in first]

    def reference(self, problem: Problem) -> str:
        """A completion that gives the gold answer."""
        return rf"\boxed{{{gold_answer(problem.answer)}}}"

    def close(self) -> None:
        """Kill the workers; they start again when needed."""
        self._pool.close()

    def _at_once(self, gold: _Gold | None, completion: str, known: dict[Pair, Verdict | None]) -> Verdict | _Open:
        """The verdict that needs no worker, or what is left to compare."""
        if gold is None or (self.numbers_only and gold.number is None):
            return Verdict("could_not_grade", "gold", detail="" if gold is None else "the gold answer is not a number")
        extracted = extract(completion)
        if not extracted.answers:
            return Verdict("wrong", extracted.reason)
        verdicts = []
        for answer in extracted.answers:
            pair = (gold.text, answer)
            if pair not in known:
                known[pair] = self._compare(gold, answer)
            verdicts.append(known[pair])
        if None in verdicts and all(verdict is None or verdict.outcome == "right" for verdict in verdicts):
            return _Open(gold, extracted.answers, tuple(verdicts))
        return _of_several(extracted.answers, [verdict or _DIFFERENT for verdict in verdicts])

    def _compare(self, gold: _Gold, answer: str) -> Verdict | None:
        """What is decided in this process; None where a worker must be asked."""
        if canonical(answer) == gold.canonical:
            return _EXACT
        number = rational(answer)
        if number is None and self.numbers_only:
            return self._with_unit(gold, answer)
        if number is not None and gold.number is not None and not gold.unit:
            if number == gold.number:
                return _EXACT
            if "." not in answer and "." not in gold.text:
                return _DIFFERENT
        decided = same(gold.text, answer, self._conventions)
        if decided is not None:
            return _EXACT if decided else _DIFFERENT
        reason = refuse(answer)
        return Verdict("wrong", reason) if reason else None

    def _with_unit(self, gold: _Gold, answer: str) -> Verdict:
        body, unit = split_unit(normalise(answer))
        number = rational(body)
        if number is None:
            return _NOT_A_NUMBER
        agrees = units_agree(gold.unit, unit, self._conventions)
        return _EXACT if agrees and number == gold.number else _DIFFERENT


@lru_cache(maxsize=4096)
def _read_gold(answer: str) -> _Gold | None:
    text = gold_answer(answer)
    if not text or len(text) > MAX_GOLD:
        return None
    body, unit = split_unit(normalise(text))
    return _Gold(text, canonical(text), rational(text) if not unit else rational(body), unit)


def _request(gold: str, answer: str) -> dict[str, str]:
    """What a worker compares: units agree already, and are not its business."""
    return {"gold": _bare(gold), "answer": _bare(answer)}


def _bare(text: str) -> str:
    body, unit = split_unit(text)
    return text if unit == "%" else body


def _open_pairs(item: _Open) -> list[Pair]:
    return [(item.gold.text, answer) for answer, v in zip(item.answers, item.known, strict=True) if v is None]


def _combine(item: _Open, found: Mapping[Pair, Verdict]) -> Verdict:
    pairs = zip(item.answers, item.known, strict=True)
    return _of_several(item.answers, [verdict or found[item.gold.text, answer] for answer, verdict in pairs])


def _of_several(answers: tuple[str, ...], verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on a completion from those on its answers, the last one first: right only if all are."""
    first = min(verdicts, key=lambda verdict: _GRAVITY.index(verdict.outcome))
    reason = first.reason
    if first.outcome == "wrong" and verdicts[0].outcome != "wrong":
        reason = "contradictory"
    shown = answers[0].encode("utf-8", "replace").decode()
    return replace(first, reason=reason, seconds=sum(v.seconds for v in verdicts), detail=first.detail or shown)
