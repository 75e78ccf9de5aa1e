"""Counts while training equal brute force; a LoRA's map is its product's; a mask holds every bit outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import underdog
from underdog.parts import RunError, UserError
from underdog.rl.api import export, train
from underdog.rl.learner.bitmaps import read_bitmaps, write_bitmaps
from underdog.rl.runs.metrics import TIMING
from underdog.rl.updates.sources import open_weights

QUIET: dict[str, Any] = {"eval.problems": 0, "eval.every": 0, "checkpoint.every": 1, "checkpoint.keep": 9}
FULL: dict[str, Any] = {"learner.adapter": "full", "learner.dtype": "bfloat16", "learner.lr": 1e-4, **QUIET}


def metrics(run: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith(TIMING)} for row in rows]


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    held = open_weights(f"{run}@{step}")
    return {name: held.read(name).clone() for name in held.kept}


@pytest.fixture(scope="module")
def lora(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lora") / "run"
    options = {"learner.dtype": "bfloat16", "learner.lr": 3e-4, "tracking.every": 1}
    train(tiny_recipe, out=str(out), steps=4, **{**QUIET, **options})
    return out


@pytest.fixture(scope="module")
def full(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("full") / "run"
    train(tiny_recipe, out=str(out), steps=4, **{**FULL, "tracking.every": 1})
    return out


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_each_tracked_step_is_brute_force(kind: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(kind)
    states = [weights(run, step) for step in range(5)]
    ever = {name: torch.zeros(tensor.shape, dtype=torch.bool) for name, tensor in states[0].items()}
    size = sum(tensor.numel() for tensor in states[0].values())
    for step, row in enumerate(metrics(run), 1):
        base, before, after = states[0], states[step - 1], states[step]
        counts = dict.fromkeys(("unchanged", "moved", "reverted", "never_touched"), 0)
        for name in base:
            now = after[name] != base[name]
            ever[name] |= now
            counts["unchanged"] += int((~now).sum())
            counts["moved"] += int((after[name] != before[name]).sum())
            counts["reverted"] += int(((before[name] != base[name]) & ~now).sum())
            counts["never_touched"] += int((~ever[name]).sum())
        assert {name: round(row[f"updates/{name}"] * size) for name in counts} == counts
        down = [name for name in base if "down_proj" in name]
        norm = torch.cat([(after[name].double() - base[name].double()).flatten() for name in down]).norm()
        assert row["updates/norm/down"] == pytest.approx(float(norm), rel=1e-4)
        assert row["grad_norm/down"] > 0
    tree = json.loads((run / "updates" / "step_4" / "updates.json").read_text())
    assert tree["total"]["stored"]["unchanged"] == pytest.approx(metrics(run)[-1]["updates/unchanged"])
    assert ("updates/B/unchanged" in metrics(run)[0]) == (kind == "lora")


def test_a_lora_has_its_rank_in_float32_and_one_map_in_every_form(lora: Path, tmp_path: Path) -> None:
    update = underdog.analyze(lora)
    spectra = [(t.spectrum, t.spectrum_float32) for t in update.tensors if t.spectrum_float32 and t.kind in "qkvo"]
    assert spectra
    assert all(0 < wide.numerical_rank <= 4 for _, wide in spectra if wide)
    assert max(stored.numerical_rank for stored, _ in spectra if stored) > 4  # once it is rounded
    trees = [json.loads((lora / "updates" / "step_4" / "updates.json").read_text())["total"]]
    _write_base(lora, tmp_path / "base")
    export(lora, tmp_path / "merged")
    export(lora, tmp_path / "adapter", form="adapter")
    for tuned in ("merged", "adapter"):
        other = underdog.analyze(tmp_path / "base", tmp_path / tuned)
        assert other.total().figures() == update.total().figures()
        assert [t.stored for t in other.tensors] == [t.stored for t in update.tensors]
    assert trees[0]["stored"]["unchanged"] == update.total().unchanged
    assert trees[0]["float32"]["norm"] == pytest.approx(update.total("float32").norm)


def _write_base(run: Path, folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in weights(run, 0).items()}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"tie_word_embeddings": true}')


def test_masters_show_what_rounding_swallowed(full: Path) -> None:
    update = underdog.analyze(full)
    stored, wide = update.total("stored"), update.total("float32")
    assert stored.unchanged > 3 * wide.unchanged
    assert stored.unchanged == pytest.approx(stored.rounding_only, abs=0.05)


@pytest.mark.slow
def test_outside_a_mask_every_bit_stays_for_200_steps_with_decay(full: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    decay = {"name": "adamw", "weight_decay": 0.1}
    options = {
        "learner.optimizer": decay,
        "learner.mask": {"name": "updates", "run": f"{full}@1"},
    }
    quick = {"rollouts.problems": 1, "checkpoint.every": 200, "tracking.every": 0}
    train(tiny_recipe, out=str(tmp_path / "run"), steps=200, **{**FULL, **options, **quick})
    base, tuned, probe = weights(full, 0), weights(tmp_path / "run", 200), weights(full, 1)
    inside = total = 0
    for name, first in base.items():
        mask = probe[name] != first
        assert torch.equal(tuned[name][~mask].view(torch.int16), first[~mask].view(torch.int16))
        inside += int((tuned[name] != first).sum())
        total += int(mask.sum())
    assert 0.5 * total < inside <= total


def test_a_masked_run_resumes_bit_for_bit(full: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    options = {**FULL, "learner.mask": {"name": "random", "run": str(full)}, "tracking.every": 2, "checkpoint.every": 3}
    options["checkpoint.keep"] = 1
    train(tiny_recipe, out=str(tmp_path / "whole"), steps=6, **options)
    train(tiny_recipe, out=str(tmp_path / "cut"), steps=3, **options)
    assert (tmp_path / "cut" / "updates" / "step_3" / "touched.npz").is_file()
    train(tiny_recipe, out=str(tmp_path / "cut"), steps=6, resume=True, **options)
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")
    states = [weights(tmp_path / name, 6) for name in ("whole", "cut")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not (tmp_path / "whole" / "updates" / "step_3" / "touched.npz").is_file()
    assert (tmp_path / "whole" / "updates" / "step_3" / "updates.json").is_file()


def test_controls_are_as_large_as_what_they_control_for(full: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    from underdog.parts import find

    base = weights(full, 0)
    ours = find("mask", "updates")(run=str(full)).choose(base, 0)
    assert all(torch.equal(ours[name], tensor != base[name]) for name, tensor in weights(full, 4).items())
    sizes = {name: int(mask.sum()) for name, mask in ours.items()}
    for kind in ("random", "magnitude"):
        matched = find("mask", kind)(run=str(full)).choose(base, 1)
        assert {name: int(mask.sum()) for name, mask in matched.items()} == sizes
        anywhere = find("mask", kind)(density=0.2, matched=False).choose(base, 1)
        assert sum(int(m.sum()) for m in anywhere.values()) == sum(round(0.2 * t.numel()) for t in base.values())
    largest = find("mask", "magnitude")(density=0.2, matched=False).choose(base, 1)
    inside = min(float(base[n].float().abs()[m].min()) for n, m in largest.items() if m.any())
    assert inside >= max(float(base[n].float().abs()[~m].max()) for n, m in largest.items() if not m.all())
    one, two = (find("mask", "random")(density=0.2).choose(base, seed) for seed in (1, 2))
    assert any(not torch.equal(one[name], two[name]) for name in base)


def test_masks_that_cannot_be_had_are_refused(full: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    mask = {"name": "updates", "run": str(full)}
    with pytest.raises(UserError, match=r"set learner\.adapter=full"):
        train(tiny_recipe, out=str(tmp_path / "a"), **{**QUIET, "learner.mask": mask})
    with pytest.raises(UserError, match=r"set learner\.ranks=1"):
        train(tiny_recipe, out=str(tmp_path / "b"), **{**FULL, "learner.mask": mask, "learner.ranks": 2})
    with pytest.raises(UserError, match=r"is no run folder"):
        train(tiny_recipe, out=str(tmp_path / "c"), **{**FULL, "learner.mask": {"name": "updates", "run": "nowhere"}})
    with pytest.raises(UserError, match=r"chooses no weight"):
        train(tiny_recipe, out=str(tmp_path / "d"), **{**FULL, "learner.mask": {**mask, "tolerance": 1e9}})
    with pytest.raises(UserError, match=r"give either run or density"):
        train(tiny_recipe, out=str(tmp_path / "e"), **{**FULL, "learner.mask": {"name": "random"}})


def test_bitmaps_are_compressed_and_damage_is_told(tmp_path: Path) -> None:
    sets = {"a": torch.rand(13, 7) < 0.5, "b": torch.zeros(1000, 1000, dtype=torch.bool)}
    write_bitmaps(tmp_path / "m.npz", sets)
    assert (tmp_path / "m.npz").stat().st_size < 2000
    read = read_bitmaps(tmp_path / "m.npz", {name: mask.shape for name, mask in sets.items()})
    assert all(torch.equal(read[name], mask) for name, mask in sets.items())
    for shapes in ({"a": (13, 70)}, {"c": (1,)}):
        with pytest.raises(RunError, match="does not hold the bitmaps of this model"):
            read_bitmaps(tmp_path / "m.npz", shapes)
    np.savez(tmp_path / "p.npz", a=np.array([object()], dtype=object))
    with pytest.raises(RunError, match="does not hold"):
        read_bitmaps(tmp_path / "p.npz", {"a": (1,)})
