"""What the documents say is true: commands parse, keys exist, examples run, and the table of options is fresh."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import underdog as package
from underdog.parts import names
from underdog.rl.cli.main import app
from underdog.rl.config import parse_overrides, read_recipe, recipe_names, resolve

ROOT = Path(__file__).resolve().parents[2]
README, CONTRIBUTING = ((ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md"))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text: str, prose: bool = True) -> list[list[str]]:
    """Every `underdog …` of a document's shell blocks and of its prose."""
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    lines += re.findall(r"`(underdog [^`…]+)`", text) if prose else []
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("underdog ")]


def example(text: str, name: str) -> str:
    """The python block that begins with the comment `# name`."""
    (found,) = [block for block in blocks(text, "python") if block.startswith(f"# {name}\n")]
    return found


def test_the_page_of_options_is_fresh() -> None:
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    assert build.TARGET.read_text() == build.page(), "run `python docs/build.py` and commit what it writes"


@pytest.mark.parametrize("arguments", commands(README), ids=" ".join)
def test_a_command_of_the_readme(
    arguments: list[str], underdog: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "brief.py").write_text(example(README, "brief.py"))
    if "lerner.lr=1" in arguments:  # shown there as what a slip of the keyboard brings
        assert underdog(*arguments).sentence == "unknown key lerner.lr; did you mean learner.lr?"
    elif arguments[0] == "train" and "path/to/mine.yaml" not in arguments:
        assert underdog(*arguments, "--dry-run").code == 0
    else:
        command: Any = typer.main.get_command(app)
        command.commands[arguments[0]].make_context(arguments[0], arguments[1:])  # fails on what it does not know
        overrides = [argument for argument in arguments if "=" in argument]
        resolve(read_recipe("demo")[1], parse_overrides(overrides))


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_the_commands_of_a_page(page: Path, underdog: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in commands(page.read_text(), prose=False):
        if arguments[0] == "train" and arguments[1] in recipe_names():
            said = underdog(*arguments, "--dry-run")
            assert said.code == 0, f"{arguments}: {said.err}"
        else:
            command: Any = typer.main.get_command(app)
            command.commands[arguments[0]].make_context(arguments[0], arguments[1:])


def test_the_readme_names_all_recipes_and_no_missing_file() -> None:
    assert set(re.findall(r"\(recipes/([\w-]+)\.yaml\)", README)) == set(recipe_names())
    for text in (README, CONTRIBUTING):
        links = re.findall(r"\]\(([^)#:]+)\)", text)
        assert links
        assert [link for link in links if not (ROOT / link).exists()] == []
    for name in re.findall(r"underdog\.(\w+)\(", README):
        assert name in package.__all__


def test_the_readme_s_own_reward_trains(
    tiny_recipe: Path, underdog: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "brief.py").write_text(example(README, "brief.py"))
    quick = ("steps=1", "eval.problems=0", "eval.every=0", "out=run")
    assert underdog("train", tiny_recipe, "rewards.brief.py:brief=0.1", *quick).code == 0
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    length = row["completions/mean_length"]
    assert row["rewards/brief.py:brief/mean"] == pytest.approx(1 - length / 40)


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The examples of CONTRIBUTING.md as files of their rooms."""
    for file in ("rl/algorithms/median.py", "rewards/digits.py", "verifiers/last_word.py"):
        path = tmp_path / file
        path.parent.mkdir(parents=True)
        path.write_text(example(CONTRIBUTING, file))
        room = importlib.import_module("underdog." + ".".join(Path(file).parent.parts))
        monkeypatch.setattr(room, "__path__", [*room.__path__, str(path.parent)])
    names.cache_clear()
    yield
    names.cache_clear()


@pytest.mark.usefixtures("added")
def test_the_examples_for_contributors_train(tiny_recipe: Path, underdog: Any, tmp_path: Path) -> None:
    chosen = ("algorithm=median", "algorithm.limit=0.5", "rewards.digits=0.5", "verifier=last_word")
    out = tmp_path / "run"
    said = underdog("train", tiny_recipe, *chosen, "steps=2", "eval.problems=0", "eval.every=0", f"out={out}")
    assert said.code == 0, said.err
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < row["rewards/digits/mean"] <= 1 for row in rows)
    assert all(row["updates/steps"] == 1 for row in rows)
    assert "did you mean algorithm.limit?" in underdog("train", tiny_recipe, *chosen, "algorithm.limt=1").sentence
    score = package.reward_func("digits", enough=2)
    assert score(prompts=["1+1=", "1+1="], completions=["2", "22"], answer=["2", "2"]) == [0.5, 1.0]
