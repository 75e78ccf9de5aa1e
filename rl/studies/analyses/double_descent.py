"""Rebounds of the loss by rank and rate, with and without perturbation; where runs ended, and how sharply it curves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from math import log10
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import Field

from ...runs.files import write_json
from ...runs.reading import Run
from ...runs.report.charts import Chart, Series
from ..charts import curves
from ..finished import Finished
from ..intervals import Estimate, estimate, paired, share
from ..rebounds import largest_rise, levels, rebound
from .base import Analysis, Cell, Findings, Table

PERTURBATION = "learner.perturbation"
HELD_OUT_WINDOW = 3
"""Measurements of the held-out loss over which it is smoothed: it has no noise of batches, but it jumps."""
HELD_OUT = "eval/held_out/loss"
NOISE = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Multiples of GGPO's noise at which the loss is taken."""
ASCENT = (-0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2)
"""Distances along the gradient, of each weight matrix, at which the loss is taken."""
SHOWN_NOISE, SHOWN_ASCENT = 8.0, 0.1
"""Those of the table."""
KEPT = "landscape.json"
"""In a run's folder: what was measured around its end."""
DIRECTIONS = 2
"""Draws of the noise."""

OUTCOMES = ("held-out", "lowest held-out", "pass@1", "rise", "held-out rise")

Values = Mapping[str, Sequence[float]]
"""Of each arm, one a seed."""


class DoubleDescent(Analysis):
    """Rebounds and recoveries of the training loss; arms with a perturbation against those without; sharpness."""

    window: int = Field(default=15, ge=3)
    """Steps over which training losses are smoothed, and for which a rise must last; see `rl/studies/rebounds.py`."""
    others: list[int] = Field(default=[10, 20])
    """Other windows, to see whether the choice matters."""
    problems: int = Field(default=8, ge=1)
    """Held-out problems over whose solutions the loss's surroundings are measured."""
    products: int = Field(default=30, ge=1)
    """Products with the Hessian for one eigenvalue, at most."""

    def analyse(self, study: Finished) -> Findings:
        """Four tables: rebounds, where the arms ended, perturbations, sharpness."""
        ends = _each(study, lambda arm, seed: _end(study.run(arm, seed), self.window))
        around = _all_around(study, self.problems, self.products)
        found = {name: _values(ends, name) for name in OUTCOMES}
        sharp = {name: _values(around, name) for name in ("trained", "effective", "noise", "ascent", "residual")}
        tables = [self._rebounds(study), _outcomes(study, found), _sharpness(study, sharp)]
        if twins(study):
            tables.append(_against(study, found, sharp))
        numbers = {
            "rebounds": self._counts(study),
            **{name: _numbers(values) for name, values in {**found, **sharp}.items()},
        }
        return Findings(tuple(tables), tuple(self._charts(study, around)), numbers, self._verdict(study))

    def _counts(self, study: Finished) -> dict[str, dict[str, int]]:
        """Of each arm: how many seeds rebounded, and recovered, by window."""
        found = {}
        for arm in study.arms:
            found[arm] = {}
            for window in (self.window, *self.others):
                seen = [rebound(study.run(arm, seed).series("loss")[1], window) for seed in study.seeds]
                there = [one for one in seen if one is not None]
                found[arm][f"rebounded/{window}"] = len(there)
                found[arm][f"recovered/{window}"] = sum(one.recovered_at is not None for one in there)
        return found

    def _rebounds(self, study: Finished) -> Table:
        counts, seeds = self._counts(study), len(study.seeds)
        rows: list[tuple[Cell, ...]] = []
        for arm in study.arms:
            seen = [rebound(study.run(arm, seed).series("loss")[1], self.window) for seed in study.seeds]
            there = [one for one in seen if one is not None]
            low, high = share(len(there), seeds)
            other = [_of(counts[arm][f"rebounded/{w}"], counts[arm][f"recovered/{w}"], seeds) for w in self.others]
            mine = (
                f"{len(there)} of {seeds} [{low:.2f}, {high:.2f}]",
                f"{sum(one.recovered_at is not None for one in there)} of {seeds}",
                f"{fmean(one.height for one in there):.0%}" if there else None,
                _span([one.bottom_at + 1 for one in there]),
                _span([one.top_at + 1 for one in there]),
            )
            rows.append((arm, *mine, *other))
        head = ("arm", "rebounded", "and recovered", "mean height", "bottom", "top")
        note = (
            f"Seeds whose training loss, a running median of {self.window} steps, fell and then stood out above its "
            f"lowest level for {self.window} steps and more, by 4 standard errors and 5 %, with the 95 % "
            "Clopper-Pearson interval of the share; those that came below that level again; the height of the rise "
            "over the bottom, and the steps of both. Last: rebounded/recovered by other windows. With a perturbation, "
            "the training loss is that at the perturbed weights."
        )
        return Table("Rebounds of the training loss", (*head, *(f"window {w}" for w in self.others)), tuple(rows), note)

    def _charts(self, study: Finished, around: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Chart]:
        charts = []
        for title, arms in _groups(study).items():
            smooth = {arm: [_smoothed(study.run(arm, seed), self.window) for seed in study.seeds] for arm in arms}
            held_out = {arm: [study.run(arm, seed).series(HELD_OUT) for seed in study.seeds] for arm in arms}
            noise = {arm: [(list(NOISE), own["along noise"]) for own in around[arm]] for arm in arms}
            ascent = {arm: [(list(ASCENT), own["along ascent"]) for own in around[arm]] for arm in arms}
            charts += [
                _logarithmic(curves(f"Training loss, {title}", smooth, y="nats a token")),
                _logarithmic(curves(f"Held-out loss, {title}", held_out, y="nats a token")),
                _along(curves(f"Loss along GGPO's noise, {title}", noise, y="nats a token"), "multiples of the noise"),
                _along(curves(f"Loss along the gradient, {title}", ascent, y="nats a token"), "distance in a matrix"),
            ]
        return [chart for chart in charts if chart is not None]

    def _verdict(self, study: Finished) -> str:
        counts, seeds, moved = self._counts(study), len(study.seeds), twins(study)

        def said(arms: Sequence[str]) -> str:
            both = [(counts[arm][f"rebounded/{self.window}"], counts[arm][f"recovered/{self.window}"]) for arm in arms]
            return (
                f"{sum(a for a, _ in both)} of {len(arms) * seeds} runs rebounded, {sum(b for _, b in both)} recovered"
            )

        text = f"Unperturbed: {said([arm for arm in study.arms if arm not in moved])}."
        bases = list(dict.fromkeys(moved.values()))
        return text + (f" Of {', '.join(bases)}: {said(bases)}; perturbed: {said(list(moved))}." if moved else "")


