"""Arms against each other over seeds: pass@N after training, its change, the reward, and paired differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

from pydantic import Field

from ...runs.reading import PassAt, Run
from ...runs.report.charts import Chart
from ..charts import curves, estimates
from ..finished import Finished
from ..intervals import Estimate, estimate, paired
from .base import Analysis, Findings, Table

LATE = "late reward"
By = Mapping[str, Mapping[str, Estimate | None]]
"""Of each measure, of each arm."""


@dataclass(frozen=True)
class Measure:
    """One number a run: for each arm its values over seeds. A `change` is written with its sign."""

    name: str
    values: Mapping[str, Sequence[float | None]]
    change: bool = False


class Arms(Analysis):
    """Final pass@N, its change over the base and the late reward of each arm over seeds; each arm against the first."""

    late: float = Field(default=0.25, gt=0, le=1)
    """Share of the steps, the last ones, over which the late reward is averaged."""

    def analyse(self, study: Finished) -> Findings:
        """A table of arms and one of differences to the first arm; the rewards over steps, and where the arms ended."""
        measures = self._measures(study)
        compared = [measure for measure in measures if not measure.change]
        first, *others = study.arms
        found = {m.name: {arm: estimate(m.values[arm]) for arm in study.arms} for m in measures}
        minus = {m.name: {arm: paired(m.values[arm], m.values[first]) for arm in others} for m in compared}
        tables = (_overview(study, measures, found, self.late), *([_differences(study, minus)] if others else []))
        numbers = {"arms": _numbers(found), f"minus {first}": _numbers(minus)}
        return Findings(tables, tuple(_charts(study, compared)), numbers, _verdict(study, minus))

    def _measures(self, study: Finished) -> list[Measure]:
        """pass@N for the smallest and the largest N that all runs have, their changes, and the late reward."""

        def over(read: Callable[[Run], float | None]) -> dict[str, list[float | None]]:
            return {arm: [read(study.run(arm, seed)) for seed in study.seeds] for arm in study.arms}

        common = sorted(set.intersection(*({p.n for p in run.passes("final")} for run in study.runs.values())))
        measures = []
        for n in dict.fromkeys([*common[:1], *common[-1:]]):
            measures.append(Measure(f"pass@{n}", over(partial(_final, n))))
            measures.append(Measure(f"change of pass@{n}", over(partial(_change, n)), change=True))
        return [*measures, Measure(LATE, over(self._late_reward))]

    def _late_reward(self, run: Run) -> float | None:
        _, rewards = run.series("reward")
        return fmean(rewards[-max(1, round(self.late * len(rewards))) :]) if rewards else None


def _final(n: int, run: Run) -> float | None:
    return _mean(n, run.passes("final"))


def _change(n: int, run: Run) -> float | None:
    return _mean(n, run.change())


def _mean(n: int, passes: Sequence[PassAt]) -> float | None:
    return next((p.mean for p in passes if p.n == n), None)


def _overview(study: Finished, measures: Sequence[Measure], found: By, late: float) -> Table:
    signed = {m.name: m.change for m in measures}
    rows = [
        (arm, len(study.seeds), *(_shown(by[arm], signed[name]) for name, by in found.items())) for arm in study.arms
    ]
    note = f"{_over(study)} Late reward: as trained on, shaping included, over the last {100 * late:g} % of the steps."
    return Table("Arms", ("arm", "seeds", *found), tuple(rows), note)


def _differences(study: Finished, minus: By) -> Table:
    first, *others = study.arms
    rows = [(arm, *(_shown(by[arm], signed=True) for by in minus.values())) for arm in others]
    note = f"Each arm minus {first}, paired by seed. {_over(study)}"
    return Table(f"Against {first}", ("arm", *minus), tuple(rows), note)


def _over(study: Finished) -> str:
    several = len(study.seeds) > 1
    return f"Means over {len(study.seeds)} seeds with 95 % Student-t intervals." if several else "A single seed."


def _verdict(study: Finished, minus: By) -> str:
    """What the first measure's paired differences say, an arm at a time."""
    first, *others = study.arms
    name = next(iter(minus))
    said = [f"{arm} {_said(difference)}" for arm in others if (difference := minus[name][arm]) is not None]
    return f"{name} against {first}: {'; '.join(said)}." if said else ""


def _said(difference: Estimate) -> str:
    shown = difference.shown(signed=True)
    if difference.low is None or difference.high is None:
        return f"{shown} (one seed, so nothing is known of chance)"
    clear = difference.low > 0 or difference.high < 0
    return f"{shown} ({'the interval leaves out 0' if clear else 'no clear difference'})"


def _charts(study: Finished, compared: Sequence[Measure]) -> list[Chart]:
    rewards = {arm: [study.run(arm, seed).series("reward") for seed in study.seeds] for arm in study.arms}
    ends = [estimates(f"{m.name} after training", m.values, y=m.name, percent=True) for m in compared if m.name != LATE]
    return [chart for chart in (*ends, curves("Reward", rewards, y="reward")) if chart is not None]


def _shown(value: Estimate | None, signed: bool) -> str | None:
    return None if value is None else value.shown(signed=signed)


def _numbers(found: By) -> dict[str, Any]:
    return {
        name: {arm: None if value is None else value.to_json() for arm, value in by.items()}
        for name, by in found.items()
    }
