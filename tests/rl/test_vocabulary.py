"""A shape whose words come from its training text: none of a held-out problem, the same after a stop, saved along."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from underdog.parts import UserError
from underdog.rl import config
from underdog.rl.api import train
from underdog.rl.learner.model import load_tokenizer
from underdog.rl.learner.tokenizer import build_tokenizer, frequent_words
from underdog.rl.made import find_model
from underdog.rl.measure import measure
from underdog.rl.updates.sources import open_weights


@pytest.fixture
def recipes(tiny_shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shape = json.loads(Path(tiny_shape.removeprefix("shape:")).read_text())
    (tmp_path / "reader.json").write_text(json.dumps({**shape, "tokenizer": {"vocabulary": 20}}))
    (tmp_path / "CoLA").mkdir()
    (tmp_path / "CoLA/train.tsv").write_text("".join(f"s\t{n % 2}\t\tThe bird sang song{n % 3}.\n" for n in range(9)))
    (tmp_path / "CoLA/dev.tsv").write_text("s\t1\t\tSecrets stay.\n")
    data = f"task: cola, path: {tmp_path}, tag: '', instructed: false"
    (tmp_path / "base.yaml").write_text(
        f"model: shape:{tmp_path}/reader.json\n"
        f"data: {{name: glue_warmup, {data}}}\n"
        "steps: 2\n"
        "rollouts: {engine: gold, problems: 1, group: 8, max_tokens: 32}\n"
        "verifier: nlu\n"
        "algorithm: supervised\n"
        "learner: {lr: 1e-3, adapter: full}\n"
        "eval: {problems: 0}\n"
    )
    (tmp_path / "child.yaml").write_text(
        "model: recipe:base\n"
        f"data: {{name: glue, {data}, template: '{{prompt}} ='}}\n"
        "steps: 1\n"
        "rollouts: {problems: 2, group: 2, max_tokens: 3}\n"
        "verifier: nlu\n"
        "algorithm: {name: reinforce_pp, kl: 0.01}\n"
        "eval: {problems: 1, n: 1}\n"
    )
    monkeypatch.setattr(config, "RECIPES", tmp_path)
    monkeypatch.setenv("UNDERDOG_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_words_are_those_of_the_training_text_and_stay_with_the_model(recipes: Path) -> None:
    folder = Path(find_model("recipe:base"))
    tokenizer = load_tokenizer(str(folder))
    words = set(tokenizer.get_vocab())
    assert {"the", "bird", "song0", "song2", ".", "=", "yes", "no", "sentence", ":"} <= words
    assert not {"secrets", "stay"} & words
    assert tokenizer.decode(tokenizer("The BIRD  stay =")["input_ids"]) == "the bird <|unknown|> ="
    summary = train("child", out=str(recipes / "run"))
    assert summary["final"]["problems"] == 1


def test_a_run_keeps_its_words_and_one_that_is_resumed_takes_them(recipes: Path) -> None:
    out = recipes / "run"
    train("base", out=str(out))
    kept = (out / "shape.json").read_text()
    (recipes / "CoLA/train.tsv").write_text("s\t1\t\tOther words entirely.\n" * 2)
    assert train("base", out=str(out), resume=True, steps=3)["steps"] == 3
    assert (out / "shape.json").read_text() == kept


def test_a_run_from_such_a_shape_is_measured_and_compared_by_its_words(recipes: Path) -> None:
    out, shape = recipes / "run", f"shape:{recipes}/reader.json"
    supervised: dict[str, Any] = {"rollouts.engine": "gold", "algorithm": "supervised"}
    train("child", model=shape, out=str(out), **supervised)
    assert measure(str(out))["problems"][0]["id"] == "cola/validation/0"
    words = len(load_tokenizer(f"shape:{out}/shape.json"))
    before, after = open_weights(f"{out}@0"), open_weights(f"{out}@last")
    assert (
        before.kept["model.embed_tokens.weight"].shape == after.kept["model.embed_tokens.weight"].shape == (words, 32)
    )


def test_frequent_words_by_count_then_in_order() -> None:
    assert frequent_words(["b a, A b c", "d"], 4) == ["a", "b", ",", "c"]


def test_words_that_are_still_to_be_chosen_are_no_tokenizer() -> None:
    with pytest.raises(UserError, match="train it by a recipe first"):
        build_tokenizer({"vocabulary": 10})


def test_the_study_without_its_data_says_where_they_must_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match=r"no file of CoLA called train .* in \.\./shared/data/glue; .* data\.path"):
        train("reader-base", out=str(tmp_path / "run"))
