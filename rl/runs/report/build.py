"""`report.html`: one self-contained page a run, or one for several side by side. Needs no torch and no network.

What a model wrote is hostile. It reaches the page only as JSON that cannot close its script element, and the page's
own script puts it into the document as text. A content security policy names the digests of the two scripts that may
run and forbids every request.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from ....parts import RunError, UserError
from ..files import write_text
from ..reading import Run, read_runs
from .charts import Chart
from .samples import Chosen, choose
from .sections import Section, build_sections, h, overview

SAMPLES = 400
"""At most so many samples are embedded."""


def write_report(runs: Sequence[Path], out: Path | None = None) -> Path:
    """Write the report of one run folder, or of several side by side, and return its path.

    Without `out` it is `report.html` in the one run's folder, or `comparison.html` in the working directory.

    Raises:
        UserError: no run was named, a folder holds no run, or `out` is a folder.
        RunError: the file cannot be written.
    """
    if not runs:
        raise UserError("name at least one run folder, such as runs/demo-1")
    read = read_runs(runs)
    target = out or (read[0].folder / "report.html" if len(read) == 1 else Path("comparison.html"))
    if target.is_dir():
        raise UserError(f"{target} is a folder; name a file for the report, such as {target / 'report.html'}")
    page = render(read)
    try:
        write_text(target, page)
    except OSError as error:
        raise RunError(f"the report {target} cannot be written: {error.strerror or error}") from error
    return target


def render(runs: Sequence[Run]) -> str:
    """The whole page."""
    from plotly.offline import get_plotlyjs

    sections = build_sections(runs)
    chosen = choose(runs, SAMPLES)
    figures: dict[str, Any] = {}
    parts = [_section(section, figures) for section in sections]
    links = [section.id for section in sections]
    if chosen.total:
        parts.insert(-1, _browser(runs, chosen))  # the configuration stays last
        links.insert(-1, "samples")
    scripts = [get_plotlyjs(), _asset("page.js")]
    data = {
        "figures": figures,
        "runs": [run.name for run in runs],
        "samples": chosen.samples,
        "prompts": chosen.prompts,
    }
    title = " · ".join(run.name for run in runs)
    page = Template(_asset("page.html")).substitute(
        policy=_policy(scripts),
        title=h(title),
        heading=h(title),
        css=_asset("page.css"),
        links="".join(f'<a href="#{id}">{h(id.capitalize())}</a>' for id in links),
        overview=overview(runs),
        sections="\n".join(parts),
        data=_json(data),
        plotly=scripts[0],
        script=scripts[1],
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate in a name has no UTF-8


def _asset(name: str) -> str:
    return (files(__package__ or "") / name).read_text(encoding="utf-8")


def _json(value: object) -> str:
    """JSON in ASCII that can stand in a script element: no `</script>`, no `<!--`, no line separator survives."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(scripts: Sequence[str]) -> str:
    """No request to anywhere; only these scripts run. plotly sets styles of its own."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _section(section: Section, figures: dict[str, Any]) -> str:
    charts = "".join(_chart(chart, figures) for chart in section.charts)
    grid = f'<div class="charts">{charts}</div>' if charts else ""
    if section.folded:
        grid = f"<details><summary>Charts: {len(section.charts)}</summary>{grid}</details>"
    return f'<section id="{section.id}"><h2>{h(section.title)}</h2>{section.body}{grid}</section>'


def _chart(chart: Chart, figures: dict[str, Any]) -> str:
    id = f"chart-{len(figures)}"
    figures[id] = chart.figure
    note = f'<p class="note">{h(chart.note)}</p>' if chart.note else ""
    return (
        f'<figure class="chart"><h3>{h(chart.title)}</h3>'
        f'<div class="plot" id="{id}" role="img" aria-label="{h(chart.alt)}"></div>'
        f"<figcaption>{note}</figcaption></figure>"
    )


def _browser(runs: Sequence[Run], chosen: Chosen) -> str:
    damaged = f" {chosen.damaged} lines could not be read." if chosen.damaged else ""
    shown = (
        f"{len(chosen.samples):,} of {chosen.total:,} saved samples are in this page: of steps all along the run, the "
        f"best, the worst, the ungraded and some of the rest.{damaged} All stand in the run folder under rollouts/."
    )
    html = Template(_asset("samples.html")).substitute(shown=h(shown), hidden="" if len(runs) > 1 else "hidden")
    return f'<section id="samples"><h2>Samples</h2>{html}</section>'
