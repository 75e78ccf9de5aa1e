"""`underdog train` and the commands around it, as a user calls them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from underdog.rl.config import parse_yaml, read_recipe, recipe_names, resolve, to_tree


def test_train_writes_a_run_folder_and_says_how_it_went(underdog: Any, tiny_recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    said = underdog("train", tiny_recipe, "steps=1", f"out={out}", "seed=3")
    assert said.code == 0
    assert "step 1/1" in said.err
    assert str(out / "report.html") in said.err
    assert (out / "report.html").stat().st_size > 100_000
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["seed"], summary["steps"], summary["recipe"]) == (3, 1, "tiny")
    assert "shards" not in said.err + said.out  # no bar of another library among our lines


def test_without_out_runs_are_numbered(
    underdog: Any, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        assert underdog("train", tiny_recipe, "steps=1", "eval.problems=0").code == 0
        assert (tmp_path / "runs" / f"tiny-{number}" / "summary.json").is_file()


def test_dry_run_shows_the_resolved_configuration_and_writes_nothing(
    underdog: Any, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = underdog("train", tiny_recipe, "learner.adapter.r=2", "out=never", "--dry-run")
    assert (said.code, said.err) == (0, "")
    shown, _, words = said.out.partition("\nwould run")
    config = resolve(parse_yaml(shown, "what was shown"))
    assert (config.learner.adapter.r, config.out) == (2, "never")
    assert to_tree(config)["algorithm"] == {**to_tree(config)["algorithm"], "name": "grpo", "kl": 0.01}
    assert "3 problems x 4 samples = 12 samples a step" in words
    assert list(tmp_path.iterdir()) == []


def test_resume_goes_on_from_the_command_line(underdog: Any, tiny_recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    quick = (f"out={out}", "eval.problems=0", "eval.every=0")
    assert underdog("train", tiny_recipe, *quick, "steps=2").code == 0
    said = underdog("train", tiny_recipe, *quick, "steps=3", "--resume")
    assert said.code == 0
    assert "resuming after step 2" in said.err
    assert json.loads((out / "summary.json").read_text())["steps"] == 3
    assert "--resume needs the run's folder" in underdog("train", tiny_recipe, "--resume").sentence


def test_eval_of_a_run_repeats_its_final_evaluation(underdog: Any, finished_run: Path, tmp_path: Path) -> None:
    said = underdog("eval", finished_run, "--out", tmp_path / "counts.json")
    assert said.code == 0
    printed, counts = json.loads(said.out), json.loads((tmp_path / "counts.json").read_text())
    final, base = (
        json.loads((finished_run / "evaluations" / f"{name}.json").read_text()) for name in ("final", "base")
    )
    assert final.items() <= counts.items()
    assert counts["base"] == base
    assert counts["change"] == json.loads((finished_run / "summary.json").read_text())["change"]
    assert printed == {**counts, "problems": 8, "base": {**base, "problems": 8}}


def test_eval_of_a_recipe_measures_its_model_as_it_is(underdog: Any, tiny_recipe: Path, finished_run: Path) -> None:
    printed = json.loads(underdog("eval", tiny_recipe).out)
    base = json.loads((finished_run / "evaluations" / "base.json").read_text())
    assert (printed["pass@1"], printed["digest"], printed["version"]) == (base["pass@1"], base["digest"], 0)


def test_report_of_one_run_and_of_several(
    underdog: Any, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = underdog("report", finished_run, "--out", "one.html")
    assert (said.code, said.out.strip()) == (0, "one.html")
    said = underdog("report", finished_run, finished_run)
    assert (said.code, said.out.strip()) == (0, "comparison.html")
    assert all((tmp_path / name).stat().st_size > 100_000 for name in ("one.html", "comparison.html"))


def test_export_says_where_it_wrote(underdog: Any, finished_run: Path, tmp_path: Path) -> None:
    said = underdog("export", finished_run, tmp_path / "model", "--form", "adapter", "--checkpoint", "best")
    assert (said.code, said.out.strip(), said.err) == (0, str(tmp_path / "model"), "")
    assert (tmp_path / "model" / "adapter_config.json").is_file()


def test_recipes_lists_and_prints(underdog: Any) -> None:
    listed = underdog("recipes").out.splitlines()
    assert {line.split()[0] for line in listed} >= {"demo", "demo-base", "gsm8k"}
    assert all(len(line.split()) > 3 for line in listed)
    assert parse_yaml(underdog("recipes", "demo").out, "demo")["model"] == "recipe:demo-base"
    assert "did you mean 'demo'" in underdog("recipes", "dem").sentence


def test_schema_holds_what_a_recipe_may_say(underdog: Any) -> None:
    schema = json.loads(underdog("recipes", "--schema").out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["additionalProperties"] is False
    text = json.dumps(schema)
    referred = {part.partition('"')[0] for part in text.split('"$ref": "#/$defs/')[1:]}
    assert referred <= set(schema["$defs"])
    engines = schema["$defs"]["Rollouts"]["properties"]["engine"]["anyOf"]
    assert "local" in engines[0]["enum"]
    rewards = schema["properties"]["rewards"]
    assert rewards["properties"]["cosine"]["anyOf"][0]["type"] == "number"
    assert set(rewards["properties"]["cosine"]["anyOf"][1]["properties"]) == {"max_len", "unit", "clamp", "weight"}
    assert list(rewards["patternProperties"]) == [r"\.py:[A-Za-z_]\w*$"]


def test_recipes_are_valid_by_the_schema(underdog: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(underdog("recipes", "--schema").out)
    jsonschema.Draft202012Validator.check_schema(schema)
    demo = read_recipe("demo")[1]
    rewards = {"accuracy": 2, "cosine": {"max_len": 100, "weight": 0.5}, "mine.py:short": 1}
    for tree in (*(read_recipe(name)[1] for name in recipe_names()), {**demo, "rewards": rewards}):
        jsonschema.validate(tree, schema)
    jsonschema.validate({**demo, "learner": {"schedule": "cosine", "adapter": "full"}}, schema)
    jsonschema.validate({"extends": "demo", "steps": 3, "learner.adapter.r": 4, "algorithm": "dr_grpo"}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"steps": 3}, schema)
    wrong: list[dict[str, Any]] = [{"lerner": {}}, {"rewards": {"acuracy": 1}}, {"rewards": {"cosine": {"len": 1}}}]
    for change in (*wrong, {"steps": -1}, {"algorithm": {"name": "rloo", "scale": True}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**demo, **change}, schema)


def test_doctor_says_what_there_is_and_how_to_get_the_rest(underdog: Any) -> None:
    said = underdog("doctor")
    assert said.code == 0
    lines = {line.split()[0]: line for line in said.out.splitlines()}
    assert {"underdog", "python", "train", "vllm", "device", "engine", "disk"} <= set(lines)
    assert "torch" in lines["train"]
    for extra in ("vllm", "lean", "QLoRA"):
        assert ("missing" in lines[extra]) == (f"to get {extra}:" in said.out)


@pytest.mark.slow
def test_ctrl_c_ends_in_one_sentence_and_the_run_resumes(underdog: Any, tiny_recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "underdog.rl.cli", "train", str(tiny_recipe), f"out={out}", "eval.problems=0"]
    process = subprocess.Popen(
        [*command, "steps=10000"], stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=tmp_path
    )
    waited = time.monotonic() + 120
    while process.poll() is None and not (out / "metrics.jsonl").exists() and time.monotonic() < waited:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == f"underdog: interrupted; the same command with out={out} --resume goes on"
    assert "Traceback" not in errors
    done = len((out / "metrics.jsonl").read_text().splitlines())
    assert underdog("train", tiny_recipe, f"out={out}", "eval.problems=0", f"steps={done + 1}", "--resume").code == 0


def test_a_reward_of_the_user_s_own_is_an_override(
    underdog: Any, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def short(group):\n    return [-len(s.tokens_T) / 12 for s in group.samples]\n")
    own = ("rewards.mine.py:short=0.5", "rewards.accuracy=2")
    assert underdog("train", tiny_recipe, *own, "steps=1", "eval.problems=0", "out=run").code == 0
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert -1 <= row["rewards/mine.py:short/mean"] < 0
    shown = underdog("train", tiny_recipe, *own, "rewards.mine.py:short.weight=0.25", "--dry-run").out
    assert "accuracy x 2" in shown
    assert "mine.py:short x 0.25" in shown
