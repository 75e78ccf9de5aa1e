"""One self-contained page of sections: the report of a run, and that of a study. Needs no torch and no network.

What a model wrote is hostile. It reaches a page only as JSON that cannot close its script element, and the page's
own script puts it into the document as text. A content security policy names the digests of the two scripts that may
run and forbids every request.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from ....parts import RunError
from ..files import write_text
from .charts import Chart


@dataclass(frozen=True)
class Section:
    """A heading, HTML of our own making, and charts. `folded` charts are drawn when the reader opens them."""

    id: str
    title: str
    body: str = ""
    charts: tuple[Chart, ...] = ()
    folded: bool = False


@dataclass(frozen=True)
class Page:
    """What a page says: its title, what `kind` of page it is, what it was made `source` of, and its sections.

    `overview` is HTML of our own making; `data` is what the page's script needs besides the charts.
    """

    title: str
    kind: str
    source: str
    overview: str
    sections: Sequence[Section]
    data: Mapping[str, Any] = field(default_factory=dict)


def render_page(page: Page) -> str:
    """The page as one HTML document."""
    from plotly.offline import get_plotlyjs

    figures: dict[str, Any] = {}
    parts = [_section(section, figures) for section in page.sections]
    scripts = [get_plotlyjs(), asset("page.js")]
    text = Template(asset("page.html")).substitute(
        policy=_policy(scripts),
        title=h(page.title),
        heading=h(page.title),
        kind=h(page.kind),
        source=h(page.source),
        css=asset("page.css"),
        links="".join(f'<a href="#{section.id}">{h(section.id.capitalize())}</a>' for section in page.sections),
        overview=page.overview,
        sections="\n".join(parts),
        data=_json({"figures": figures, **page.data}),
        plotly=scripts[0],
        script=scripts[1],
    )
    return text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate in a name has no UTF-8


def write_page(target: Path, text: str) -> Path:
    """Write a page atomically and return its path.

    Raises:
        RunError: the file cannot be written.
    """
    try:
        write_text(target, text)
    except OSError as error:
        raise RunError(f"the report {target} cannot be written: {error.strerror or error}") from error
    return target


def asset(name: str) -> str:
    """A text that lies beside this file."""
    return (files(__package__ or "") / name).read_text(encoding="utf-8")


def h(text: object) -> str:
    """`text` escaped for HTML, in an element or a quoted attribute."""
    return html.escape(str(text), quote=True)


def table_html(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already; the first cell of a row is its heading."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
    )
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


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
