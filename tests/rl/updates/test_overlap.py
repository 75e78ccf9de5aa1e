"""Overlap of changed sets, and what chance would give."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import underdog
from underdog.parts import UserError
from underdog.rl.updates.overlap import hypergeometric, overlaps
from underdog.rl.updates.weights import held

NAMES = tuple(f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(3))


def changed_at(base: dict[str, torch.Tensor], masks: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.where(masks[name], base[name] * 2, base[name]) for name in base}


@pytest.fixture
def base() -> dict[str, torch.Tensor]:
    return {name: torch.randn(200, 100, generator=torch.Generator().manual_seed(i)) for i, name in enumerate(NAMES)}


def test_independent_masks_fall_within_all_three_intervals(base: dict[str, torch.Tensor]) -> None:
    inside = dict.fromkeys(("chance", "matched", "sized"), 0)
    for seed in range(60):
        draw = torch.Generator().manual_seed(100 + seed)
        masks = [{n: torch.rand(t.shape, generator=draw) < share for n, t in base.items()} for share in (0.3, 0.1)]
        sides = [(held("base", base), held(f"{i}", changed_at(base, masks[i]))) for i in range(2)]
        (pair,) = overlaps(sides).pairs
        total, figures = pair.total(), pair.total().figures()
        assert total.first == sum(int(m.sum()) for m in masks[0].values())
        assert total.both == sum(int((masks[0][n] & masks[1][n]).sum()) for n in NAMES)
        assert figures["overlap_of_first"] == total.both / total.first
        for law in inside:
            inside[law] += (
                figures[f"{law}_low_of_first"] <= figures["overlap_of_first"] <= figures[f"{law}_high_of_first"]
            )
    for law, number in inside.items():
        assert 51 <= number <= 60, law  # of 60 at 95 %: fewer than 51 come once in 10,000 times


def test_tensors_that_differ_in_density_and_weights_that_rounding_picks_are_allowed_for(
    base: dict[str, torch.Tensor],
) -> None:
    draw = torch.Generator().manual_seed(9)
    dense = {
        name: [torch.rand(t.shape, generator=draw) < (0.8 if i == 0 else 0.05) for _ in range(2)]
        for i, (name, t) in enumerate(base.items())
    }
    sides = [(held("base", base), held(f"{i}", changed_at(base, {n: dense[n][i] for n in base}))) for i in range(2)]
    figures = overlaps(sides).pairs[0].total().figures()
    assert figures["overlap_of_first"] > figures["chance_high_of_first"]
    assert figures["matched_low_of_first"] <= figures["overlap_of_first"] <= figures["matched_high_of_first"]
    small = {name: t.abs() < 0.25 for name, t in base.items()}  # only these change, whoever trains
    masks = [{n: small[n] & (torch.rand(t.shape, generator=draw) < 0.5) for n, t in base.items()} for _ in range(2)]
    sides = [(held("base", base), held(f"{i}", changed_at(base, masks[i]))) for i in range(2)]
    figures = overlaps(sides).pairs[0].total().figures()
    assert figures["overlap_of_first"] > figures["matched_high_of_first"]
    assert figures["sized_low_of_first"] <= figures["overlap_of_first"] <= figures["sized_high_of_first"]


def test_the_law_is_the_hypergeometric_one() -> None:
    from scipy.stats import hypergeom

    for n, a, b in ((50, 20, 7), (9, 9, 4), (1000, 0, 12)):
        mean, deviation = hypergeometric(n, a, b)
        assert mean == pytest.approx(hypergeom.mean(n, a, b))
        assert deviation == pytest.approx(hypergeom.std(n, a, b), abs=1e-12)


def test_tolerance_identity_and_files(base: dict[str, torch.Tensor], tmp_path: Path) -> None:
    tuned = {name: tensor + 1e-3 * (tensor > 0) for name, tensor in base.items()}
    for name, tensors in (("base", base), ("a", tuned), ("b", tuned), ("c", base)):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
    places = [tmp_path / name for name in "abc"]
    found = underdog.overlap(*places, base=tmp_path / "base", out=tmp_path / "out")
    frame = found.frame().set_index(["first", "second", "part"])
    assert frame.loc[(str(places[0]), str(places[1]), "all"), "overlap"] == 1
    assert frame.loc[(str(places[0]), str(places[2]), "all"), "overlap"] == 0
    assert len(found.pairs) == 3
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"overlap.json", "overlap.parquet"}
    coarse = underdog.overlap(*places[:2], base=tmp_path / "base", tolerance=0.01)
    assert coarse.pairs[0].total().first == 0
    with pytest.raises(UserError, match="name at least two"):
        underdog.overlap(places[0], base=tmp_path / "base")
