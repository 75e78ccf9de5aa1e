"""`underdog eval --samples`: pass@N from judged rows, such as `underdog verify` writes. Without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ...parts import UserError
from ...records import Outcome
from ..runs.evaluation import Tally, change, curve, summarise
from .judges import problem_id
from .output import read_meta
from .rows import BAD_ROW, Row, read_rows, survey
from .summary import count


@dataclass(frozen=True, slots=True)
class Judged:
    """One judged sample of a problem."""

    problem: str
    source: str
    outcome: str
    reason: str
    certificate: str


@dataclass(frozen=True, slots=True)
class Judgements:
    """A file of judged samples; `bad_rows` were never samples of any problem."""

    path: Path
    sha256: str
    samples: tuple[Judged, ...]
    bad_rows: int


def measure_samples(file: Path, base: Path | None = None) -> dict[str, Any]:
    """pass@N of the samples in `file`, grouped by problem, as an evaluation holds it; and against those of `base`.

    Problems may have different numbers of samples. pass@k is the mean over the problems with at least k graded
    samples; `enough` says how many they are where they are not all.

    Raises:
        UserError: a row has no problem or no outcome, nothing was graded, or `base` has other problems.
    """
    final = read_judgements(file)
    tally = tally_of(final.samples)
    result: dict[str, Any] = {"set": file.name, **_about(final), **_figures(final.samples, tally)}
    sources = sorted({sample.source for sample in final.samples})
    before = None if base is None else read_judgements(base)
    if before is not None:
        before_tally = tally_of(before.samples, tally.problems)
        _check_same(tally, before_tally, file, before.path)
        result["base"] = {**_about(before), **_figures(before.samples, before_tally)}
        result["change"] = change(before_tally, tally)
    if len(sources) > 1:
        result["sources"] = {source: _of_source(source, final, before) for source in sources}
    rows = zip(tally.problems, tally.right_P.tolist(), tally.graded_P.tolist(), strict=True)
    return {**result, "problems": [{"id": i, "right": c, "graded": n} for i, c, n in rows]}


def read_judgements(path: Path) -> Judgements:
    """The judged samples of a file.

    Raises:
        UserError: there is no file, or a row that is no judged sample of a problem.
    """
    sha256, _ = survey(path)
    samples, bad = [], 0
    for row in read_rows(path):
        sample = _judged(path, row)
        bad += sample is None
        samples += [] if sample is None else [sample]
    if not any(sample.outcome != "could_not_grade" for sample in samples):
        raise UserError(f"no sample in {path} was graded; there is nothing to measure")
    return Judgements(path, sha256, tuple(samples), bad)


def tally_of(samples: Sequence[Judged], order: Collection[str] = ()) -> Tally:
    """The counts of each problem, those of `order` first, the others as they come."""
    present = {sample.problem for sample in samples}
    problems = dict.fromkeys([*(problem for problem in order if problem in present), *(s.problem for s in samples)])
    drawn = Counter(sample.problem for sample in samples)
    right = Counter(sample.problem for sample in samples if sample.outcome == "right")
    graded = Counter(sample.problem for sample in samples if sample.outcome != "could_not_grade")
    return Tally(
        problems=tuple(problems),
        right_P=np.array([right[problem] for problem in problems]),
        graded_P=np.array([graded[problem] for problem in problems]),
        samples=max(drawn.values()),
    )


def _judged(path: Path, row: Row) -> Judged | None:
    """A row as a sample; None for a bad row that names no problem."""
    where = f"{path}, line {row.line}"
    if row.fault:
        raise UserError(f"{where}: {row.fault}; --samples takes judged rows, such as `underdog verify` writes")
    fields = row.fields
    if fields.get("outcome") not in get_args(Outcome):
        given = f"the outcome {fields['outcome']!r}" if "outcome" in fields else "no 'outcome'"
        raise UserError(f"{where} has {given}; judge the file first, with `underdog verify`")
    problem, reason = problem_id(fields), str(fields.get("reason") or "")
    if problem is None and reason == BAD_ROW:
        return None
    if problem is None:
        raise UserError(f"{where} has no 'problem'; give every row the id of its problem, by which samples are grouped")
    source = "" if fields.get("source") is None else str(fields["source"])
    return Judged(problem, source, fields["outcome"], reason, str(fields.get("certificate") or ""))


def _figures(samples: Sequence[Judged], tally: Tally) -> dict[str, Any]:
    """pass@N and what stands beside it: samples that ran out of time or could not be graded, reasons, certificates."""
    reasons, certificates = count(
        {"outcome": s.outcome, "reason": s.reason, "certificate": s.certificate} for s in samples
    )
    drawn = Counter(sample.problem for sample in samples)
    enough = {f"pass@{k}": int(np.isfinite(values).sum()) for k, values in curve(tally).items()}
    figures = {
        **summarise(tally),
        "fewest_samples": min(drawn.values()),
        "rows": len(samples),
        "ungraded": sum(sample.outcome == "could_not_grade" for sample in samples),
        "timeouts": sum(sample.reason == "timeout" for sample in samples),
        "reasons": reasons,
        "enough": {name: number for name, number in enough.items() if 0 < number < len(tally.problems)},
    }
    return {**figures, "certificates": certificates} if certificates else figures


def _about(judgements: Judgements) -> dict[str, Any]:
    """Where the figures come from. The Lean is known of files that `verify` wrote and nobody changed since."""
    about: dict[str, Any] = {"file": str(judgements.path), "sha256": judgements.sha256, "bad_rows": judgements.bad_rows}
    meta = read_meta(judgements.path)
    known = meta if meta.get("out_sha256") == judgements.sha256 else {}
    if any(sample.certificate for sample in judgements.samples) or known.get("verifier") == "lean":
        lean = known.get("lean") or {}
        about["toolchain"] = lean.get("surroundings")
        if "unscanned" in lean:
            about["unscanned"] = lean["unscanned"]
    return about


def _of_source(source: str, final: Judgements, base: Judgements | None) -> dict[str, Any]:
    """The figures of one source, and where the base has the same problems of it, those of the base and the change."""
    samples = [sample for sample in final.samples if sample.source == source]
    tally = tally_of(samples)
    figures = _figures(samples, tally)
    before = [] if base is None else [sample for sample in base.samples if sample.source == source]
    if before and {sample.problem for sample in before} == set(tally.problems):
        base_tally = tally_of(before, tally.problems)
        figures |= {"base": _figures(before, base_tally), "change": change(base_tally, tally)}
    return figures


def _check_same(final: Tally, base: Tally, file: Path, base_file: Path) -> None:
    for ours, others, path, missing in ((final, base, file, base_file), (base, final, base_file, file)):
        only = sorted(set(ours.problems) - set(others.problems))
        if only:
            raise UserError(
                f"{len(only)} problems of {path} are not in {missing}, such as {only[0]!r}; "
                "a change is measured on the same problems"
            )
