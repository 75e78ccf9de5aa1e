"""What a run exports is the policy it trained, as transformers and PEFT load it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from underdog.parts import UserError
from underdog.rl.api import export, train
from underdog.rl.learner.model import load_base
from underdog.rl.runs import checkpoint
from underdog.rl.runs.folder import read_config
from underdog.rl.trained import trained_learner

IDS = torch.tensor([[3, 9, 14, 5, 7, 4], [8, 8, 3, 12, 6, 11]])
QUICK: dict[str, Any] = {"eval.problems": 0, "eval.every": 0, "learner.lr": 0.02, "checkpoint.every": 1}


@pytest.fixture(scope="module")
def base(tiny_shape: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder of the tiny model."""
    folder = tmp_path_factory.mktemp("base") / "model"
    made = load_base(tiny_shape, seed=5, dtype=torch.float32, device="cpu")
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(base: Path, tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps from `base`, far enough to see; every checkpoint kept."""
    out = tmp_path_factory.mktemp("run") / "run"
    train(tiny_recipe, model=str(base), out=str(out), steps=3, **{**QUICK, "checkpoint.keep": 3})
    return out


def logits(folder: Path) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder)(IDS).logits


def logits_through_peft(base: Path, adapter: Path) -> torch.Tensor:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()(IDS).logits


@pytest.mark.parametrize("step", ["1", "last"])
def test_merged_model_and_adapter_give_the_same_logits(base: Path, run: Path, step: str, tmp_path: Path) -> None:
    merged = logits(export(run, tmp_path / "merged", checkpoint=step))
    adapted = logits_through_peft(base, export(run, tmp_path / "adapter", form="adapter", checkpoint=step))
    torch.testing.assert_close(merged, adapted, rtol=0, atol=2e-5)
    assert (merged - logits(base)).abs().max() > 1e-2


def test_the_checkpoint_that_is_asked_for(run: Path, tmp_path: Path) -> None:
    first, last = (export(run, tmp_path / step, form="adapter", checkpoint=step) for step in ("1", "last"))
    name = "adapter_model.safetensors"
    assert (last / name).read_bytes() == (run / "adapters" / "v3" / name).read_bytes()
    assert (first / name).read_bytes() == (run / "adapters" / "v1" / name).read_bytes()
    assert (first / name).read_bytes() != (last / name).read_bytes()


def test_best_is_the_checkpoint_that_evaluated_best(tiny_recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(tiny_recipe, out=str(out), steps=2, **{**QUICK, "eval.every": 1})
    best = checkpoint.best(out / "checkpoints")
    assert best is not None
    wanted = trained_learner(out, read_config(out).model, str(best["step"])).policy.digest()
    assert trained_learner(out, read_config(out).model, "best").policy.digest() == wanted
    evaluation = json.loads((out / "evaluations" / f"step_{best['step']}.json").read_text())
    assert evaluation["digest"] == wanted


def test_the_merged_folder_brings_its_tokenizer(base: Path, run: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = export(run, tmp_path / "merged")
    tokenizer, before = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(base)
    assert tokenizer("12+34=").input_ids == before("12+34=").input_ids
    assert tokenizer.chat_template == before.chat_template
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors", ".jinja"}


def test_an_exported_model_is_a_model_to_train(run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    folder = export(run, tmp_path / "merged")
    settings = {**QUICK, "learner.lr": 1e-9}
    train(tiny_recipe, model=str(folder), out=str(tmp_path / "next"), steps=1, **settings)
    after = export(tmp_path / "next", tmp_path / "again")
    torch.testing.assert_close(logits(after), logits(folder), rtol=0, atol=1e-5)


def test_an_exported_adapter_is_where_another_run_starts(
    base: Path, run: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    adapter = export(run, tmp_path / "adapter", form="adapter")
    before = load_file(adapter / "adapter_model.safetensors")
    out = tmp_path / "next"
    settings = {**QUICK, "learner.lr": 1e-9, "eval.problems": 2, "init_adapter": str(adapter)}
    train(tiny_recipe, model=str(base), out=str(out), steps=1, **settings)
    after = load_file(out / "adapters" / "v1" / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-7)
    # What the new run calls its base policy is what the first one trained.
    digest = json.loads((out / "evaluations" / "base.json").read_text())["digest"]
    assert digest == trained_learner(run, read_config(run).model).policy.digest()


def test_an_adapter_of_another_shape_is_refused(run: Path, tiny_recipe: Path, base: Path, tmp_path: Path) -> None:
    adapter = export(run, tmp_path / "adapter", form="adapter")
    settings = {**QUICK, "learner.adapter.r": 2, "init_adapter": str(adapter)}
    with pytest.raises(UserError, match=r"has r=4, .*set learner\.adapter\.r"):
        train(tiny_recipe, model=str(base), out=str(tmp_path / "next"), steps=1, **settings)
    assert not (tmp_path / "next").exists()


def test_a_policy_without_an_adapter_says_so(tiny_recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(tiny_recipe, out=str(out), steps=1, **{**QUICK, "learner.adapter": "full"})
    with pytest.raises(UserError, match=r"no adapter .*--form merged"):
        export(out, tmp_path / "adapter", form="adapter")
    assert not (tmp_path / "adapter").exists()
    assert (export(out, tmp_path / "merged") / "config.json").is_file()
