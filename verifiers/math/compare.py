"""Whether two answers are the same, in three values: yes and no are certain, None is for others to decide."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

from .dress import normalise, split_unit
from .structures import Answer, Group, Matrix, Relation, Scalar, Undefined, Union, Word, read
from .values import INFINITE, Arithmetic, rational

HUNDRED = rational(100)
LIST_LIKE = ("list", "set")
_LONG_DECIMAL = re.compile(r"[+-]?([0-9]*)\.([0-9]+)")
_FLIP = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}


@dataclass(frozen=True, slots=True)
class Conventions:
    """What counts as the same, see the options of `Math`."""

    decimals: int = 12
    percent: bool = False
    units: bool = True


read_gold = lru_cache(maxsize=1024)(read)


def same(gold: str, answer: str, conventions: Conventions) -> bool | None:
    """Whether an answer is the gold one; None where it is not known here."""
    if normalise(gold) == normalise(answer) or _same_letters(gold, answer):
        return True
    expected, given = read_gold(gold), read(answer)
    if isinstance(expected, Group) and expected.kind == "list" and isinstance(given, Scalar) and "," in answer:
        given = read(answer, as_list=True)
    if expected is None or given is None:
        return None if units_agree(_unit(gold), _unit(answer), conventions) else False
    if isinstance(expected, Word) or isinstance(given, Word):
        return False
    return _Comparison(conventions).compare(expected, given)


def _unit(text: str) -> str:
    return split_unit(normalise(text))[1]


def units_agree(gold: str, answer: str, conventions: Conventions) -> bool:
    """Whether two units are the same, or one may be missing."""
    if gold == answer:
        return True
    lenient = conventions.percent if "%" in (gold, answer) else conventions.units
    return lenient and (not gold or not answer)


_WRAPPED = re.compile(r"\\(?:text|mbox|textbf|textrm|textit|mathrm)(?![a-z])")
_LETTERS = re.compile(r"\(?([^\W\d_]+(?:[-'][^\W\d_]+)*)\)?\.?")


def _same_letters(gold: str, answer: str) -> bool:
    """Whether two answers in words say the same: `(B)` and B, `yes` and Yes; but not the products ab and AB."""
    words = [_LETTERS.fullmatch(re.sub(r"[\s{}]", "", _WRAPPED.sub("", text))) for text in (gold, answer)]
    if None in words:
        return False
    one, other = (word[1] for word in words if word)
    if one == other or one.casefold() != other.casefold() or len(one) == 1:
        return one == other
    in_text = _WRAPPED.search(gold) or _WRAPPED.search(answer)
    return bool(in_text) or (len(one) > 2 and one[1:].islower() and other[1:].islower())


def _all(results: Iterable[bool | None]) -> bool | None:
    """No if one is no, unknown if one is unknown."""
    unknown = False
    for result in results:
        if result is False:
            return False
        unknown |= result is None
    return None if unknown else True


class _Comparison:
    def __init__(self, conventions: Conventions):
        self._conventions = conventions
        self._arithmetic = Arithmetic()

    def compare(self, gold: Answer, answer: Answer) -> bool | None:
        """Whether two answers of any kind are the same."""
        if isinstance(gold, Union):
            answer = _as_union(answer)
        elif isinstance(answer, Union):
            gold = _as_union(gold)
        if isinstance(gold, Undefined) or isinstance(answer, Undefined):
            return False
        if isinstance(gold, Scalar) and isinstance(answer, Scalar):
            return self._scalars(gold, answer)
        if isinstance(gold, Relation) or isinstance(answer, Relation):
            return self._with_relation(gold, answer)
        if isinstance(gold, Group) and isinstance(answer, Group):
            return self._groups(gold, answer)
        if isinstance(gold, Matrix) and isinstance(answer, Matrix):
            return self._matrices(gold, answer)
        if isinstance(gold, Matrix) or isinstance(answer, Matrix):
            return False
        if isinstance(gold, Union) or isinstance(answer, Union):
            return self._unions(gold, answer)
        if isinstance(gold, Group) and isinstance(answer, Scalar):
            return self._one_item(gold, answer, swapped=False)
        if isinstance(answer, Group) and isinstance(gold, Scalar):
            return self._one_item(answer, gold, swapped=True)
        if isinstance(gold, Word) and isinstance(answer, Word):
            return gold.letters == answer.letters
        if isinstance(gold, Word) or isinstance(answer, Word):
            return False
        return None

    # -- values ------------------------------------------------------------------------------------------------------

    def _scalars(self, gold: Scalar, answer: Scalar) -> bool | None:
        if not units_agree(gold.unit, answer.unit, self._conventions) or gold.bases != answer.bases:
            return False
        value = answer.value
        if "i" in gold.letters and "i" not in answer.letters and "I" in answer.letters and "I" not in gold.letters:
            reread = read(re.sub(r"(?<![A-Za-z\\])I(?![A-Za-z])", "i", answer.text))
            value = reread.value if isinstance(reread, Scalar) else value
        result = self._arithmetic.equal(gold.value, value)
        if result is True or (gold.bare_log != answer.bare_log):
            return result or None
        if self._rounded(gold, answer) or self._rounded(answer, gold):
            return True
        if "%" in (gold.unit, answer.unit) and gold.unit != answer.unit:
            return self._percentage(gold, answer)
        return result

    def _percentage(self, gold: Scalar, answer: Scalar) -> bool | None:
        """One is a percentage and the other is not: 10% is also 1/10."""
        sides = [self._arithmetic.divide(s.value, HUNDRED) if s.unit == "%" else s.value for s in (gold, answer)]
        return self._arithmetic.equal(sides[0], sides[1])

    def _rounded(self, decimal: Scalar, other: Scalar) -> bool:
        """Whether a long decimal is the rounded value of a number that has no finite decimal."""
        digits = self._conventions.decimals
        match = _LONG_DECIMAL.fullmatch(decimal.text.replace("{,}", "").replace(" ", ""))
        if not digits or not match or len("".join(match.groups()).lstrip("0")) < digits or "." in other.text:
            return False
        number, value, ball = decimal.value.number, other.value.number, other.value.ball
        if number is None:
            return False
        place = Decimal(f"{match[1]}.{match[2]}").adjusted() + 1 - digits
        allowed = Fraction(10) ** place
        if value is not None:
            return not _is_finite_decimal(value) and abs(value - number) <= allowed
        if ball is None or not ball.is_real() or other.letters - {"e", "i"}:
            return False
        return abs(Fraction(ball.middle.real) - number) + Fraction(ball.radius) <= allowed

    # -- structures --------------------------------------------------------------------------------------------------

    def _one_item(self, group: Group, scalar: Scalar, swapped: bool) -> bool | None:
        items = self._elements(group)
        if group.kind not in LIST_LIKE or len(items) != 1:
            return False
        return self.compare(scalar, items[0]) if swapped else self.compare(items[0], scalar)

    def _groups(self, gold: Group, answer: Group) -> bool | None:
        if gold.kind in LIST_LIKE and answer.kind in LIST_LIKE:
            return self._lists(self._elements(gold), self._elements(answer))
        vectors = {gold.kind, answer.kind} <= {"()", "[]"} and len(gold.items) != 2  # two in brackets are an interval
        if (gold.kind != answer.kind and not vectors) or len(gold.items) != len(answer.items):
            return False
        return _all(self.compare(g, a) for g, a in zip(gold.items, answer.items, strict=True))

    def _lists(self, gold: Sequence[Answer], answer: Sequence[Answer]) -> bool | None:
        (gold_name, golds), (answer_name, answers) = _unnamed(gold), _unnamed(answer)
        if gold_name and answer_name and gold_name != answer_name:
            return False
        if any(isinstance(item, Relation) for item in golds) != any(isinstance(item, Relation) for item in answers):
            return None
        return self._unordered(golds, answers)

    def _unordered(self, gold: Sequence[Answer], answer: Sequence[Answer]) -> bool | None:
        """Whether each item of one is one of the other, as often."""
        if len(gold) != len(answer):
            return False
        left, unknown = list(answer), False
        for expected in gold:
            results = [self.compare(expected, given) for given in left]
            if True in results:
                left.pop(results.index(True))
            elif None in results:
                unknown = True
            else:
                return False
        return None if unknown else True

    def _elements(self, group: Group) -> Sequence[Answer]:
        """Items, those of a set once each."""
        if group.kind != "set":
            return group.items
        kept: list[Answer] = []
        for item in group.items:
            if not any(self.compare(other, item) is True for other in kept):
                kept.append(item)
        return kept

    def _matrices(self, gold: Matrix, answer: Matrix) -> bool | None:
        if [len(row) for row in gold.rows] != [len(row) for row in answer.rows]:
            return False
        pairs = ((g, a) for rows in zip(gold.rows, answer.rows, strict=True) for g, a in zip(*rows, strict=True))
        return _all(self.compare(g, a) for g, a in pairs)

    def _unions(self, gold: Answer, answer: Answer) -> bool | None:
        """Each end of a gold interval must be an end in the answer; beyond that only equal pieces are certain."""
        if isinstance(gold, Scalar | Word) or isinstance(answer, Scalar | Word):
            return False
        expected, given = (u.parts if isinstance(u, Union) else (u,) for u in (gold, answer))
        if self._unordered(expected, given):
            return True
        ends = [[end for part in parts if isinstance(part, Group) for end in part.items] for parts in (expected, given)]
        missing = any(all(self.compare(end, other) is False for other in ends[1]) for end in ends[0])
        return False if missing else None

    # -- relations ---------------------------------------------------------------------------------------------------

    def _with_relation(self, gold: Answer, answer: Answer) -> bool | None:
        if isinstance(gold, Relation) and isinstance(answer, Relation):
            return self._relations(gold, answer)
        relation, other = (gold, answer) if isinstance(gold, Relation) else (answer, gold)
        assert isinstance(relation, Relation)
        if isinstance(other, Group | Union) and (ranged := _range(relation)) is not None:
            other_first = relation is answer
            return self.compare(other, ranged[1]) if other_first else self.compare(ranged[1], other)
        value = self._stated(relation)
        if value is None:
            return None if isinstance(other, Group | Union) and "=" not in relation.signs else False
        return self.compare(value, other) if relation is gold else self.compare(other, value)

    def _stated(self, relation: Relation) -> Answer | None:
        """What `x = 2 + 3 = 5` says x to be; of a nameless chain only if it computes something and all is true."""
        if set(relation.signs) != {"="}:
            return None
        steps = relation.sides[1:] if relation.name else relation.sides
        if not relation.name:
            first = steps[0]
            if not isinstance(first, Scalar) or first.value.number is None or re.fullmatch(r"[-+0-9.,\s]*", first.text):
                return None
        agreed = [self.compare(one, next_) for one, next_ in pairwise(steps)]
        return steps[-1] if all(agreed) else None

    def _relations(self, gold: Relation, answer: Relation) -> bool | None:
        first, second = _range(gold), _range(answer)
        if first and second:
            return first[0] == second[0] and self.compare(first[1], second[1])
        if gold.name and gold.name == answer.name:
            one, other = self._stated(gold), self._stated(answer)
            if one is not None and other is not None:
                return self.compare(one, other)
        if len(gold.signs) == len(answer.signs) == 1:
            return self._equations(gold, answer)
        if len(gold.sides) != len(answer.sides):
            return None
        mirrored = Relation(answer.sides[::-1], tuple(_FLIP[sign] for sign in answer.signs[::-1]))
        for candidate in (answer, mirrored):
            if candidate.signs == gold.signs:
                pairs = zip(gold.sides, candidate.sides, strict=True)
                if _all(self.compare(g, a) for g, a in pairs):
                    return True
        return None

    def _equations(self, gold: Relation, answer: Relation) -> bool | None:
        """One sign each: the differences of the sides are proportional, for inequalities by a positive factor."""
        if gold.signs[0].strip("=") != answer.signs[0].strip("=") and _FLIP[gold.signs[0]] == answer.signs[0]:
            answer = Relation(answer.sides[::-1], (_FLIP[answer.signs[0]],))
        if gold.signs != answer.signs:
            return False
        sides = (*gold.sides, *answer.sides)
        if not all(isinstance(side, Scalar) for side in sides):
            pairs = zip(gold.sides, answer.sides, strict=True)
            return True if _all(self.compare(g, a) for g, a in pairs) else None
        a, b, c, d = (side.value for side in sides if isinstance(side, Scalar))
        if any(side.unit or side.bases for side in sides if isinstance(side, Scalar)):
            return None
        positive = gold.signs[0] not in ("=", "!=")
        left, right = self._arithmetic.subtract(a, b), self._arithmetic.subtract(c, d)
        if left.number is not None or right.number is not None:  # `5 = 5` is no equation
            return False
        return self._arithmetic.proportional(left, right, positive)


def _is_finite_decimal(value: Fraction) -> bool:
    below = value.denominator
    for prime in (2, 5):
        while below % prime == 0:
            below //= prime
    return below == 1


def _unnamed(items: Sequence[Answer]) -> tuple[str, Sequence[Answer]]:
    """`x=1, x=2` and `x=1, 2` as the name and the values; other lists as they are."""
    first = items[0]
    if not isinstance(first, Relation) or not first.name or first.signs != ("=",):
        return "", items
    values: list[Answer] = []
    for item in items:
        if isinstance(item, Relation):
            if item.name != first.name or item.signs != ("=",):
                return "", items
            values.append(item.sides[-1])
        else:
            values.append(item)
    return first.name, values


def _as_union(answer: Answer) -> Answer:
    """`x < 2 or x > 3` as a union of intervals; anything else as it is."""
    if not isinstance(answer, Group) or answer.kind != "list":
        return answer
    ranges = [_range(item) if isinstance(item, Relation) else None for item in answer.items]
    names = {found[0] for found in ranges if found}
    if None in ranges or len(names) != 1:
        return answer
    return Union(tuple(found[1] for found in ranges if found))


def _range(relation: Relation) -> tuple[str, Group] | None:
    """The variable of `1 < x <= 2` or `x > 1`, and its interval."""
    signs, sides = relation.signs, relation.sides
    if sides and signs[0] in (">", ">="):
        signs, sides = tuple(_FLIP[sign] for sign in signs[::-1]), sides[::-1]
    if not set(signs) <= {"<", "<="} or not all(isinstance(side, Scalar) for side in sides):
        return None
    names = [re.fullmatch(r"\\?[A-Za-z]+(?:_\{?\w+\}?)?(?:\([a-z]\))?", s.text) for s in sides if isinstance(s, Scalar)]
    below, above = Scalar(Arithmetic().negative(INFINITE), "-"), Scalar(INFINITE, "")
    if len(sides) == 3 and names[1] and not names[0] and not names[2]:
        kind = ("[" if signs[0] == "<=" else "(") + ("]" if signs[1] == "<=" else ")")
        return names[1].group(), Group(kind, (sides[0], sides[2]))
    if len(sides) == 2 and names[0] and not names[1]:
        return names[0].group(), Group("(" + ("]" if signs[0] == "<=" else ")"), (below, sides[1]))
    if len(sides) == 2 and names[1] and not names[0]:
        return names[1].group(), Group(("[" if signs[0] == "<=" else "(") + ")", (sides[0], above))
    return None
