"""Does a method widen what a policy can do, or only sharpen it? pass@N of arms and of the policy they began as.

All seeds are pooled: a problem's value is its mean over seeds, and intervals are over problems (95 %, bootstrap), so
that they say how far the problems bear a figure out. Differences are of the same problems.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from ....parts import UserError
from ...data.lean_goals import LeanGoals
from ...runs import evaluation
from ...runs.report.charts import NEUTRAL, PALETTE, Chart, band_trace, line_traces, make_chart
from ..constant import Constant, best_constant
from ..finished import Finished
from ..intervals import Estimate, estimate
from .base import Analysis, Cell, Findings, Table

START = "initial policy"
HALVES = {"likelier": "likelier half", "unlikelier": "less likely half", "bias": "rank bias"}
"""What a run's summary says of uplift, and how the table calls it."""


@dataclass(frozen=True)
class Measured:
    """One policy over all seeds: for each N pass@N of each problem, and the different right completions of each."""

    passes: Mapping[int, np.ndarray]
    unique_P: np.ndarray | None
    sources: Mapping[str, Mapping[int, Estimate]]
    """pass@N of each part of the problems, over seeds."""


class Unlikely(Analysis):
    """pass@N of each arm against the initial policy and the first arm, uplift by rank, and different right answers.

    Where the problems are goals for a tiny prover, the study is void if one proof text might prove `constant` of them.
    """

    constant: float = Field(default=0.2, gt=0, le=1)
    """Share of held-out goals that no single proof may prove."""

    def analyse(self, study: Finished) -> Findings:
        """Curves, differences, parts, uplift and, for Lean goals, the bound on what a constant policy proves.

        Raises:
            UserError: a run has no evaluation, or they are not of the same problems.
        """
        policies = {START: _measured(study, study.arms[0], "base")}
        policies |= {arm: _measured(study, arm, "final") for arm in study.arms}
        constant = _constant(study)
        uplift = {arm: _uplift(study, arm) for arm in study.arms}
        tables = [_curves(policies), _differences(policies)]
        tables += [_parts(policies)] if policies[START].sources else []
        tables += [_uplifts(uplift)] if any(uplift.values()) else []
        tables += [_constants(constant)] if constant is not None else []
        said = [_rise(policies), _far(policies)]
        if constant is not None and constant.bound >= self.constant:
            said.insert(0, f"Void: one proof might prove {constant.bound:.1%} of the held-out goals.")
        numbers = {
            "pass@N": {name: {n: _span(v) for n, v in one.passes.items()} for name, one in policies.items()},
            "unique right": {name: _span(one.unique_P) for name, one in policies.items() if one.unique_P is not None},
            "uplift": {arm: {name: e.to_json() for name, e in own.items()} for arm, own in uplift.items()},
            "constant": None if constant is None else constant.bound,
        }
        return Findings(tuple(tables), tuple(_charts(policies)), numbers, " ".join(said))


def _measured(study: Finished, arm: str, which: str) -> Measured:
    values = [_read(study, arm, seed, which) for seed in study.seeds]
    tallies = [evaluation.from_json(value) for value in values]
    if any(tally.problems != tallies[0].problems for tally in tallies):
        raise UserError(f"the runs of {arm} were evaluated on different problems, so that they cannot be pooled")
    curves = [evaluation.curve(tally) for tally in tallies]
    passes = {n: np.mean([curve[n] for curve in curves], axis=0) for n in curves[0]}
    unique = [tally.unique_P for tally in tallies if tally.unique_P is not None]
    parts = sorted({source for value in values for source in value.get("sources", {})})
    sources = {
        source: {n: e for n in passes if (e := estimate([_part(value, source, n) for value in values])) is not None}
        for source in parts
    }
    return Measured(passes, np.mean(unique, axis=0) if len(unique) == len(tallies) else None, sources)


def _read(study: Finished, arm: str, seed: int, which: str) -> dict[str, Any]:
    path = study.folder(arm, seed) / "evaluations" / f"{which}.json"
    if not path.is_file():
        raise UserError(f"{path.parent.parent} has no {which} evaluation; set eval.problems and run it again")
    return json.loads(path.read_text())


def _part(value: Mapping[str, Any], source: str, n: int) -> float | None:
    return value.get("sources", {}).get(source, {}).get(f"pass@{n}")


def _uplift(study: Finished, arm: str) -> dict[str, Estimate]:
    """Uplift rates of the likelier and the less likely half of ranks, and their difference, over seeds."""
    found = [study.summary(arm, seed).get("uplift") or {} for seed in study.seeds]
    columns = {name: [one[name]["mean"] if name in one else None for one in found] for name in HALVES}
    return {name: e for name, column in columns.items() if (e := estimate(column)) is not None}


def _constant(study: Finished) -> Constant | None:
    config = study.config(study.arms[0], study.seeds[0])
    data = dict(config["data"])
    if data.pop("name", None) != "lean_goals":
        return None
    goals = LeanGoals(**data).load_evaluation(0)[: config["eval"]["problems"]]
    return best_constant(goals, [study.folder(arm, seed) for arm in study.arms for seed in study.seeds])


