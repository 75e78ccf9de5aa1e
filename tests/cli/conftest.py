"""What the tests of the command line share: calling it in this process, and a run that is there already."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from underdog.rl.api import train
from underdog.rl.cli.main import main


@dataclass(frozen=True)
class Said:
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one line that begins with the program's name, on stderr, and the last."""
        lines = self.err.splitlines()
        assert [line for line in lines if line.startswith("underdog: ")] == lines[-1:], self.err
        assert "Traceback" not in self.err + self.out
        return lines[-1].removeprefix("underdog: ")


Command = Callable[..., Said]


@pytest.fixture
def underdog(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """`underdog("train", "demo")`: what the console script does, in this process."""

    def call(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["underdog", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Said(int(ended.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def finished_run(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps; not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "run"
    train(tiny_recipe, out=str(out), steps=4)
    return out
