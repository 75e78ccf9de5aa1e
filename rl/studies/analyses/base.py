"""What an analysis of a study is: all runs in, tables, charts and numbers out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ....parts import Part
from ...runs.report.charts import Chart
from ..finished import Finished
from ..tried import Tried

Cell = str | int | float | None
"""None is what could not be had."""


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its heading. It holds no time, so that it is the same whenever it is made."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Findings:
    """What came out of a study. `verdict` is a sentence; `numbers` is JSON, for whoever computes with it."""

    tables: tuple[Table, ...]
    charts: tuple[Chart, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
    verdict: str = ""


class Analysis(Part):
    """What is made of a study's finished runs."""

    @abstractmethod
    def analyse(self, study: Finished) -> Findings:
        """Tables, charts and numbers; a pure function of what the runs' folders hold."""
        raise NotImplementedError


class SweepAnalysis(Part):
    """What is made of the trials of a study of an experiment."""

    @abstractmethod
    def analyse(self, study: Tried) -> Findings:
        """Tables, charts and numbers; a pure function of what the trials measured."""
        raise NotImplementedError
