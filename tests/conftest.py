"""What tests of several rooms share: a very small model, a recipe that trains it in a second a step, a real Lean."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test reaches for the hub; what tries fails at once

settings.register_profile("underdog", deadline=None, derandomize=True)
settings.load_profile("underdog")

SHAPE = {
    "architecture": "Qwen2ForCausalLM",
    "config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
    },
    "tokenizer": {"characters": "0123456789+*=., {}\\boxed<>/thinkwrgs;"},
}


@pytest.fixture(scope="session")
def tiny_shape(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`shape:…` of a model with a few thousand parameters."""
    path = tmp_path_factory.mktemp("shape") / "tiny.json"
    path.write_text(json.dumps(SHAPE))
    return f"shape:{path}"


@pytest.fixture(scope="session")
def bytes_shape(tiny_shape: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same model with longer rows, and the tokenizer that reads any text."""
    shape = json.loads(Path(tiny_shape.removeprefix("shape:")).read_text())
    path = tmp_path_factory.mktemp("shape") / "bytes.json"
    shape["config"]["max_position_embeddings"] = 1024
    path.write_text(json.dumps({**shape, "tokenizer": "bytes"}))
    return f"shape:{path}"


@pytest.fixture(scope="session")
def tiny_recipe(tiny_shape: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of random answers with a reward that differs between them: the share of even digits."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "even.py").write_text(
        "def even(group):\n"
        "    return [sum(c in '02468' for c in s.text) / max(len(s.text), 1) for s in group.samples]\n"
    )
    path = folder / "tiny.yaml"
    path.write_text(
        f"model: {tiny_shape}\n"
        "data: {name: arithmetic, count: 64, held_out: 8}\n"
        "steps: 6\n"
        "rollouts: {problems: 3, group: 4, max_tokens: 12}\n"
        f"rewards: {{accuracy: 1, '{folder / 'even.py'}:even': 1}}\n"
        "algorithm: {name: grpo, kl: 0.01}\n"
        "learner: {lr: 1e-3, adapter: {name: lora, r: 4, alpha: 8, dropout: 0.05}}\n"
        "eval: {problems: 8, n: 4, every: 3, online_problems: 4, online_samples: 2}\n"
        "checkpoint: {every: 2}\n"
        "tracking: {every: 2}\n"
    )
    return path


@pytest.fixture(scope="session")
def lean_command() -> str:
    """The path of a real Lean 4: the machine's own, else the WebAssembly build of `lean_toolchain.py`."""
    return str(runpy.run_path(str(Path(__file__).with_name("lean_toolchain.py")))["lean"]())
