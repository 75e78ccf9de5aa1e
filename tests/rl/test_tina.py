"""Tina's recipes against the published ones, key by key, and against docs/tina.md; each under `--dry-run`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from underdog.parts import UserError
from underdog.records import Problem
from underdog.rl.api import train
from underdog.rl.checks import check
from underdog.rl.choices import name_of
from underdog.rl.config import Config, parse_yaml, read_recipe, recipe_names, resolve
from underdog.rl.data.prompts import wording

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tina.md").read_text(encoding="utf-8")

Keys = dict[str, Any]

# --- the published recipes, key by key ----------------------------------------------------------------------------

SEVEN = ["accuracy", "format", "tag_count", "length", "reasoning_steps", "cosine", "repetition_penalty"]
COMMON = {
    "model_post_train_type": "grpo",
    "model_name_or_path": "DeepSeek-R1-Distill-Qwen-1.5B",
    "attn_implementation": "flash_attention_2",
    "use_peft": True,
    "lora_dropout": 0.05,
    "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj", "up_proj", "gate_proj"],
    "bf16": True,
    "use_vllm": True,
    "vllm_device": "cuda:0",
    "gradient_accumulation_steps": 4,
    "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": False},
    "log_level": "info",
    "logging_first_step": True,
    "logging_steps": 1,
    "logging_strategy": "steps",
    "push_to_hub": False,
    "hub_strategy": "every_save",
    "hub_private_repo": True,
    "hub_model_id": "TODO",
    "lr_scheduler_type": "cosine_with_min_lr",
    "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
    "max_prompt_length": 512,
    "num_train_epochs": 1,
    "overwrite_output_dir": True,
    "report_to": ["wandb"],
    "save_strategy": "steps",
    "save_total_limit": 100,
    "seed": 42,
    "temperature": 0.7,
    "warmup_ratio": 0.1,
}
"""In every file."""


def file(name: str, funcs: list[str], weights: list[float], steps: int | None, group: int, **own: Any) -> Keys:
    """The keys of one published file beside those of all; a key set to None is not in it."""
    keys = {
        "model_post_train_dataset_name": f"curated_{name}",
        "rl_post_train_reward_funcs": funcs,
        "rl_post_train_reward_weights": weights,
        "lora_r": 32,
        "lora_alpha": 128,
        "vllm_gpu_memory_utilization": 0.4,
        "vllm_max_model_len": 4608,
        "learning_rate": 1e-6,
        "max_completion_length": 3584,
        "max_steps": steps,
        "num_generations": group,
        "per_device_train_batch_size": group,
        "save_steps": 50,
    }
    return {key: value for key, value in {**keys, **own}.items() if value is not None}


def limr(name: str, **own: Any) -> Keys:
    return file(name, ["format", "accuracy"], [1.0, 2.0], 360, 4, **own)


def seven(name: str, **own: Any) -> Keys:
    return file(name, SEVEN, [1.0] * 7, None, 8, save_steps=100, vllm_max_model_len=None, **own)


FORM = ["format", "tag_count", "length", "reasoning_steps", "repetition_penalty"]
PUBLISHED = {
    "tina-rs1": file("open_rs1", ["format", "accuracy"], [1.0, 2.0], 5000, 4, save_steps=100),
    "tina-rs2": file("open_rs2", ["format", "accuracy"], [1.0, 2.0], 1500, 6),
    "tina-rs3": file("open_rs3", ["format", "cosine"], [1.0, 2.0], 1500, 6),
    "tina-deepscaler": file("deepscaler", ["format", "accuracy"], [1.0, 2.0], 11000, 4, save_steps=100),
    "tina-still3": file("still", ["length", "accuracy"], [1.0, 2.0], 7500, 4, save_steps=100),
    "tina-limr": limr("limr", save_steps=10),
    "tina-openr1": seven("open_r1"),
    "tina-openthoughts": seven(
        "thoughts",
        model_post_train_dataset_config="OpenThoughts-114k-math-default",
        vllm_gpu_memory_utilization=0.6,
    ),
    "tina-limr-r4": limr("limr_tiny_rank_ablation", lora_r=4, lora_alpha=16),
    "tina-limr-r8": limr("limr_small_rank_ablation", lora_r=8, lora_alpha=32),
    "tina-limr-r16": limr("limr_medium_rank_ablation", lora_r=16, lora_alpha=64),
    "tina-limr-r128": limr("limr_large_rank_ablation", lora_r=128, lora_alpha=512),
    "tina-limr-lr5e-6": limr("limr_large_lr_ablation", learning_rate=5e-6, save_steps=10),
    "tina-limr-lr5e-7": limr("limr_small_lr_ablation", learning_rate=5e-7, save_steps=10),
    "tina-rs3-dr-grpo": file("open_rs3_drgrpo_ablation", ["format", "cosine"], [1.0, 2.0], 1500, 6, scale_reward=False),
}
"""The files at 077329b (STILL-3's at e16606f)."""
NOTED: dict[str, Keys] = {
    "tina-limr-r64": {"lora_r": 64, "lora_alpha": 256},
    "tina-rs3-format-only": {
        "model_post_train_dataset_name": "open_rs3_format_ablation",
        "rl_post_train_reward_funcs": FORM,
        "rl_post_train_reward_weights": [1.0] * 5,
        "max_steps": 1500,
        "num_generations": 6,
    },
    "tina-rs3-long": {
        "model_post_train_dataset_name": "open_rs3_long_completion_ablation",
        "rl_post_train_reward_funcs": ["format", "cosine"],
        "rl_post_train_reward_weights": [1.0, 2.0],
        "max_completion_length": 8960,
        "max_steps": 1500,
        "num_generations": 6,
    },
}
"""What is known of those whose files could not be read, or that the paper has and the repository has not."""


class Data(NamedTuple):
    """Of one data set: its id, columns, wording, and the recipe's steps, horizon and group."""

    id: str
    prompt: str
    answer: str
    template: str
    steps: int
    horizon: int | None
    group: int


RS = Data("knoveleng/open-rs", "problem", "solution", "open-rs", 850, 1500, 6)
LIMR = Data("GAIR/LIMR", "prompt", "answer", "open-r1", 180, 360, 4)
DATA = {
    "tina-rs1": Data("knoveleng/open-s1", "problem", "solution", "open-r1", 2400, 5000, 4),
    "tina-rs2": RS,
    "tina-rs3": RS,
    "tina-deepscaler": Data("agentica-org/DeepScaleR-Preview-Dataset", "problem", "answer", "open-r1", 5500, 11000, 4),
    "tina-still3": Data("RUC-AIBOX/STILL-3-Preview-RL-Data", "question", "answer", "open-r1", 3750, 7500, 4),
    "tina-limr": LIMR,
    "tina-openr1": Data("open-r1/OpenR1-Math-220k", "problem", "solution", "open-r1", 93_700 // 8, None, 8),
    "tina-openthoughts": Data("bethgelab/CuratedThoughts", "problem", "solution", "open-r1", 66_100 // 8, None, 8),
    **{f"tina-limr-{arm}": LIMR for arm in ("r4", "r8", "r16", "r64", "r128", "lr5e-6", "lr5e-7")},
    **{f"tina-rs3-{arm}": RS for arm in ("dr-grpo", "format-only", "long")},
}
CHARACTERS = {"weight": 1, "unit": "characters"}
COSINE = {"weight": 2, "max_len": 3584, "unit": "characters", "clamp": False}
SEVEN_REWARDS = {
    **dict.fromkeys(("accuracy", "format", "tag_count", "repetition"), 1),
    "length": CHARACTERS,
    "reasoning_steps": {"weight": 1, "every_line": False},
    "cosine": {**COSINE, "weight": 1},
}
REWARDS: dict[str, dict[str, Any]] = {
    "tina-rs3": {"format": 1, "cosine": COSINE},
    "tina-rs3-dr-grpo": {"format": 1, "cosine": COSINE},
    "tina-rs3-long": {"format": 1, "cosine": COSINE},
    "tina-still3": {"length": CHARACTERS, "accuracy": 2},
    "tina-openr1": SEVEN_REWARDS,
    "tina-openthoughts": SEVEN_REWARDS,
    "tina-rs3-format-only": {k: v for k, v in SEVEN_REWARDS.items() if k not in ("accuracy", "cosine")},
}
"""All others: format 1, accuracy 2."""
CORRECTED = {
    "tina-rs2": [
        ("learner.schedule.horizon", None),
        ("rollouts.temperature", 1),
        ("algorithm.mismatch", "truncate"),
        ("algorithm.kl", 0),
        ("algorithm.epochs", 2),
        ("rewards.format.answer_tags", True),
        ("data.cut_prompts", False),
        ("data.answer", "answer"),
    ],
    "tina-rs3": [("rewards.cosine.unit", "tokens"), ("rewards.cosine.clamp", True)],
    "tina-still3": [("rewards.length.unit", "tokens")],
    "tina-openr1": [("rewards.reasoning_steps.every_line", True), ("rewards.length.unit", "tokens")],
    "tina-rs3-dr-grpo": [("algorithm.by_tokens", False)],
}
"""The overrides that the recipes' comments give."""


def recipe(name: str, overrides: dict[str, Any] | None = None) -> Config:
    return resolve(read_recipe(name)[1], overrides)


def test_all_of_tina_s_recipes_are_there() -> None:
    assert {name for name in recipe_names() if name.startswith("tina-")} == set(DATA)
    assert set(PUBLISHED) | set(NOTED) == set(DATA)


@pytest.mark.parametrize("name", DATA)
def test_what_all_of_them_share(name: str) -> None:
    config = recipe(name)
    data, rollouts, learner = config.data, config.rollouts, config.learner
    assert (config.model, config.seed) == ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 42)
    assert (data.max_prompt_tokens, data.cut_prompts, data.held_out, data.split) == (512, True, 0, "train")
    assert (rollouts.problems, rollouts.temperature, rollouts.top_p, rollouts.top_k) == (8, 0.7, 1, 0)
    assert name_of(rollouts.engine) == "vllm"
    schedule = learner.schedule
    assert (schedule.name, schedule.warmup, schedule.floor) == ("cosine", 0.1, 0.1)
    assert (learner.dtype, learner.gradient_checkpointing, name_of(learner.optimizer)) == ("bfloat16", True, "adamw")
    adapter = learner.adapter
    assert (name_of(adapter), adapter.dropout, adapter.rslora, adapter.bias) == ("lora", 0.05, False, "none")
    assert sorted(adapter.targets) == sorted(COMMON["lora_target_modules"])
    algorithm = config.algorithm
    assert name_of(algorithm) == ("dr_grpo" if name == "tina-rs3-dr-grpo" else "grpo")
    assert (algorithm.kl, algorithm.kl_estimator, algorithm.epochs, algorithm.mismatch) == (0.04, "k3", 1, "none")
    assert algorithm.by_tokens if name == "tina-rs3-dr-grpo" else algorithm.scale


@pytest.mark.parametrize("name", DATA)
def test_what_each_of_them_sets(name: str) -> None:
    config, own = recipe(name), DATA[name]
    keys = {**file("", [], [], None, own.group), **PUBLISHED.get(name, {}), **NOTED.get(name, {})}
    data, rollouts, learner = config.data, config.rollouts, config.learner
    found = Data(
        data.id, data.prompt, data.answer, data.template, config.steps, learner.schedule.horizon, rollouts.group
    )
    assert found == own
    assert data.config == keys.get("model_post_train_dataset_config")
    assert learner.schedule.horizon == keys.get("max_steps", own.horizon)
    assert (learner.lr, rollouts.max_tokens) == (keys["learning_rate"], keys["max_completion_length"])
    assert (learner.adapter.r, learner.adapter.alpha) == (keys["lora_r"], keys["lora_alpha"])
    assert learner.adapter.alpha == 4 * learner.adapter.r
    if name in PUBLISHED:
        assert rollouts.engine.gpu_memory == keys["vllm_gpu_memory_utilization"]
        assert rollouts.engine.context == PUBLISHED[name].get("vllm_max_model_len")
        assert config.checkpoint.every == keys["save_steps"]
    assert config == recipe(name, {"rewards": REWARDS.get(name, {"format": 1, "accuracy": 2})})


@pytest.mark.parametrize("name", [name for name in DATA if name in PUBLISHED or "funcs" in str(NOTED.get(name))])
def test_rewards_have_the_published_weights(name: str) -> None:
    keys = {**PUBLISHED, **NOTED}[name]
    names = ["repetition" if func == "repetition_penalty" else func for func in keys["rl_post_train_reward_funcs"]]
    weights = dict(zip(names, keys["rl_post_train_reward_weights"], strict=True))
    assert {reward: weighted.weight for reward, weighted in recipe(name).rewards.items()} == weights


@pytest.mark.parametrize("name", CORRECTED)
def test_departures_are_named_in_the_recipe_and_can_be_taken_back(name: str) -> None:
    path = Path(__file__).resolve().parents[2] / "recipes" / f"{name}.yaml"
    comment = " ".join(re.findall(r"^# ?(.*)$", path.read_text(), re.MULTILINE))
    for key, value in CORRECTED[name]:
        assert f"{key}={json.dumps(value).strip(chr(34))}" in comment
        assert recipe(name, {key: value}) != recipe(name)


# --- docs/tina.md -------------------------------------------------------------------------------------------------


class Line(NamedTuple):
    """One row of a table: the published key and value, our key and value, and where it was published."""

    key: str
    published: Any
    ours: str
    value: str
    source: str


def quoted(cell: str) -> str:
    return cell.strip().removeprefix("`").removesuffix("`")


def lines(section: str) -> list[Line]:
    """The rows of the section under that heading."""
    _, _, rest = PAGE.partition(f"\n## {section}\n")
    assert rest, section
    table = [line for line in rest.partition("\n## ")[0].splitlines() if line.startswith("| `")]
    cells = [line[2:-2].split(" | ") for line in table]
    return [
        Line(quoted(key), parse_yaml(quoted(said), key) if "`" in said else None, quoted(ours), quoted(value), source)
        for key, said, ours, value, _, source in cells
    ]


SHARED = [*lines("Keys of all recipes"), *lines("What the code and its defaults set")]


@pytest.mark.parametrize("name", DATA)
def test_each_published_key_has_a_row_with_the_published_value(name: str) -> None:
    rows = {line.key: line.published for line in [*lines("Keys of all recipes"), *lines(name)]}
    keys = {**COMMON, **PUBLISHED[name]} if name in PUBLISHED else NOTED[name]
    assert {key: rows.get(key, "no row") for key in keys} == keys


@pytest.mark.parametrize("name", DATA)
def test_each_recipe_is_as_its_rows_say(name: str) -> None:
    """A row's value laid over the recipe changes nothing."""
    tree = read_recipe(name)[1]
    config = resolve(tree)
    own = lines(name)
    special = {line.ours for line in own}
    assert len(own) >= (12 if name in PUBLISHED else 2)
    for line in [*own, *(line for line in SHARED if line.ours not in special)]:
        if line.ours:
            assert resolve(tree, {line.ours: parse_yaml(line.value, line.key)}) == config, line
        else:
            assert not line.value


@pytest.mark.parametrize("section", ["Keys of all recipes", "What the code and its defaults set", *DATA])
def test_each_row_cites_a_file_and_a_commit(section: str) -> None:
    for line in lines(section):
        cited = re.search(r"^`[\w./*-]+\.(yaml|py|sh)` [0-9a-f]{7}\b", line.source)
        assert cited or "c6274cd" in line.source, line


# --- each under --dry-run, on a stand-in for its data -------------------------------------------------------------

SOLUTION = "We add the two.\nHence $\\boxed{%d}$."
COLUMNS: dict[str, Any] = {
    "knoveleng/open-s1": lambda n: {
        "problem": f"{n}+1?",
        "solution": SOLUTION % (n + 1),
        "answer": str(n + 1),
    },
    "knoveleng/open-rs": lambda n: {"problem": f"{n}+1?", "solution": SOLUTION % (n + 1), "answer": str(n + 1)},
    "agentica-org/DeepScaleR-Preview-Dataset": lambda n: {"problem": f"{n}+1?", "answer": str(n + 1), "solution": "s"},
    "RUC-AIBOX/STILL-3-Preview-RL-Data": lambda n: {"question": f"{n}+1?", "answer": f"${n + 1}$"},
    "GAIR/LIMR": lambda n: {"prompt": f"{n}+1?", "answer": str(n + 1), "solution_qwen": ["t"]},
    "open-r1/OpenR1-Math-220k": lambda n: {
        "problem": f"{n}+1?",
        "solution": SOLUTION % (n + 1),
        "answer": str(n + 1),
        "generations": ["long", "texts"],
        "messages": [{"role": "user", "content": "q"}],
    },
    "bethgelab/CuratedThoughts": lambda n: {"problem": f"{n}+1?", "solution": SOLUTION % (n + 1), "messages": []},
}


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder a data set, laid out as the hub lays it out, with the published columns."""
    folders = {}
    for number, (name, row) in enumerate(COLUMNS.items()):
        folder = folders[name] = tmp_path_factory.mktemp(f"data{number}")
        rows = [row(n) for n in range(8)]
        (folder / "train.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    return folders


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path_factory.getbasetemp() / "datasets"))


def on(folder: Path, model: str) -> dict[str, Any]:
    """The overrides that put a recipe on a stand-in and a small model."""
    return {"model": model, "data.id": str(folder), "data.config": None}


@pytest.mark.parametrize("name", DATA)
def test_each_recipe_passes_the_dry_run_on_a_stand_in(name: str, stand_ins: dict[str, Path], bytes_shape: str) -> None:
    said: list[str] = []
    config = recipe(name, on(stand_ins[DATA[name].id], bytes_shape))
    check(config, said.append)
    text = "\n".join(said)
    assert "data: 8 problems to train on, 0 held out; 0 duplicates left out" in text
    assert "the verifier finds 100.0% of 8 gold answers right" in text
    assert f"adapter: lora trains {config.learner.adapter.r * 2 * (2 * 64 + 2 * 48 + 3 * 96):,} numbers" in text
    system = "A conversation between User and Assistant" if DATA[name].template == "open-rs" else "You are a helpful AI"
    assert system in text
    assert "<think>" in text
    assert text.count("prompts: 0 too long left out, ") == 1


def test_the_prompt_is_bos_system_user_assistant_and_opens_no_think_tag(bytes_shape: str) -> None:
    """By DeepSeek's own template, which opens one."""
    from underdog.rl.learner.model import load_tokenizer

    tokenizer = load_tokenizer(bytes_shape)
    tokenizer.chat_template = (
        "{{ '<BOS>' }}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}{% else %}"
        "{{ '<User>' + m['content'] }}{% endif %}{% endfor %}{{ '<Assistant><think>\n' }}"
    )
    prompts = wording(recipe("tina-rs2").data, tokenizer)
    text = prompts.text(Problem("p", "1+1?"))
    assert text.startswith("<BOS>\nA conversation between User and Assistant.")
    assert text.endswith("NOT use other languages.\n<User>1+1?<Assistant>")
    kept, counts = prompts.fit([Problem("p", "1+1?")])
    assert (len(kept[0][1]), counts["prompts/cut"]) == (512, 1)
    assert tokenizer.decode(kept[0][1]).endswith("<User>1+1?<Assistant>")


def test_the_rate_is_the_published_one_but_for_a_step() -> None:
    """transformers' cosine_with_min_lr takes (step - 1) where we take step; over 1,500 steps, warm-up 150."""
    import math

    schedule, steps = recipe("tina-rs2").learner.schedule, 850
    for step in (1, 75, 150, 151, 500, 850):
        rise = step / 150
        done = max(step - 151, 0) / 1350
        fall = 0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2
        assert schedule.share(step, steps) == pytest.approx(min(rise, 1) if step <= 150 else fall, rel=1e-12)
    assert schedule.share(850, steps) > 0.5  # the stretched horizon: the run ends half way down


def test_two_real_steps_of_the_recipe_made_small(stand_ins: dict[str, Path], bytes_shape: str, tmp_path: Path) -> None:
    small: dict[str, Any] = {
        "rollouts.engine": "local",
        "rollouts.max_tokens": 24,
        "rollouts.problems": 2,
        "steps": 2,
        "learner.dtype": "float32",
        "learner.adapter.r": 4,
        "data.max_prompt_tokens": 300,
    }
    (tmp_path / "mine.py").write_text("def letters(group):\n    return [s.text.count('e') for s in group.samples]\n")
    extra: dict[str, Any] = {f"rewards.{tmp_path / 'mine.py'}:letters": 0.5}
    out = tmp_path / "run"
    summary = train("tina-rs3-dr-grpo", out=str(out), **on(stand_ins[RS.id], bytes_shape), **small, **extra)
    assert (summary["steps"], summary["seed"], summary["base"]) == (2, 42, None)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["lr"] for row in rows] == pytest.approx([1e-6 / 150, 2e-6 / 150])
    assert all(row["updates/steps"] == 1 and row["kl"] >= 0 for row in rows)
    assert json.loads((out / "data.json").read_text())["prompts/cut"] == 8


def test_without_the_data_a_run_ends_in_one_clear_sentence(bytes_shape: str, tmp_path: Path) -> None:
    local: dict[str, Any] = {"model": bytes_shape, "rollouts.engine": "local"}
    with pytest.raises(UserError, match="the data set 'knoveleng/open-rs' could not be loaded") as caught:
        train("tina-rs2", out=str(tmp_path / "run"), **local)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
