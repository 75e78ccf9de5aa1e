"""docs/studies.md: its commands parse, its grid can run in both forms, its analysis analyses."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from underdog.parts import names
from underdog.rl.cli.main import app
from underdog.rl.studies.grid import read_study
from underdog.rl.studies.plan import plan
from underdog.rl.studies.study import run_study
from underdog.rl.studies.sweep import read_sweep, trials

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "studies.md").read_text()


def block(language: str, place: int = 0) -> str:
    """A block of that language."""
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)[place]


@pytest.mark.parametrize("line", block("sh").splitlines())
def test_its_commands_parse(line: str) -> None:
    command: Any = typer.main.get_command(app)
    _, name, *arguments = shlex.split(line, comments=True)
    command.commands[name].make_context(name, arguments)


@pytest.mark.parametrize(("short", "arms"), [(False, {"plain", "kl", "again"}), (True, {"plain", "kl"})])
def test_its_grid_can_run(short: bool, arms: set[str], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(block("yaml"))
    assert {run.arm for run in plan(read_study(str(tmp_path / "mine.yaml"), short=short), tmp_path)} == arms


def test_its_sweep_can_be_computed(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(block("yaml", 1))
    settings = {(trial.axis, trial.label) for trial in trials(read_sweep(str(tmp_path / "mine.yaml")), tmp_path)}
    assert settings == {("", ""), ("spread", "none"), ("rate", "0.05"), ("rate", "0.2")}
    result, _ = run_study(str(tmp_path / "mine.yaml"), short=True, out=tmp_path / "out")
    assert result.tables[0].title == "The claims"


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Its analysis as a file of the room."""
    (tmp_path / "entropy.py").write_text(block("python"))
    room = importlib.import_module("underdog.rl.studies.analyses")
    monkeypatch.setattr(room, "__path__", [*room.__path__, str(tmp_path)])
    names.cache_clear()
    yield
    names.cache_clear()


@pytest.mark.usefixtures("added", "quick")
def test_its_analysis_analyses(write_study: Any, tmp_path: Path) -> None:
    name = write_study(("recipe:", "analysis: entropy\nrecipe:"))
    result, _ = run_study(str(name), short=True, out=tmp_path / "out")
    assert result.tables[0].rows == (("first", "0.125"), ("second", "0.125"))
