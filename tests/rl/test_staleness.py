"""One step off the policy: always exactly one update old, and a resume that is the uninterrupted run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
from underdog.parts import UserError
from underdog.rl.api import train
from underdog.rollouts.workers import cluster


def metrics(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(("time/", "memory/", "faults/"))} for row in rows]


@pytest.mark.slow
def test_samples_are_one_update_old_and_a_resume_changes_no_bit(tiny_recipe: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"rollouts.workers": 1, "rollouts.max_staleness": 1, "eval.problems": 0, "eval.every": 0}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    cluster.connect(tmp_path)  # one Ray for all of them
    try:
        train(tiny_recipe, out=str(whole), steps=4, **options)
        train(tiny_recipe, out=str(parts), steps=2, **options)
        train(tiny_recipe, out=str(parts), steps=4, resume=True, **options)
    finally:
        cluster.disconnect()
    assert metrics(whole) == metrics(parts)
    assert [row["rollouts/staleness"] for row in metrics(whole)] == [0, 1, 1, 1]
    assert all(row["freshness/gap"] < 1e-4 for row in metrics(whole))
    for file in sorted((whole / "adapters" / "v4").iterdir()):
        assert file.read_bytes() == (parts / "adapters" / "v4" / file.name).read_bytes()


def test_an_engine_in_the_learners_process_cannot_work_ahead(tiny_recipe: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"rollouts.max_staleness": 1}
    with pytest.raises(UserError, match=r"rollouts\.workers=1"):
        train(tiny_recipe, out=str(tmp_path / "run"), **options)
