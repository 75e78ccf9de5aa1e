"""What the tests of studies share: a study of the tiny recipe, and trainings that take no time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from underdog.rl.studies import runner

Write = Callable[..., Path]

GRID = """\
# Which is better?
recipe: {recipe}
overrides: {{steps: 8, learner.lr: 0.125}}
seeds: [0, 1]
arms:
  first:
  second: {{learner.lr: 0.25, init_adapter: "{{first}}/adapters/v8"}}
short: {{seeds: [3], overrides: {{steps: 2}}}}
"""


@pytest.fixture
def write_study(tiny_recipe: Path, tmp_path: Path) -> Write:
    """Writes a study of the tiny recipe; `old=new` pairs change its text."""

    def write(*changes: tuple[str, str]) -> Path:
        text = GRID.format(recipe=tiny_recipe)
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "which.yaml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings write what a run leaves behind, and train nothing."""
    script = Path(__file__).with_name("small_run.py")
    monkeypatch.setattr(runner, "TRAIN", (sys.executable, str(script)))
