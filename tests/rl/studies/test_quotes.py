"""Documents quote what studies came to: every number with a decimal point stands in the kept tables, as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[3] / "docs"
NUMBER = re.compile(r"[+−]?\d+\.\d+")
QUOTED = [
    ("perturbations.md", "Does the effect exist at this scale?", "double-descent"),
    ("ppo.md", "Against GRPO", "ppo"),
    ("nlu.md", "What came of it", "nlu-small"),
    ("unlikely.md", "What the toy came to", "unlikely-toy"),
    ("unlikely.md", "What the arithmetic came to", "unlikely-arithmetic"),
    ("unlikely.md", "What the tiny prover came to", "tiny-prover"),
]


def section(text: str, title: str) -> str:
    """What stands below a heading."""
    (found,) = re.findall(rf"^###? {re.escape(title)}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    return found


@pytest.mark.parametrize(("document", "title", "study"), QUOTED)
def test_a_section_quotes_its_study(document: str, title: str, study: str) -> None:
    kept = (DOCS / "studies" / study / "study.md").read_text()
    quoted = NUMBER.findall(section((DOCS / document).read_text(), title))
    assert quoted
    there = set(NUMBER.findall(kept))
    assert [number for number in quoted if number not in there] == []