def twins(study: Finished) -> dict[str, str]:
    """Each arm with a perturbation, and the arm that differs from it in nothing else."""
    grid = study.study.grid.arms
    plain = {arm: own for arm, own in grid.items() if PERTURBATION not in own}
    found = {}
    for arm, own in grid.items():
        rest = {key: value for key, value in own.items() if key != PERTURBATION}
        twin = next((other for other, theirs in plain.items() if theirs == rest), None)
        if arm not in plain and twin is not None:
            found[arm] = twin
    return found


@dataclass(frozen=True)
class _Named:
    """A column: its numbers, and how they are written."""

    title: str
    values: Values
    digits: str = ".3f"


def _each(study: Finished, read: Callable[[str, int], Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    return {arm: [read(arm, seed) for seed in study.seeds] for arm in study.arms}


def _values(found: Mapping[str, Sequence[Mapping[str, Any]]], name: str) -> Values:
    return {arm: [own[name] for own in each] for arm, each in found.items()}


def _end(run: Run, window: int) -> dict[str, float]:
    """Where a run ended, and its highest rise whether it counts or not."""
    _, held_out = run.series(HELD_OUT)
    passes = {p.n: p.mean for p in run.passes("final")}
    return {
        "held-out": held_out[-1],
        "lowest held-out": min(held_out),
        "pass@1": passes[1],
        "rise": largest_rise(run.series("loss")[1], window),
        "held-out rise": largest_rise(held_out, HELD_OUT_WINDOW),
    }


def _all_around(study: Finished, problems: int, products: int) -> dict[str, list[Mapping[str, Any]]]:
    """`_around` of each run: a process a core, of one thread each, as the runs were trained."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    folders = [study.folder(arm, seed) for arm in study.arms for seed in study.seeds]
    workers = min(os.cpu_count() or 1, len(folders))
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_one_thread) as pool:
        found = iter(list(pool.map(_around, folders, repeat(problems), repeat(products))))
    return {arm: [next(found) for _ in study.seeds] for arm in study.arms}


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _around(run: Path, problems: int, products: int) -> dict[str, Any]:
    """Eigenvalues, and the loss along directions in the effective weights; kept in the run's folder: it takes long."""
    from ...landscape import ascent, open_landscapes, row_noise

    file, settings = run / KEPT, {"problems": problems, "products": products}
    known = json.loads(file.read_bytes()) if file.is_file() else {}
    if known.get("settings") == settings:
        return known
    at = open_landscapes(run, problems)
    sharp = {space: own.sharpness(products) for space, own in at.items()}
    whole = at["effective"]
    noisy = [whole.along(row_noise(whole, seed), NOISE) for seed in range(DIRECTIONS)]
    along_noise = [fmean(losses) for losses in zip(*noisy, strict=True)]
    along_ascent = whole.along(ascent(whole), ASCENT)
    found = {
        "settings": settings,
        **{space: own.value for space, own in sharp.items()},
        "residual": max(own.residual for own in sharp.values()),
        "along noise": along_noise,
        "along ascent": along_ascent,
        "noise": along_noise[NOISE.index(SHOWN_NOISE)] - along_noise[0],
        "ascent": along_ascent[ASCENT.index(SHOWN_ASCENT)] - along_ascent[ASCENT.index(0.0)],
    }
    write_json(file, found)
    return found


def _outcomes(study: Finished, found: Mapping[str, Values]) -> Table:
    columns = [_Named(name, found[name]) for name in OUTCOMES]
    note = (
        "Loss on held-out solutions at the end and at its lowest, nats a token, at the weights without perturbation; "
        "the largest rise of the smoothed loss, in training and held out, over its lowest level before, as a share of "
        f"that, whether it stands out of the noise or not{_over(study)}."
    )
    return _table("Where the arms ended", study.arms, columns, note)


def _sharpness(study: Finished, sharp: Mapping[str, Values]) -> Table:
    columns = [
        _Named("in the trained parameters", sharp["trained"], ".3g"),
        _Named("in the effective weights", sharp["effective"], ".3g"),
        _Named(f"rise in {SHOWN_NOISE:g} × noise", sharp["noise"], ".2g"),
        _Named(f"rise along the gradient by {SHOWN_ASCENT:g}", sharp["ascent"], ".2g"),
    ]
    worst = max(value for values in sharp["residual"].values() for value in values)
    note = (
        "Largest eigenvalue of the Hessian of the loss where runs ended (largest residual "
        f"|Hv − λv|/|λ|: {worst:.2f}), in A and B, which scaling A against B changes, and in W + s B A, which it does "
        f"not; what the loss gains by GGPO's noise and along the gradient, nats a token{_over(study)}."
    )
    return _table("Sharpness where the arms ended", study.arms, columns, note)


def _against(study: Finished, found: Mapping[str, Values], sharp: Mapping[str, Values]) -> Table:
    """Each perturbed arm minus its twin, paired by seed."""
    values: dict[str, Mapping[str, Sequence[float | None]]] = {
        "held-out": found["held-out"],
        "pass@1": found["pass@1"],
        "rise": found["rise"],
        "held-out rise": found["held-out rise"],
        "log10 sharpness, trained": _logs(sharp["trained"]),
        "log10 sharpness, effective": _logs(sharp["effective"]),
    }
    rows = [
        (arm, twin, *(_shown(paired(own[arm], own[twin]), signed=True) for own in values.values()))
        for arm, twin in twins(study).items()
    ]
    note = f"Differences paired by seed{_over(study)}. Columns as in the other tables; of sharpness, of its logarithm."
    return Table("Perturbed minus unperturbed", ("arm", "minus", *values), tuple(rows), note)


def _table(title: str, arms: Sequence[str], columns: Sequence[_Named], note: str) -> Table:
    rows = tuple((arm, *(_plus_minus(c.values[arm], c.digits) for c in columns)) for arm in arms)
    return Table(title, ("arm", *(c.title for c in columns)), rows, note)


def _groups(study: Finished) -> dict[str, list[str]]:
    """Titles and arms of the charts: all without perturbation; and each that has perturbed twins, beside them."""
    moved = twins(study)
    groups = {"unperturbed": [arm for arm in study.arms if arm not in moved]}
    for base in dict.fromkeys(moved.values()):
        groups[f"{base} and perturbed"] = [base, *(arm for arm, twin in moved.items() if twin == base)]
    return groups


def _smoothed(run: Run, window: int) -> Series:
    steps, losses = run.series("loss")
    s_T, _ = levels(losses, window)
    return list(steps)[window - 1 :], [float(s) for s in s_T[window - 1 :]]


def _logarithmic(chart: Chart | None) -> Chart | None:
    if chart is not None:
        chart.figure["layout"]["yaxis"]["type"] = "log"
    return chart


def _along(chart: Chart | None, title: str) -> Chart | None:
    if chart is not None:
        chart.figure["layout"]["xaxis"]["title"] = {"text": title}
    return chart


def _of(rebounded: int, recovered: int, seeds: int) -> str:
    return f"{rebounded}/{recovered} of {seeds}"


def _span(places: Sequence[int]) -> str | None:
    if not places:
        return None
    return str(places[0]) if min(places) == max(places) else f"{min(places)}–{max(places)}"


def _plus_minus(values: Sequence[float], digits: str) -> str:
    found = estimate(values)
    assert found is not None
    mean = f"{found.mean:{digits}}"
    return mean if found.low is None or found.high is None else f"{mean} ± {(found.high - found.low) / 2:{digits}}"


def _shown(found: Estimate | None, *, signed: bool) -> str | None:
    return None if found is None else found.shown(signed=signed)


def _logs(values: Values) -> dict[str, list[float | None]]:
    """None where an eigenvalue is not positive."""
    return {arm: [log10(value) if value > 0 else None for value in own] for arm, own in values.items()}


def _numbers(values: Values) -> dict[str, Any]:
    return {arm: found.to_json() for arm, own in values.items() if (found := estimate(own)) is not None}


def _over(study: Finished) -> str:
    several = len(study.seeds) > 1
    return f"; means over {len(study.seeds)} seeds with 95 % Student-t intervals" if several else "; of one seed"
