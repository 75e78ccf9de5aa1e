"""The Python API: the same as the command line, imported when it is first used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import underdog
from underdog.parts import UserError


def test_importing_the_package_imports_nothing_else() -> None:
    script = "import sys, underdog; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded & {"torch", "transformers", "numpy", "pydantic", "rich", "typer"} == set()


def test_every_public_name_is_there_and_documented() -> None:
    for name in underdog.__all__:
        assert getattr(underdog, name).__doc__
        assert name in (underdog.__doc__ or "")
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = underdog.trian


def test_train_returns_the_summary_that_it_writes(tiny_recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = underdog.train(str(tiny_recipe), seed=3, steps=2, resume=False, out=str(out), **{"learner.lr": 1e-4})
    assert summary == json.loads((out / "summary.json").read_text())
    assert (summary["seed"], summary["steps"], summary["recipe"]) == (3, 2, "tiny")
    counts = {"unique_right", "problems", "samples", "ungraded"}
    assert set(summary["base"]) == {"pass@1", "pass@2", "pass@4", "ci95"} | counts
    assert set(summary["base"]["ci95"]) == {"pass@1", "pass@2", "pass@4"}
    assert set(summary["change"]["pass@1"]) == {"mean", "ci95"}
    assert (summary["base"]["problems"], summary["base"]["samples"]) == (8, 4)
    assert summary["tokens"] > 0
    assert summary["seconds"] > 0
    assert "torch" in summary["versions"]
    assert underdog.evaluate(out)["digest"] == json.loads((out / "evaluations" / "final.json").read_text())["digest"]
    assert underdog.report(out, out=tmp_path / "page.html") == tmp_path / "page.html"
    assert (underdog.export(out, tmp_path / "model") / "config.json").is_file()


def test_a_run_goes_on_with_more_steps(tiny_recipe: Path, tmp_path: Path) -> None:
    settings = {"out": str(tmp_path / "run"), "eval.problems": 0, "eval.every": 0}
    underdog.train(tiny_recipe, steps=1, **settings)
    assert underdog.train(tiny_recipe, steps=2, resume=True, **settings)["steps"] == 2


def test_blocks_and_dotted_keys_are_the_same(tiny_recipe: Path, tmp_path: Path) -> None:
    settings = {"steps": 1, "eval": {"problems": 0}}
    underdog.train(tiny_recipe, out=str(tmp_path / "a"), algorithm={"name": "rloo", "kl": 0.5}, **settings)
    underdog.train(tiny_recipe, out=str(tmp_path / "b"), algorithm="rloo", **{"algorithm.kl": 0.5}, **settings)
    texts = [(tmp_path / name / "config.yaml").read_text() for name in "ab"]
    assert texts[0].replace(str(tmp_path / "a"), "") == texts[1].replace(str(tmp_path / "b"), "")


def test_bad_input_raises_what_the_command_line_says(tiny_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown key lerner\.lr; did you mean learner\.lr\?"):
        underdog.train(tiny_recipe, resume=False, **{"lerner.lr": 1})
    with pytest.raises(UserError, match="holds no run"):
        underdog.export(tmp_path, tmp_path / "model")
