"""What a file of judged rows adds up to: counts by outcome and reason, and what each verifier has to add."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from ...parts import UserError
from ...records import Outcome
from .judges import Judge
from .rows import BadRowError, Row, read_rows


def summarise(judge: Judge, out: Path) -> dict[str, Any]:
    """`rows`, how many of them have which outcome, `reasons` (as `outcome/reason`), and a block for nlu or lean."""
    rows = list(read_rows(out)) if judge.name == "nlu" else read_rows(out)
    reasons, certificates = count(row.fields for row in rows)
    outcomes = {outcome: _with_outcome(reasons, outcome) for outcome in get_args(Outcome)}
    summary: dict[str, Any] = {"rows": sum(reasons.values()), **outcomes, "reasons": reasons}
    if judge.name == "nlu":
        summary["nlu"] = _nlu(judge, rows)
    if judge.name == "lean":
        summary["lean"] = {"surroundings": judge.verifier.surroundings(), "certificates": certificates}
        if not judge.verifier.scan:
            summary["lean"]["unscanned"] = certificates.get("declarations", 0)
    return summary


def count(rows: Iterable[Mapping[str, Any]]) -> tuple[dict[str, int], dict[str, int]]:
    """How many rows have each `outcome/reason`, sorted, and how many proofs each certificate."""
    reasons: Counter[str] = Counter()
    certificates: Counter[str] = Counter()
    for fields in rows:
        reasons[f"{fields['outcome']}/{fields.get('reason') or ''}"] += 1
        if fields["outcome"] == "right" and fields.get("certificate"):
            certificates[str(fields["certificate"])] += 1
    return dict(sorted(reasons.items())), dict(sorted(certificates.items()))


def _with_outcome(reasons: Mapping[str, int], outcome: str) -> int:
    return sum(number for name, number in reasons.items() if name.startswith(f"{outcome}/"))


def _nlu(judge: Judge, rows: Iterable[Row]) -> dict[str, Any]:
    """The task's figures. The answers are read once more: it takes no time, and verdicts are written without them."""
    from ...verifiers.nlu.report import reports

    pairs = []
    for row in rows:
        try:
            pairs.append(judge.submission(row))
        except BadRowError:
            continue
    try:
        found = reports([problem for problem, _ in pairs], judge.judge_all(pairs), judge.verifier.task)
    except UserError as error:
        return {"task": judge.verifier.task, "note": str(error)}
    (figures,) = found.values()
    return _without_nan({**asdict(figures), "score": figures.score})


def _without_nan(value: Any) -> Any:
    """JSON has no NaN, which a correlation of a constant is."""
    if isinstance(value, Mapping):
        return {key: _without_nan(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
