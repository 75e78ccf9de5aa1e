"""The claims of Rewarding the Unlikely (arXiv 2506.02355), each held against a sweep of the bandit.

The first arm is GRPO as the paper has it, the second the same with the other arms' KL coefficient; the rest are what
the paper says reverses GRPO's bias. The second arm is compared with the first, the rest with the second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

from pydantic import Field

from ..experiments.bandit_problems import PASS_N
from ..intervals import Estimate, estimate, paired
from ..sweep import MAIN, settings
from ..tried import Tried
from .base import Cell, Findings, SweepAnalysis, Table
from .unlikely_charts import charts

LARGE = PASS_N[-1]
GRADES = {
    "reverses": "above it and above the initial policy",
    "undoes": "above it and not clearly below the initial policy",
    "lessens": "above it and below the initial policy",
    "no effect": "no clear difference to it",
    "worsens": "below it",
}
"""What an arm does, against the arm that it is compared with, where the first arm falls below the initial policy."""
WIDTH = 4
"""Ranks in a column."""

Place = tuple[str, str]
"""An axis and a label."""
Map = Mapping[Place, Mapping[str, "Outcome"]]
"""Every arm that is there, in every setting."""


@dataclass(frozen=True)
class Outcome:
    """What became of an arm in a setting: `gained` is pass@N minus the initial policy's, by N; `over` is pass@N at the
    largest N, and `steeper` the rank bias, minus those of the arm that it is compared with."""

    bias: Estimate
    gained: Mapping[int, Estimate]
    over: Estimate | None
    steeper: Estimate | None

    def to_json(self) -> dict[str, Any]:
        """The estimates, of pass@N those at either end."""
        kept = {"bias": self.bias, **{f"pass@{n}": self.gained[n] for n in (1, LARGE)}}
        kept |= {} if self.over is None or self.steeper is None else {"over": self.over, "steeper": self.steeper}
        return {name: own.to_json() for name, own in kept.items()}


class UnlikelyToy(SweepAnalysis):
    """Uplift by rank, pass@N, and where on the map each claim holds."""

    ends: int = Field(default=8, ge=1)
    """The rank bias is the mean uplift of so many likeliest ranks minus that of so many least likely ones."""
    rates: list[str] = Field(default=[])
    """Axes of the map whose labels are rising learning rates: arms are compared along each at equal gains of pass@1."""
    gains: list[float] = Field(default=[0.2, 0.3, 0.35], min_length=1)
    """Those gains, as shares."""

    def analyse(self, study: Tried) -> Findings:
        """The claims, the main setting's curves, and the map."""
        found = {place: self._outcomes(study, place) for place in _places(study)}
        claims = self._claims(study, found)
        tables = [claims, _passes(study), self._uplifts(study), _methods(study)]
        if len(found) > 1:
            tables += [_grades(study, found), _gains(study, found, LARGE), _gains(study, found, 1)]
            tables.append(self._biases(study, found))
        rates = [axis for axis in self.rates if axis in study.study.grid.map]
        if rates:
            tables.insert(4, self._at_equal_gains(study, rates))
        verdict = " ".join(f"{claim}: {said}." for claim, said, *_ in claims.rows)
        numbers = {_name(place): {arm: own.to_json() for arm, own in at.items()} for place, at in found.items()}
        return Findings(tuple(tables), charts(study, rates), numbers, verdict)

    def bias(self, found: Mapping[str, Any]) -> list[float | None]:
        """Of each seed the rank bias; None where an end has no right sample."""
        ends = [(_mean(ranks[: self.ends]), _mean(ranks[-self.ends :])) for ranks in found["uplift"]]
        return [None if likely is None or unlikely is None else likely - unlikely for likely, unlikely in ends]

    def _outcomes(self, study: Tried, place: Place) -> dict[str, Outcome]:
        outcomes = {}
        for arm in study.arms if place == (MAIN, MAIN) else study.mapped:
            own, against = study.at(arm, *place), compared_with(study, arm)
            other = None if against is None else study.at(against, *place)
            outcomes[arm] = Outcome(
                bias=_there(estimate(self.bias(own))),
                gained={n: _there(estimate(_gained(own, n))) for n in PASS_N},
                over=None if other is None else paired(_pass(own, LARGE), _pass(other, LARGE)),
                steeper=None if other is None else paired(self.bias(own), self.bias(other)),
            )
        return outcomes

    def _claims(self, study: Tried, found: Map) -> Table:
        first, *others = study.arms
        main = found[MAIN, MAIN]
        biased = [_sign(at[first].bias) for at in found.values()]
        fallen = [_sign(at[first].gained[LARGE]) for at in found.values()]
        rows: list[tuple[Cell, ...]] = [
            (
                f"{first}'s uplift falls with rank",
                "confirmed" if _sign(main[first].bias) > 0 else "refuted",
                f"rank bias {plus_minus(main[first].bias, '+')}",
                _counted(biased, {1: "falls", 0: "unclear", -1: "rises"}),
            ),
            (
                f"{first}'s pass@{LARGE} falls below the initial policy's",
                "confirmed" if _sign(main[first].gained[LARGE]) < 0 else "refuted",
                f"{points(main[first].gained[LARGE])} points",
                _counted(fallen, {-1: "below", 0: "unclear", 1: "above"}),
            ),
        ]
        for arm in others:
            own, against = main[arm], compared_with(study, arm)
            evidence = (
                f"{points(own.over)} points against {against}, {points(own.gained[LARGE])} against the initial "
                f"policy; rank bias {plus_minus(own.steeper, '+')} against {against}"
            )
            grades = [grade(at, first, arm) for at in found.values() if arm in at]
            on_map = _counted(grades, {word: word for word in (*GRADES, "better", "worse")})
            mark = grade(main, first, arm)
            said = "confirmed" if mark in ("reverses", "undoes") else "refuted"
            rows.append((f"{arm} reverses it", f"{said} ({mark})", evidence, on_map))
        return Table("The claims", ("claim", "main setting", "evidence", "on the map"), tuple(rows), _note(study))

    def _uplifts(self, study: Tried) -> Table:
        ranks = len(study.at(study.arms[0])["uplift"][0])
        rows = []
        for arm in study.arms:
            own = study.at(arm)
            groups = [[_mean(seed[i : i + WIDTH]) for seed in own["uplift"]] for i in range(0, ranks, WIDTH)]
            bias = plus_minus(estimate(self.bias(own)), "+")
            rows.append((arm, *(plus_minus(estimate(group)) for group in groups), bias))
        note = (
            f"Of the right ones among {ranks} samples a problem of the initial policy, ranked by their likelihood "
            "under it, 1 the likeliest: the share whose log-probability rose. Bias: the mean over the "
            f"{self.ends} likeliest ranks minus that over the {self.ends} least likely. {_over(study)}"
        )
        heads = [f"{i + 1}–{i + WIDTH}" for i in range(0, ranks, WIDTH)]
        return Table("Uplift by rank, main setting", ("arm", *heads, "bias"), tuple(rows), note)

    def _biases(self, study: Tried, found: Map) -> Table:
        rows = [(_name(p), *(plus_minus(at[arm].bias, "+") for arm in study.mapped)) for p, at in found.items()]
        note = (
            f"Mean uplift of the {self.ends} likeliest ranks minus that of the {self.ends} least likely; "
            f"positive: the uplift falls with rank. {_over(study)}"
        )
        return Table("Map: rank bias", ("setting", *study.mapped), tuple(rows), note)

    def _at_equal_gains(self, study: Tried, rates: Sequence[str]) -> Table:
        second, rows = study.arms[1], []
        for axis in rates:
            at = {arm: [_crossings(study, axis, arm, gain) for gain in self.gains] for arm in study.mapped}
            for arm, own in at.items():
                level = (None if None in one else points(estimate(one)) for one in own)
                pairs = zip(own, at[second], strict=True)
                minus = (None if arm == second or None in one + two else points(paired(one, two)) for one, two in pairs)
                rows.append((axis, arm, *level, *minus))
        note = (
            f"Change of pass@{LARGE}, points, at the lowest rate along an axis of the map at which pass@1 has risen by "
            "so much: between rates interpolated linearly, a seed by itself. An empty cell: not every seed rises from "
            f"less to so much. {_over(study)}"
        )
        gains = [f"{100 * gain:+g} of pass@1" for gain in self.gains]
        heads = (*(f"at {gain}" for gain in gains), *(f"against {second} at {gain}" for gain in gains))
        return Table(f"pass@{LARGE} at an equal gain of pass@1", ("along", "arm", *heads), tuple(rows), note)


