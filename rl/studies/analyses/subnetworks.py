"""Sparsity of updates by tolerance, with and without rounding; ranks; overlap across seeds; masked re-runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ...runs.reading import Run
from ...runs.report.charts import Chart
from ..charts import curves, estimates
from ..finished import Finished
from ..intervals import Estimate, estimate, paired
from .base import Analysis, Cell, Findings, Table

if TYPE_CHECKING:
    from ...updates.maps import UpdateMap
    from ...updates.weights import Weights

SHOWN = (0.0, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3)
"""Tolerances at which sparsity is tabled."""
AGREE = (1e-5, 1e-4, 1e-3)
"""Tolerances at which the ends of two runs are said to agree."""
MATRICES = 64
"""Largest matrices whose ranks are averaged."""

PerSeed = Mapping[str, Sequence[float]]


class Subnetworks(Analysis):
    """Every arm's update map, and the ends of arms with a mask against that of the run which the mask is from."""

    def analyse(self, study: Finished) -> Findings:
        """Four tables: sparsity, rank and reward, overlap of seeds, agreement with the run of the mask."""
        ends = {(arm, seed): _End.of(study, arm, seed) for arm in study.arms for seed in study.seeds}
        sparsity = _Rows(study, lambda arm, seed: ends[arm, seed].figures())
        tables = [_sparsity_table(study, sparsity), _outcome_table(study, sparsity)]
        numbers: dict[str, Any] = {"arms": sparsity.numbers()}
        if len(study.seeds) > 1:
            overlap, found = _overlap_table(study, ends)
            tables.append(overlap)
            numbers["overlap"] = found
        agreement = _agreement_table(study, ends)
        if agreement is not None:
            tables.append(agreement[0])
            numbers["agreement"] = agreement[1]
        return Findings(tuple(tables), tuple(_charts(study, sparsity)), numbers)


