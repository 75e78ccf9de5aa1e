"""`model: recipe:NAME`: made once, kept, and taken up again where the making was stopped."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from time import sleep

import pytest

from underdog.parts import RunError, UserError
from underdog.rl import config, loop, made
from underdog.rl.api import train


@pytest.fixture
def recipes(tiny_shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "base.yaml").write_text(
        f"model: {tiny_shape}\n"
        "data: {name: arithmetic, part: warmup, count: 200, held_out: 8}\n"
        "steps: 4\n"
        "rollouts: {engine: gold, problems: 8, group: 1, max_tokens: 64}\n"
        "algorithm: supervised\n"
        "learner: {lr: 1e-3, adapter: full}\n"
        "eval: {problems: 0}\n"
        "checkpoint: {every: 2}\n"
    )
    (folder / "child.yaml").write_text(
        "model: recipe:base\n"
        "data: {name: arithmetic, count: 40, held_out: 8}\n"
        "steps: 1\n"
        "rollouts: {problems: 2, group: 2, max_tokens: 8}\n"
        "algorithm: {name: reinforce_pp, kl: 0.01}\n"
        "eval: {problems: 0}\n"
    )
    monkeypatch.setattr(config, "RECIPES", folder)
    monkeypatch.setenv("UNDERDOG_CACHE", str(tmp_path / "cache"))
    return folder


def test_a_recipes_model_is_made_once_and_is_a_model_folder(recipes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = made.find_model("recipe:base")
    assert AutoModelForCausalLM.from_pretrained(folder).config.model_type == "qwen2"
    assert AutoTokenizer.from_pretrained(folder)("1+2=")["input_ids"]
    assert not list(Path(folder).parent.glob("*.run"))
    monkeypatch.setattr(made, "train", lambda *args, **kwargs: pytest.fail("made again"))
    assert made.find_model("recipe:base") == folder


def test_a_recipe_trains_on_a_made_model(recipes: Path, tmp_path: Path) -> None:
    summary = train("child", out=str(tmp_path / "run"))
    assert (summary["steps"], summary["model"]) == (1, "recipe:base")


def test_a_making_that_was_stopped_goes_on(recipes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made.find_model("recipe:base")
    weights = (Path(whole) / "model.safetensors").read_bytes()
    monkeypatch.setenv("UNDERDOG_CACHE", str(recipes.parent / "other"))
    watch, calls = loop.watch, []

    def fail_at_3(*args: object) -> int:
        calls.append(1)
        if len(calls) == 3:
            raise RunError("planted")
        return watch(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "watch", fail_at_3)
    with pytest.raises(RunError, match="planted"):
        made.find_model("recipe:base")
    again = made.find_model("recipe:base")
    assert len(calls) == 3 + 2  # steps 3 and 4: step 2 had a checkpoint
    assert (Path(again) / "model.safetensors").read_bytes() == weights


def test_two_that_need_a_model_at_once_make_it_once(recipes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, calls = Event(), []

    def make(config: object, name: str, folder: Path) -> None:
        calls.append(name)
        begun.set()
        sleep(0.2)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(made, "_make", make)
    with ThreadPoolExecutor() as both:
        first = both.submit(made.find_model, "recipe:base")
        assert begun.wait(10)
        assert made.find_model("recipe:base") == first.result()
    assert calls == ["base"]


def test_an_unknown_recipe_is_named(recipes: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'base'"):
        made.find_model("recipe:bse")


def test_a_recipe_whose_model_a_recipe_makes(recipes: Path) -> None:
    """It is made from that model, and made again when that model's recipe changes."""
    _, *others = (recipes / "base.yaml").read_text().splitlines()
    (recipes / "second.yaml").write_text("\n".join(["model: recipe:base", *others]).replace("steps: 4", "steps: 1"))
    folder = Path(made.find_model("recipe:second"))
    assert {path.name.split("-")[0] for path in folder.parent.iterdir() if path.is_dir()} == {"base", "second"}
    weights = [
        (Path(made.find_model(f"recipe:{name}")) / "model.safetensors").read_bytes() for name in ("base", "second")
    ]
    assert weights[0] != weights[1]
    below = recipes / "base.yaml"
    below.write_text(below.read_text().replace("lr: 1e-3", "lr: 2e-3"))
    assert made.find_model("recipe:second") != str(folder)


def test_recipes_that_make_each_others_models_are_named(recipes: Path) -> None:
    for one, other in (("here", "there"), ("there", "here")):
        text = (recipes / "child.yaml").read_text().replace("recipe:base", f"recipe:{other}")
        (recipes / f"{one}.yaml").write_text(text)
    with pytest.raises(UserError, match="in a circle: recipe:here <- recipe:there <- recipe:here"):
        made.find_model("recipe:here")
