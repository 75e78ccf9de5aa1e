"""Judged groups from a few words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from underdog.records import Group, Outcome, Problem, Sample, Verdict, Version

MARKS: dict[str, Outcome] = {"+": "right", "-": "wrong", "?": "could_not_grade"}

MakeGroup = Callable[..., Group]


@pytest.fixture(scope="session")
def make_group() -> MakeGroup:
    """`make_group("+-?", texts, lengths, logp, raw)`: one sample a mark (right, wrong, not graded)."""

    def make(
        marks: str,
        texts: Sequence[str] | None = None,
        lengths: Sequence[int] | None = None,
        logp: Sequence[float] | None = None,
        raw: Sequence[float] | None = None,
    ) -> Group:
        texts = texts or [""] * len(marks)
        lengths = lengths or [4] * len(marks)
        ids = np.zeros(1, dtype=np.int64)
        samples = tuple(
            Sample("p", i, Version(0, ""), i, ids, np.zeros(length, dtype=np.int64), None, text, "eos")
            for i, (text, length) in enumerate(zip(texts, lengths, strict=True))
        )
        verdicts = tuple(Verdict(MARKS[mark]) for mark in marks)
        annotations = {}
        if logp is not None:
            values = zip(logp, lengths, strict=True)
            annotations["logp"] = tuple(np.full(length, value, dtype=np.float32) for value, length in values)
        raw_G = None if raw is None else np.array(raw, dtype=np.float64)
        return Group(Problem("p", "?", "7"), samples, verdicts, annotations, raw_G=raw_G)

    return make