@dataclass(frozen=True)
class _End:
    """One finished run: where its weights began and ended, and the map between."""

    base: Weights
    tuned: Weights
    update: UpdateMap
    run: Run

    @classmethod
    def of(cls, study: Finished, arm: str, seed: int) -> _End:
        from ...updates.maps import compare
        from ...updates.sources import open_pair

        base, tuned = open_pair(str(study.folder(arm, seed)), None)
        return cls(base, tuned, compare(base, tuned, spectra=MATRICES), study.run(arm, seed))

    def figures(self) -> dict[str, float]:
        """All numbers of the run."""
        stored, wide = self.update.total(), self.update.total("float32")
        ranks = [t.spectrum.numerical_rank / t.spectrum.full for t in self.update.tensors if t.spectrum is not None]
        final = {p.n: p.mean for p in self.run.passes("final")}
        _, rewards = self.run.series("reward")
        return {
            **{f"unchanged within {tolerance:g}": stored.within(tolerance) for tolerance in SHOWN},
            "unchanged in float32": wide.unchanged,
            "rounding only": wide.rounding_only,
            "held against one step": _held_against(self.base, self.run.config["learner"]["lr"]),
            "relative norm": wide.relative_norm,
            "rank / full": fmean(ranks) if ranks else 0.0,
            "pass@1": final[min(final)] if final else 0.0,
            "late reward": fmean(rewards[-max(1, len(rewards) // 4) :]) if rewards else 0.0,
        }


def _held_against(base: Weights, step: float) -> float:
    """The share of weights that rounding to their dtype leaves where they are, whether moved up or down by `step`."""
    held = total = 0
    for name in base.kept:
        weight = base.read(name)
        for moved in (weight.float() + step, weight.float() - step):
            held += int((moved.to(weight.dtype) == weight).sum())
            total += weight.numel()
    return held / max(total, 1)


class _Rows:
    """Each number of each arm over seeds."""

    def __init__(self, study: Finished, figures: Callable[[str, int], Mapping[str, float]]) -> None:
        found = {arm: [figures(arm, seed) for seed in study.seeds] for arm in study.arms}
        self.names = list(next(iter(found.values()))[0])
        self.values: dict[str, PerSeed] = {
            name: {arm: [row[name] for row in rows] for arm, rows in found.items()} for name in self.names
        }

    def numbers(self) -> dict[str, Any]:
        """By name and arm, as JSON."""
        return {n: {arm: _json(estimate(v)) for arm, v in by.items()} for n, by in self.values.items()}


def _sparsity_table(study: Finished, rows: _Rows) -> Table:
    names = [*(f"unchanged within {tolerance:g}" for tolerance in SHOWN), "unchanged in float32"]
    names += ["rounding only", "held against one step"]
    body = tuple((arm, *(_shown(rows.values[name][arm]) for name in names)) for arm in study.arms)
    note = (
        f"Shares of all weights{_over(study)}. In float32: of the masters, where there are any, else as stored. "
        "Rounding only: what bfloat16 would have swallowed of an update of the same norm, spread at random. "
        "One step: what it holds against a single step of the peak rate, about the most by which Adam moves a weight."
    )
    head = ("arm", *(f"≤ {tolerance:g}" for tolerance in SHOWN), "in float32", "rounding only", "one step")
    return Table("Unchanged weights by tolerance", head, body, note)


def _outcome_table(study: Finished, rows: _Rows) -> Table:
    names = ["rank / full", "relative norm", "pass@1", "late reward"]
    first = study.arms[0]
    body = []
    for arm in study.arms:
        against = paired(rows.values["pass@1"][arm], rows.values["pass@1"][first]) if arm != first else None
        change = None if against is None else against.shown(signed=True)
        digits = {"relative norm": ".2e"}
        body.append((arm, *(_shown(rows.values[name][arm], digits.get(name, ".3f")) for name in names), change))
    note = f"Means{_over(study)}; rank: numerical rank of the stored update over the full one, mean over matrices."
    return Table("Rank and reward", ("arm", *names, f"pass@1 minus {first}"), tuple(body), note)


def _overlap_table(study: Finished, ends: Mapping[tuple[str, int], _End]) -> tuple[Table, dict[str, Any]]:
    """Every two seeds of an arm, at tolerance 0: overlap of what changed, and what chance would give."""
    from ...updates.overlap import overlaps

    keys = [f"{law}_of_first" for law in ("overlap", "chance", "matched", "sized", "sized_low", "sized_high")]
    found = {}
    for arm in study.arms:
        sides = [(ends[arm, seed].base, ends[arm, seed].tuned) for seed in study.seeds]
        figures = [pair.total().figures() for pair in overlaps(sides).pairs]
        found[arm] = {key: fmean(row[key] for row in figures) for key in keys}
    body = tuple((arm, *(f"{row[key]:.3f}" for key in keys)) for arm, row in found.items())
    pairs = len(list(combinations(study.seeds, 2)))
    note = (
        f"Of the weights that one seed changed, the share that another changed too; means over {pairs} pairs. "
        "By chance: sets of these sizes spread over the model; matched: within each tensor; sized: among a tensor's "
        "weights of one exponent, which rounding treats alike, with the ends of its 95 % interval."
    )
    head = ("arm", "overlap", "by chance", "matched", "sized", "sized, low", "sized, high")
    return Table("Overlap of seeds", head, body, note), found


def _agreement_table(study: Finished, ends: Mapping[tuple[str, int], _End]) -> tuple[Table, dict[str, Any]] | None:
    """Arms with a mask against the arm that the mask is from: equal ends, at each tolerance."""
    from ...updates.maps import compare

    body: list[tuple[Cell, ...]] = []
    found: dict[str, Any] = {}
    for arm in study.arms:
        source = _mask_source(study, arm)
        if source is None:
            continue
        maps = [compare(ends[source, seed].tuned, ends[arm, seed].tuned).total() for seed in study.seeds]
        shares = {f"{tolerance:g}": [m.within(tolerance) for m in maps] for tolerance in (0.0, *AGREE)}
        distance = [m.norm / ends[source, s].update.total().norm for m, s in zip(maps, study.seeds, strict=True)]
        found[arm] = {k: _json(estimate(v)) for k, v in {**shares, "distance": distance}.items()}
        body.append((arm, source, *(_shown(values) for values in shares.values()), _shown(distance)))
    if not body:
        return None
    note = (
        f"Share of all weights on which the two runs of a seed end alike{_over(study)}; distance: between the two "
        "ends, over the norm of the unmasked run's update."
    )
    head = ("arm", "against", "equal", *(f"within {tolerance:g}" for tolerance in AGREE), "distance")
    return Table("Agreement of masked runs with the unmasked one", head, tuple(body), note), found


def _mask_source(study: Finished, arm: str) -> str | None:
    """The arm whose run an arm's mask is from."""
    mask = study.study.grid.arms[arm].get("learner.mask")
    run = mask.get("run") if isinstance(mask, Mapping) else None
    return run.strip("{}") if isinstance(run, str) and run.strip("{}") in study.arms else None


def _charts(study: Finished, rows: _Rows) -> list[Chart]:
    def series(key: str) -> dict[str, list[Any]]:
        return {arm: [study.run(arm, seed).series(key) for seed in study.seeds] for arm in study.arms}

    charts = [
        estimates("Unchanged weights", rows.values["unchanged within 0"], percent=True),
        estimates("pass@1 after training", rows.values["pass@1"], percent=True),
        curves("Unchanged weights over steps", series("updates/unchanged"), percent=True),
        curves("Never touched over steps", series("updates/never_touched"), percent=True),
        curves("Reward", series("reward"), y="reward"),
    ]
    return [chart for chart in charts if chart is not None]


def _over(study: Finished) -> str:
    several = len(study.seeds) > 1
    return f", means over {len(study.seeds)} seeds with 95 % Student-t intervals" if several else ", of one seed"


def _shown(values: Sequence[float], digits: str = ".3f") -> str:
    found = estimate(values)
    assert found is not None
    if found.low is None or found.high is None:
        return f"{found.mean:{digits}}"
    return f"{found.mean:{digits}} ± {(found.high - found.low) / 2:{digits}}"


def _json(found: Estimate | None) -> dict[str, Any] | None:
    return None if found is None else found.to_json()