def _crossings(study: Tried, axis: str, arm: str, gain: float) -> list[float | None]:
    """Of each seed the change of pass@N at the largest N where that of pass@1, along an axis of rates, is `gain`."""
    by_rate = [study.at(arm, axis, label) for label in study.study.grid.map[axis]]
    first, large = (zip(*(_gained(found, n) for found in by_rate), strict=True) for n in (1, LARGE))
    return [crossing(x, y, gain) for x, y in zip(first, large, strict=True)]


def crossing(x: Sequence[float], y: Sequence[float], level: float) -> float | None:
    """y where x, along a line of straight pieces, first reaches `level`; None where it never does or begins above."""
    for (x0, y0), (x1, y1) in pairwise(zip(x, y, strict=True)):
        if x0 < level <= x1:
            return y0 + (y1 - y0) * (level - x0) / (x1 - x0)
    return None


def compared_with(study: Tried, arm: str) -> str | None:
    """The arm that an arm is compared with: the second with the first, the rest with the second."""
    place = study.arms.index(arm)
    return study.arms[min(place, 2) - 1] if place else None


def grade(at: Mapping[str, Outcome], first: str, arm: str) -> str:
    """A word of `GRADES`; better, no effect or worse where the first arm does not fall below the initial policy."""
    fell, better = _sign(at[first].gained[LARGE]) < 0, _sign(at[arm].over)
    if better == 0:
        return "no effect"
    if not fell:
        return "better" if better > 0 else "worse"
    return ("lessens", "undoes", "reverses")[_sign(at[arm].gained[LARGE]) + 1] if better > 0 else "worsens"


