"""Planted updates are found again, in sharded folders of each dtype, with their ranks; what does not fit is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import underdog
from underdog.kernels.delta import TOLERANCES
from underdog.parts import UserError
from underdog.rl.updates.spectra import spectrum

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
Q, UP, NORM = (f"model.layers.{n}.weight" for n in ("0.self_attn.q_proj", "1.mlp.up_proj", "1.input_layernorm"))
EMBEDDING = "model.embed_tokens.weight"
DOCS = Path(__file__).resolve().parents[3] / "docs"


def model(dtype: torch.dtype) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = {Q: (96, 64), UP: (200, 64), NORM: (64,), EMBEDDING: (50, 64)}
    return {name: (torch.randn(shape, generator=draw) * 0.02).to(dtype) for name, shape in shapes.items()}


def saved(folder: Path, tensors: dict[str, Tensor], shards: int = 1, **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    index = {}
    for shard in range(shards):
        own = dict(list(tensors.items())[shard::shards])
        save_file(own, folder / f"model-{shard}.safetensors")
        index |= dict.fromkeys(own, f"model-{shard}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def moved(tensor: Tensor, mask: Tensor, places: int) -> Tensor:
    """`mask`'s elements by so many of their last places."""
    changed = tensor.clone()
    changed.view(torch.int16 if tensor.element_size() == 2 else torch.int32)[mask] += places
    return changed


@pytest.mark.parametrize("kind", DTYPES)
def test_a_planted_set_is_recovered_exactly_from_shards(kind: str, tmp_path: Path) -> None:
    base = model(DTYPES[kind])
    draw = torch.Generator().manual_seed(1)
    masks = {name: torch.rand(tensor.shape, generator=draw) < 0.1 for name, tensor in base.items() if name != NORM}
    tuned = {**base, **{name: moved(base[name], mask, 3) for name, mask in masks.items()}}
    update = underdog.analyze(saved(tmp_path / "a", base, 3), saved(tmp_path / "b", tuned, 2))
    assert update.forms == ("stored",)
    for tensor in update.tensors:
        name, change = tensor.name, tensor.stored
        mask = masks.get(name, torch.zeros(base[name].shape, dtype=torch.bool))
        delta = (tuned[name].float() - base[name].float()).abs()
        assert change.changed == int(mask.sum())
        assert change.ulps == (int(mask.sum()), 0, 0)
        assert change.beyond == tuple(int((delta > torch.tensor(t)).sum()) for t in TOLERANCES)
        assert change.norm == pytest.approx(float(delta.double().norm()), rel=1e-5)
        assert (change.rows_touched, change.columns_touched) == (
            int(mask.reshape(-1, mask.shape[-1]).any(1).sum()),
            int(mask.reshape(-1, mask.shape[-1]).any(0).sum()),
        )
    assert {t.name: (t.layer, t.kind) for t in update.tensors} == {
        Q: (0, "q"),
        UP: (1, "up"),
        NORM: (1, "norm"),
        EMBEDDING: (None, "embedding"),
    }
    total = update.total()
    assert total.changed == sum(int(mask.sum()) for mask in masks.values())
    assert total.weights == sum(tensor.numel() for tensor in base.values())
    assert sum(change.weights for change in update.by_kind().values()) == total.weights


