"""The strict tree: overrides, suggestions, blocks, round trips and the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underdog.parts import UserError
from underdog.rl.choices import name_of
from underdog.rl.config import (
    Config,
    parse_overrides,
    parse_yaml,
    read_recipe,
    recipe_names,
    resolve,
    to_tree,
    to_yaml,
)

TREE: dict[str, Any] = {"model": "shape:tiny-reasoner", "data": "arithmetic"}


def configured(*overrides: str, **tree: Any) -> Config:
    return resolve({**TREE, **tree}, parse_overrides(overrides))


def test_yaml_is_read_as_1_2() -> None:
    config = configured("learner.lr=1e-6")
    assert config.learner.lr == 1e-6
    assert parse_yaml("no", "x") == "no"


def test_a_bare_word_is_a_block() -> None:
    assert configured(algorithm="grpo") == configured(algorithm={"name": "grpo"})


def test_choosing_another_part_replaces_the_whole_block() -> None:
    config = configured("algorithm=rloo", algorithm={"name": "grpo", "kl": 0.5})
    assert type(config.algorithm).__name__ == "RLOO"
    assert config.algorithm.kl != 0.5


def test_an_option_of_a_bare_word_keeps_the_part() -> None:
    config = configured("algorithm.kl=0.25", algorithm="dr_grpo")
    assert (name_of(config.algorithm), config.algorithm.kl) == ("dr_grpo", 0.25)


def test_an_option_of_an_unnamed_block_keeps_the_default_part() -> None:
    config = configured("learner.adapter.r=16")
    assert (name_of(config.learner.adapter), config.learner.adapter.r) == ("lora", 16)


def test_rewards_take_a_weight_or_options() -> None:
    config = configured(rewards={"accuracy": 2, "repetition": {"weight": 0.5}})
    assert {name: w.weight for name, w in config.rewards.items()} == {"accuracy": 2.0, "repetition": 0.5}
    assert configured("rewards.accuracy=3", rewards={"accuracy": 2}).rewards["accuracy"].weight == 3.0


def test_parts_take_max_tokens_from_the_rollouts() -> None:
    config = configured("algorithm=dr_grpo", "rollouts.max_tokens=77")
    assert config.algorithm.max_tokens == 77
    assert configured("algorithm.max_tokens=5", "rollouts.max_tokens=77", algorithm="dr_grpo").algorithm.max_tokens == 5


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("lerner.lr=1", "unknown key lerner.lr; did you mean learner.lr?"),
        ("learner.adapter.rr=1", "did you mean learner.adapter.r?"),
        ("rollouts.grup=4", "did you mean rollouts.group?"),
        ("algorithm=rlo", "did you mean 'rloo'?"),
        ("rewards.acuracy=1", "did you mean 'accuracy'?"),
        ("learner.lr=fast", "learner.lr"),
        ("rollouts.group=0", "rollouts.group"),
        ("rollouts.group=2.5", "rollouts.group"),
        ("seed=true", "seed"),
        ("noequals", "key=value"),
        ("learner.lr={", "not valid YAML"),
        ("model.x=1", "model"),
    ],
)
def test_bad_input_gets_one_sentence_that_helps(override: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        configured(override)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_keys_are_named() -> None:
    with pytest.raises(UserError, match="model is missing"):
        resolve({"data": "arithmetic"})


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'demo'"):
        read_recipe("dmeo")


def written(folder: Path, **texts: str) -> str:
    """Recipes by name in a folder; the path of the last."""
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return str(folder / f"{name}.yaml")


def test_a_recipe_that_extends_another_says_what_it_changes(tmp_path: Path) -> None:
    base = "model: shape:tiny-reasoner\ndata: arithmetic\nalgorithm: {name: grpo, kl: 0.5}\nsteps: 7\n"
    middle = "extends: base.yaml\nlearner.adapter.r: 4\nalgorithm: dr_grpo\n"
    path = written(tmp_path, base=base, middle=middle, top="extends: middle.yaml\nlearner.adapter.alpha: 16\n")
    name, tree = read_recipe(path)
    overrides = ["learner.adapter.r=4", "algorithm=dr_grpo", "learner.adapter.alpha=16"]
    assert name == "top"
    assert resolve(tree) == resolve(read_recipe(str(tmp_path / "base.yaml"))[1], parse_overrides(overrides))
    assert (resolve(tree).steps, resolve(tree).algorithm.kl) == (7, 0.0)  # the block was replaced


def test_a_recipe_may_extend_one_of_the_package_and_order_counts(tmp_path: Path) -> None:
    text = "extends: demo\nrewards: {format: 1}\nrewards.accuracy: 2\nlearner.lr: 1e-6\n"
    config = resolve(read_recipe(written(tmp_path, own=text))[1], {"rewards.format": 3})
    assert {name: w.weight for name, w in config.rewards.items()} == {"format": 3.0, "accuracy": 2.0}
    assert (config.learner.lr, config.model) == (1e-6, "recipe:demo-base")


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"b": "extends: a.yaml\n", "a": "extends: b.yaml\n"}, "in a circle: a -> b -> a"),
        ({"a": "extends: a.yaml\n"}, "in a circle: a -> a"),
        ({"a": "extends: dmeo\n"}, "did you mean 'demo'?"),
        ({"a": "extends: b.yaml\n"}, "there is no recipe 'b.yaml'"),
        ({"a": "extends: [demo, gsm8k]\n"}, "name or path of one recipe"),
        ({"a": "extends: nlu-glue\ndata.task.x: 1\n"}, "a.yaml: data.task.x: task holds"),
        ({"b": "extends: {\n", "a": "extends: b.yaml\n"}, "b.yaml is not valid YAML"),
    ],
)
def test_what_cannot_be_extended_is_said_in_one_sentence(texts: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        read_recipe(written(tmp_path, **texts))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_resolves_and_round_trips(name: str) -> None:
    config = resolve(read_recipe(name)[1])
    assert to_tree(resolve(parse_yaml(to_yaml(config), name))) == to_tree(config)


@given(lr=st.floats(1e-9, 1.0), steps=st.integers(0, 10**6), group=st.integers(1, 512))
def test_what_is_written_is_what_is_read(lr: float, steps: int, group: int) -> None:
    config = configured(f"learner.lr={lr!r}", f"steps={steps}", f"rollouts.group={group}")
    again = resolve(parse_yaml(to_yaml(config), "config.yaml"))
    assert (again.learner.lr, again.steps, again.rollouts.group) == (lr, steps, group)


def test_a_part_of_the_users_own_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def short(group):\n    return [-len(s.tokens_T) for s in group.samples]\n")
    config = configured(rewards={"accuracy": 1, f"{file}:short": 0.1})
    assert config.rewards[f"{file}:short"].weight == 0.1
    assert f"{file}:short" in to_tree(config)["rewards"]
    with pytest.raises(UserError, match="did you mean 'short'"):
        configured(rewards={f"{file}:shrt": 1})


def test_schema_describes_every_key_with_its_bounds() -> None:
    schema = Config.model_json_schema()
    assert {"model", "data", "rollouts", "learner"} <= set(schema["properties"])
    group = schema["$defs"]["Rollouts"]["properties"]["group"]
    assert (group["default"], group["minimum"]) == (8, 1)
    assert all("description" in field for field in schema["$defs"]["Rollouts"]["properties"].values())