def _places(study: Tried) -> list[Place]:
    return [(MAIN, MAIN), *((axis, label) for axis, label, _ in settings(study.study.grid))]


def _name(place: Place) -> str:
    return "main" if place == (MAIN, MAIN) else " ".join(place)


def _pass(found: Mapping[str, Any], n: int, of: str = "trained") -> list[float]:
    return [own[PASS_N.index(n)] for own in found[of]]


def _gained(found: Mapping[str, Any], n: int) -> list[float]:
    return [after - before for after, before in zip(_pass(found, n), _pass(found, n, "initial"), strict=True)]


def _passes(study: Tried) -> Table:
    initial = [plus_minus(estimate(_pass(study.at(study.arms[0]), n, "initial")), scale=100) for n in PASS_N]
    rows: list[tuple[Cell, ...]] = [("initial policy", *initial, None)]
    for arm in study.arms:
        own = study.at(arm)
        gained = [estimate(_gained(own, n)) for n in PASS_N]
        below = [n for n, one in zip(PASS_N, gained, strict=True) if _sign(one) < 0]
        rows.append((arm, *(points(one) for one in gained), str(below[0]) if below else "never"))
    note = (
        "The initial policy's pass@N, %, exact on problems not trained on; of each arm what training changed, points. "
        f"Last: the first N at which an arm is clearly below the initial policy. {_over(study)}"
    )
    return Table("pass@N, main setting", ("arm", *(f"N={n}" for n in PASS_N), "below from"), tuple(rows), note)


def _methods(study: Tried) -> Table:
    methods = len(study.at(study.arms[0])["gains"][0])
    rows = [
        (arm, *(plus_minus(estimate(seeds), "+") for seeds in zip(*study.at(arm)["gains"], strict=True)))
        for arm in study.arms
    ]
    note = (
        "Mean change of the log2-probability of each method of a topic, 1 initially the likeliest, over the problems "
        f"that it solves, bits. {_over(study)}"
    )
    heads = (f"method {i}" for i in range(1, methods + 1))
    return Table("What became of each method, main setting", ("arm", *heads), tuple(rows), note)


def _grades(study: Tried, found: Map) -> Table:
    first, *others = study.mapped
    signs = {1: "falls", 0: "unclear", -1: "rises"}
    rows = []
    for place, at in found.items():
        fallen = {-1: "below", 0: "unclear", 1: "above"}[_sign(at[first].gained[LARGE])]
        rows.append((_name(place), signs[_sign(at[first].bias)], fallen, *(grade(at, first, arm) for arm in others)))
    head = ("setting", f"{first}'s uplift with rank", f"{first}'s pass@{LARGE}", *others)
    return Table("Map: the claims", head, tuple(rows), _note(study))


def _gains(study: Tried, found: Map, n: int) -> Table:
    rows = [(_name(place), *(points(at[arm].gained[n]) for arm in study.mapped)) for place, at in found.items()]
    note = f"pass@{n} minus the initial policy's, points. {_over(study)}"
    return Table(f"Map: change of pass@{n}", ("setting", *study.mapped), tuple(rows), note)


def _note(study: Tried) -> str:
    first, second, *_ = study.arms
    return (
        f"{_over(study)} Differences are paired by seed, and count when their interval leaves out 0, each by itself: "
        f"without any effect one in twenty would. {second} is "
        f"compared with {first}, the others with {second}, at N = {LARGE}: "
        f"{'; '.join(f'{word}: {meaning}' for word, meaning in GRADES.items())}. Better and worse: where {first} does "
        "not fall below the initial policy, so that there is nothing to reverse."
    )


def _over(study: Tried) -> str:
    seeds = len(study.study.grid.seeds)
    return f"Means over {seeds} seeds with 95 % Student-t intervals." if seeds > 1 else "A single seed."


def _counted(marks: Sequence[Any], words: Mapping[Any, str]) -> str:
    counts = Counter(marks)
    return f"{', '.join(f'{words[mark]} {counts[mark]}' for mark in words if counts[mark])} of {len(marks)}"


def _mean(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return fmean(there) if there else None


def _there(found: Estimate | None) -> Estimate:
    assert found is not None
    return found


def _sign(found: Estimate | None) -> int:
    """1 or −1 where the interval leaves out 0; 0 also for a single seed, of whose chance nothing is known."""
    if found is None or found.low is None or found.high is None:
        return 0
    return (found.low > 0) - (found.high < 0)


def points(found: Estimate | None) -> str | None:
    """A difference of shares in points: `+1.20 ± 0.31`."""
    return plus_minus(found, "+", 100)


def plus_minus(found: Estimate | None, sign: str = "", scale: float = 1.0) -> str | None:
    """`0.412 ± 0.031`, or in points two decimals."""
    if found is None:
        return None
    digits = ".2f" if scale > 1 else ".3f"
    half = "" if found.low is None or found.high is None else f" ± {scale * (found.high - found.low) / 2:{digits}}"
    return f"{scale * found.mean:{sign}{digits}}{half}".replace("-", "−")