def _span(values_P: np.ndarray) -> dict[str, Any]:
    low, high = evaluation.interval(values_P)
    return {"mean": float(np.nanmean(values_P)), "ci95": [low, high]}


def _shown(values_P: np.ndarray, signed: bool = False) -> str:
    low, high = evaluation.interval(values_P)
    return Estimate(float(np.nanmean(values_P)), low, high, len(values_P)).shown(signed=signed)


def _curves(policies: Mapping[str, Measured]) -> Table:
    ns = list(policies[START].passes)
    rows: list[tuple[Cell, ...]] = []
    for name, one in policies.items():
        unique = None if one.unique_P is None else _shown(one.unique_P)
        rows.append((name, *(_shown(one.passes[n]) for n in ns), unique))
    note = "Means over problems of means over seeds, with 95 % bootstrap intervals over problems."
    return Table("pass@N", ("policy", *(f"pass@{n}" for n in ns), "different right answers"), tuple(rows), note)


def _differences(policies: Mapping[str, Measured]) -> Table:
    first, *others = [name for name in policies if name != START]
    pairs = [(name, START) for name in (first, *others)] + [(name, first) for name in others]
    ns = list(policies[START].passes)
    rows = [
        (
            f"{name} − {other}",
            *(_shown(policies[name].passes[n] - policies[other].passes[n], signed=True) for n in ns),
        )
        for name, other in pairs
    ]
    return Table("Differences", ("", *(f"pass@{n}" for n in ns)), tuple(rows), "Of the same problems.")


def _parts(policies: Mapping[str, Measured]) -> Table:
    ends = [min(policies[START].passes), max(policies[START].passes)]
    rows: list[tuple[Cell, ...]] = []
    for source in policies[START].sources:
        found = [policies[name].sources[source] for name in policies]
        rows.append((source, *(own[n].shown() if n in own else None for own in found for n in ends)))
    columns = ("part", *(f"{name}, pass@{n}" for name in policies for n in ends))
    return Table("Parts of the problems", columns, tuple(rows), "Means over seeds with 95 % Student-t intervals.")


def _uplifts(uplift: Mapping[str, Mapping[str, Estimate]]) -> Table:
    rows = [(arm, *(own[name].shown() if name in own else None for name in HALVES)) for arm, own in uplift.items()]
    note = (
        "Share of the initial policy's right samples that became likelier, for those in the likelier and in the less "
        "likely half of their problem's ranks, and the difference. Over seeds, 95 % Student-t intervals."
    )
    return Table("Uplift by rank", ("arm", *HALVES.values()), tuple(rows), note)


def _constants(found: Constant) -> Table:
    row = (found.text, found.texts, f"{found.bound:.1%}")
    note = "At most so many of the held-out goals hold all that the proof names and can be opened by its first step."
    return Table("The best constant policy", ("proof", "of how many", "proves at most"), (row,), note)


def _rise(policies: Mapping[str, Measured]) -> str:
    """Whether pass@1 rose over the initial policy, with intervals that do not meet."""
    before = evaluation.interval(policies[START].passes[1])
    said = []
    for name, one in policies.items():
        if name == START:
            continue
        apart = evaluation.interval(one.passes[1])[0] > before[1]
        said.append(f"{name} {_shown(one.passes[1])} ({'disjoint' if apart else 'not disjoint'})")
    return f"pass@1: {START} {_shown(policies[START].passes[1])}; {'; '.join(said)}."


def _far(policies: Mapping[str, Measured]) -> str:
    """What became of pass@N at the largest N."""
    n = max(policies[START].passes)
    first, *others = [name for name in policies if name != START]
    pairs = [(name, START) for name in (first, *others)] + [(name, first) for name in others]
    said = [f"{a} − {b} {_shown(policies[a].passes[n] - policies[b].passes[n], signed=True)}" for a, b in pairs]
    return f"pass@{n}: {'; '.join(said)}."


def _charts(policies: Mapping[str, Measured]) -> list[Chart]:
    traces: list[dict[str, Any]] = []
    for i, (name, one) in enumerate(policies.items()):
        ns: Sequence[float] = list(one.passes)
        spans = [evaluation.interval(values) for values in one.passes.values()]
        colour = NEUTRAL if name == START else PALETTE[(i - 1) % len(PALETTE)]
        traces.append(band_trace(ns, [low for low, _ in spans], [high for _, high in spans], colour))
        means = [float(np.nanmean(values)) for values in one.passes.values()]
        traces += line_traces(name, ns, means, colour, "dash" if name == START else "solid")
    note = "Bands: 95 % bootstrap intervals over problems of means over seeds."
    chart = make_chart("pass@N", traces, frozenset(), note=note, x="N", y="pass@N", percent=True)
    chart.figure["layout"]["xaxis"] |= {"type": "log"}
    return [chart]
