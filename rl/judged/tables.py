"""The closing tables of `underdog verify` and `underdog eval` on a terminal; they fit 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..runs.reading import PassAt, pass_at
from ..runs.report.diversity import estimated
from ..runs.report.figures import interval
from ..runs.report.reported import HEAD, reported_rows
from ..runs.report.sections import direction

_STYLES = {"rises": "green", "falls": "red"}
_OUTCOMES = {"right": "right", "wrong": "wrong", "could_not_grade": "could not grade"}


def verify_table(summary: Mapping[str, Any]) -> RenderableType:
    """Rows by outcome and reason, and below them what the verifier has to add and the input's hash."""
    table = _table("outcome", "reason", "rows", "share")
    rows = summary["rows"]
    for outcome, said in _OUTCOMES.items():
        table.add_row(said, "", str(summary[outcome]), _share(summary[outcome], rows), style="bold")
        own = {name: n for name, n in summary["reasons"].items() if name.startswith(f"{outcome}/")}
        for name, number in sorted(own.items(), key=lambda item: -item[1]):
            table.add_row("", name.partition("/")[2] or "–", str(number), _share(number, rows))
    parts: list[RenderableType] = [table]
    if "nlu" in summary:
        parts += _nlu(summary["nlu"])
    if "lean" in summary:
        parts += _lines(_lean(summary["lean"]))
    return Group(*parts, *_lines(_file(summary), f"judged rows: {summary['out']}"))


def pass_table(result: Mapping[str, Any]) -> RenderableType:
    """pass@N with 95 % intervals, beside the base and by source where they are known."""
    base, moved = result.get("base"), {p.n: p for p in pass_at(result.get("change") or {})}
    before = {p.n: p for p in pass_at(base or {})}
    measured = "samples" if "file" in result else "trained" if base else "model"
    table = _table("", *(["base", measured, "change"] if base else [measured]))
    for found in pass_at(result):
        cells = [_cell(before.get(found.n)), _cell(found), _moved(moved.get(found.n))]
        table.add_row(f"pass@{found.n}", *(cells if base else cells[1:2]))
    if "unique_right" in result:
        cells = [estimated(block, "unique_right") for block in (base or {}, result)]
        cells.append(estimated(result.get("change", {}), "unique_right", signed=True))
        table.add_row("unique", *(cells if base else cells[1:2]))
    parts: list[RenderableType] = [table]
    if "sources" in result:
        parts += [Text(), _sources(result["sources"], any("change" in own for own in result["sources"].values()))]
    for title, block in (("base", base), (measured, result)):
        parts += _reported(title, block["report"]) if block and "report" in block else []
    lines = [f"{len(result['problems'])} problems; 95 % intervals by resampling problems", *_about(result, "")]
    return Group(*parts, *_lines(*lines, *(_about(base, "base: ") if base else ())))


def _reported(title: str, report: Mapping[str, Any]) -> list[RenderableType]:
    table = Table(*HEAD, box=None, pad_edge=False, padding=(0, 1, 0, 0), title=title, title_justify="left")
    for row in reported_rows(report):
        table.add_row(*map(Text, row))
    return [Text(), table]


def _sources(sources: Mapping[str, Mapping[str, Any]], changed: bool) -> Table:
    """pass@1 and the largest pass@N of each source, and what they changed."""
    table = _table("source", "problems", "", "samples", *(["change"] if changed else []))
    for name, figures in sources.items():
        moved = {p.n: p for p in pass_at(figures.get("change") or {})}
        passes = pass_at(figures)
        first, rest = (name or "none", str(figures["problems"])), ("", "")
        for found in dict.fromkeys((passes[0], passes[-1])) if passes else ():
            change = [_moved(moved.get(found.n))] if changed else []
            table.add_row(*first, f"pass@{found.n}", _cell(found), *change)
            first = rest
        if not passes:
            table.add_row(*first, "", "none graded")
    return table


def _about(result: Mapping[str, Any], prefix: str) -> Iterator[str]:
    samples = result.get("samples", 0)
    if result.get("fewest_samples", samples) != samples:
        samples = f"{result['fewest_samples']} to {samples}"
    reasons = result.get("reasons", {})
    rows, late = sum(reasons.values()), sum(n for name, n in reasons.items() if name.endswith("/timeout"))
    ungraded = result["ungraded"]
    yield (
        f"{prefix}{samples} samples a problem; time-outs {late} ({_share(late, rows)}), "
        f"could not grade {ungraded} ({_share(ungraded, rows)})"
    )
    for name, problems in result.get("enough", {}).items():
        yield f"{prefix}{name} is over the {problems} problems with that many graded samples"
    if result.get("bad_rows"):
        yield f"{prefix}{result['bad_rows']} bad rows belong to no problem and count nowhere"
    if "certificates" in result or "toolchain" in result:
        yield from (prefix + line for line in _lean({**result, "surroundings": result.get("toolchain")}))
    if result.get("verifier"):
        yield f"verifier: {result['verifier']}"
    if "data_sha256" in result:
        yield f"problems: SHA-256 {result['data_sha256']}"
    if "file" in result:
        yield prefix + _file(result)


def _lean(block: Mapping[str, Any]) -> Iterator[str]:
    yield f"lean: {block.get('surroundings') or 'unknown (no .meta.json of these very rows beside them)'}"
    certificates = block.get("certificates") or {}
    yield f"certificates: {', '.join(f'{name} {number}' for name, number in certificates.items()) or 'none'}"
    if block.get("unscanned"):
        yield f"{block['unscanned']} proofs were neither scanned nor replayed: measured, never to be rewarded"


def _nlu(block: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield Text()
    if "note" in block:
        yield Text(f"{block['task']}: {block['note']}")
        return
    table = _table(block["task"], "score", "best constant answer")
    for name, score in block["metrics"].items():
        table.add_row(name, _number(score), _number(block["baselines"][name]))
    yield table
    answers = ", ".join(f"{answer} {number}" for answer, number in list(block["histogram"].items())[:6])
    yield from _lines(f"invalid {block['invalid_rate']:.1%} of {block['rows']}; answers: {answers}")
    if block["collapsed"]:
        yield Text("COLLAPSED: nearly all valid answers are one and the same", style="bold red")


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="left", no_wrap=True)
    return table


def _lines(*lines: str | Iterator[str]) -> list[RenderableType]:
    texts = [text for line in lines for text in ([line] if isinstance(line, str) else line)]
    return [Text(text, overflow="fold") for text in texts]


def _file(result: Mapping[str, Any]) -> str:
    return f"{result['file']}, SHA-256 {result['sha256']}"


def _cell(found: PassAt | None) -> str:
    return interval(found) if found else "–"


def _moved(found: PassAt | None) -> Text:
    return Text(interval(found, signed=True) if found else "–", style=_STYLES.get(direction(found), ""))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _share(number: int, of: int) -> str:
    return f"{number / of:.1%}" if of else "–"
