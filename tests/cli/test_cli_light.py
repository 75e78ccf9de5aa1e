"""The light half: --help imports next to nothing, and what needs no training works where torch is not installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WITHOUT_TORCH = """
import importlib.abc, io, json, sys
from contextlib import redirect_stderr, redirect_stdout

ABSENT = {"torch", "transformers", "peft", "datasets", "safetensors", "tokenizers", "huggingface_hub", "vllm", "ray"}

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from underdog.rl.cli.main import main

results = []
for arguments in json.loads(sys.argv[1]):
    sys.argv, out, err = ["underdog", *arguments], io.StringIO(), io.StringIO()
    code = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
    results.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(results))
"""


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['underdog', '--help']\n"
        "from underdog.rl.cli.main import main\n"
        "try: main()\n"
        "finally: print(' '.join(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Train what a recipe describes" in done.stdout
    heavy = {"torch", "transformers", "peft", "datasets", "numpy", "pydantic", "rich", "ruamel", "plotly", "trl"}
    assert heavy & {name.partition(".")[0] for name in done.stderr.split()} == set()


def test_without_torch(finished_run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    commands: list[list[Any]] = [
        ["--help"],
        ["recipes"],
        ["recipes", "--schema"],
        ["train", str(tiny_recipe), "--dry-run"],
        ["report", str(finished_run), "--out", str(tmp_path / "report.html")],
        ["doctor"],
        ["study"],
        ["train", str(tiny_recipe), f"out={tmp_path / 'run'}"],
        ["train", "demo", f"out={tmp_path / 'run'}"],
        ["eval", str(finished_run)],
        ["export", str(finished_run), str(tmp_path / "model")],
    ]
    command = [sys.executable, "-c", WITHOUT_TORCH, json.dumps(commands)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    results = json.loads(done.stdout)
    assert [code for code, _, _ in results] == [0] * 7 + [2] * 4
    assert (tmp_path / "report.html").is_file()
    assert set(json.loads(results[2][1])["properties"]) > {"model", "data", "rollouts"}
    assert "shapings" in results[6][1]
    assert "unknown: torch is missing" in results[5][1]
    for _, out, err in results[7:]:
        assert out == ""
        assert err == "underdog: this command needs torch: pip install 'underdog-rl[train]'\n"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("command", ["train", "eval", "verify", "report", "study", "export", "recipes", "doctor"])
def test_every_command_explains_its_arguments(underdog: Any, command: str) -> None:
    said = underdog(command, "--help")
    assert said.code == 0
    options = [line.strip() for line in said.out.splitlines() if line.strip().startswith("--")]
    assert options
    assert said.out.count("\n") < 40