@pytest.mark.parametrize("size", [1e-6, 1e-5, 1e-4, 1e-3])
def test_the_baseline_is_what_rounding_does_to_a_random_update(size: float, tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(2)
    base = (torch.randn(600, 500, generator=draw) * 0.02).bfloat16()
    step = torch.randn(base.shape, generator=draw) * size
    masters = {UP: base.float() + step}
    update = underdog.analyze(saved(tmp_path / "a", {UP: base}), saved(tmp_path / "b", masters))
    swallowed = float(((base.float() + step).bfloat16() == base).float().mean())
    assert update.total("float32").rounding_only == pytest.approx(swallowed, abs=0.01)
    assert update.total("stored").unchanged == pytest.approx(swallowed, abs=1e-6)
    assert update.total("float32").unchanged < 0.05 + swallowed * (size < 1e-5)


def test_known_ranks_are_recovered() -> None:
    draw = torch.Generator().manual_seed(3)
    for shape in ((40, 90), (90, 40), (20000, 24)):
        for rank in (1, 5, 17):
            delta = torch.randn(shape[0], rank, generator=draw) @ torch.randn(rank, shape[1], generator=draw)
            assert spectrum(1e-5 * delta).numerical_rank == rank
    flat = spectrum(torch.eye(30))
    assert flat.effective_rank == pytest.approx(30)
    assert spectrum(torch.zeros(4, 9)).numerical_rank == 0
    values = torch.linalg.svdvals(torch.randn(50, 30, generator=draw, dtype=torch.float64))
    delta = torch.diag(values.float())
    torch.testing.assert_close(torch.tensor(spectrum(delta).values), values.float(), rtol=1e-5, atol=1e-5)


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    base = {**model(torch.bfloat16), "model.rope": torch.arange(4)}
    tuned = {k: v for k, v in base.items() if k != UP} | {
        "lm_head.weight": base[EMBEDDING],
        "model.rope": torch.arange(4),
    }
    tuned[Q] = torch.zeros(96, 32, dtype=torch.bfloat16)
    tuned[EMBEDDING] = base[EMBEDDING].float()
    update = underdog.analyze(saved(tmp_path / "a", base, tie_word_embeddings=True), saved(tmp_path / "b", tuned))
    reasons = {one.name: one.reason for one in update.apart}
    assert reasons == {
        Q: "unequal shapes, [96, 64] and [96, 32]",
        UP: "missing in the tuned model",
        "lm_head.weight": "missing in the base (there it is tied to model.embed_tokens.weight)",
        "model.rope": "dtypes I64 and I64 are not compared",
    }
    assert update.tied == (("lm_head.weight", EMBEDDING),)
    (embedding,) = [tensor for tensor in update.tensors if tensor.name == EMBEDDING]
    assert embedding.dtype == "BF16"
    assert embedding.float32 is not None
    assert embedding.float32.changed == 0


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 40), "no whole safetensors file"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "no whole safetensors file"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no safetensors files"),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text(
                '{"weight_map": {"x": "gone.safetensors"}}'
            ),
            "lacks gone.safetensors",
        ),
    ],
)
def test_damaged_folders_are_refused_in_one_sentence(damage: Any, said: str, tmp_path: Path) -> None:
    good, bad = (saved(tmp_path / name, model(torch.bfloat16)) for name in "ab")
    damage(bad)
    with pytest.raises(UserError, match=said):
        underdog.analyze(good, bad)


def test_nothing_in_common_and_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    base = model(torch.bfloat16)
    good, other = saved(tmp_path / "a", base), saved(tmp_path / "b", {"x": base[Q]})
    with pytest.raises(UserError, match="no tensor of one name"):
        underdog.analyze(good, other)
    broken = saved(tmp_path / "c", {**base, Q: base[Q] * float("inf")})
    with pytest.raises(UserError, match=rf"{Q} holds values that are not finite"):
        underdog.analyze(good, broken)
    for missing in ("./nowhere", "a/b/c"):
        with pytest.raises(UserError, match="there is no folder"):
            underdog.analyze(good, missing)
    with pytest.raises(UserError, match="is no run folder.*name its base too"):
        underdog.analyze(good)


def test_files_hold_what_the_map_says(tmp_path: Path) -> None:
    base = model(torch.bfloat16)
    tuned = {**base, Q: moved(base[Q], torch.ones(96, 64, dtype=torch.bool), 1)}
    a, b = saved(tmp_path / "a", base), saved(tmp_path / "b", tuned)
    update = underdog.analyze(a, b, spectra=1, out=tmp_path / "out")
    tree = json.loads((tmp_path / "out" / "updates.json").read_text())
    jsonschema.validate(tree, json.loads((DOCS / "updates.schema.json").read_text()))
    assert tree["total"]["stored"]["unchanged"] == update.total().unchanged
    assert list(tree["spectra"]) == [UP]
    frame = pd.read_parquet(tmp_path / "out" / "updates.parquet")
    assert list(frame["name"]) == [tensor.name for tensor in update.tensors]
    assert frame.set_index("name").loc[Q, "unchanged"] == 0
    assert (tmp_path / "out" / "updates.html").read_text().startswith("<!doctype html>")
