"""`underdog analyze`: what it prints and writes, and what it says of bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def test_updates_of_a_run_are_shown_and_written(underdog: Any, finished_run: Path, tmp_path: Path) -> None:
    said = underdog("analyze", "updates", finished_run, "--spectra", "2", "--out", tmp_path / "maps")
    assert said.code == 0, said.err
    assert f"{finished_run}@0 → {finished_run}@last, as stored" in said.out.replace("\n", "")
    kinds = [line.split()[0] for line in said.out.splitlines() if line.strip()]
    assert {"all", "q", "k", "v", "o", "gate", "up", "down", "norm", "embedding"} <= set(kinds)
    assert "tied: lm_head.weight is model.embed_tokens.weight, counted once" in said.out
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {"updates.json", "updates.parquet", "updates.html"}


def test_a_run_overlaps_with_itself_wholly(underdog: Any, finished_run: Path, tmp_path: Path) -> None:
    said = underdog("analyze", "overlap", finished_run, finished_run, "--out", tmp_path / "met")
    assert said.code == 0, said.err
    (whole,) = [line.split() for line in said.out.splitlines() if line.split()[:1] == ["all"]]
    assert whole[3:5] == ["100.0%", "100.0%"]
    assert {path.name for path in (tmp_path / "met").iterdir()} == {"overlap.json", "overlap.parquet"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["updates", "nowhere"], "nowhere is no run folder, so what it began with is not known: name its base too"),
        (["updates", "./a", "./b"], "there is no folder ./a; give a model folder, a run folder or a Hugging Face id"),
        (["overlap", "one"], "name at least two runs or models whose updates are to be compared"),
        (["overlap", "one", "two"], "one is no run folder, so what it began with is not known: name its base too"),
    ],
)
def test_bad_input_gets_one_sentence(underdog: Any, arguments: list[str], sentence: str) -> None:
    said = underdog("analyze", *arguments)
    assert (said.code, said.sentence) == (2, sentence)


def test_a_step_without_a_checkpoint_is_told(underdog: Any, finished_run: Path) -> None:
    said = underdog("analyze", "updates", f"{finished_run}@999")
    assert said.code == 2
    assert "has no checkpoint '999'; it holds steps" in said.sentence
