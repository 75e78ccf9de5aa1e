"""The analysis of double descent on real, very small runs, whose loss curves are then planted."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

import pytest

from underdog.rl.api import train
from underdog.rl.studies.analyses.double_descent import DoubleDescent, twins
from underdog.rl.studies.finished import Finished
from underdog.rl.studies.grid import Study, read_study
from underdog.rl.studies.intervals import share
from underdog.rl.studies.plan import plan, run_folder

pytestmark = pytest.mark.slow

GRID = """\
# Does it rebound?
recipe: {recipe}
overrides:
  algorithm: supervised
  rollouts: {{engine: gold, problems: 2, group: 1, max_tokens: 48}}
  learner.adapter: {{name: lora, r: 4, alpha: 8, dropout: 0}}
  steps: 60
  eval: {{every: 0, loss_every: 10, problems: 4, n: 1}}
  tracking.every: 0
  checkpoint.every: 60
seeds: [0, 1]
arms:
  plain: {{learner.lr: 1e-3}}
  still: {{learner.lr: 1e-3, learner.perturbation: none}}
  high: {{learner.lr: 1e-2}}
analysis: {{name: double_descent, problems: 4, products: 4}}
"""


@pytest.fixture(scope="module")
def made(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    folder = tmp_path_factory.mktemp("descent")
    path = folder / "which.yaml"
    path.write_text(GRID.format(recipe=tiny_recipe))
    study = read_study(str(path))
    for run in plan(study, folder / "out"):
        if run.arm != "high":
            train(study.grid.recipe, **run.overrides)
    # fall, rise by a half, recovery; of the seed 1 no recovery
    for seed, last in ((0, 0.8), (1, 1.1)):
        copytree(run_folder(folder / "out", "plain", seed), run_folder(folder / "out", "high", seed))
        plant(run_folder(folder / "out", "high", seed), [2.0] + 19 * [1.0] + 20 * [1.5] + 20 * [last])
    return study, folder / "out"


def plant(run: Path, losses: list[float]) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == len(losses)
    lines = [json.dumps({**row, "loss": loss}) for row, loss in zip(rows, losses, strict=True)]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def test_what_was_planted_stands_in_the_tables(made: tuple[Study, Path]) -> None:
    study, root = made
    findings = DoubleDescent(problems=4, products=4).analyse(Finished.read(study, root))
    rebounds, outcomes, sharpness, against = findings.tables
    row = dict(zip(rebounds.columns, rebounds.rows[2], strict=True))
    assert row == {
        "arm": "high",
        "rebounded": "2 of 2 [0.16, 1.00]",
        "and recovered": "1 of 2",
        "mean height": "50%",
        "bottom": "15",  # the first whole window
        "top": "28",  # eight of fifteen losses have risen
        "window 10": "2/1 of 2",
        "window 20": "2/1 of 2",
    }
    assert [r[1] for r in rebounds.rows[:2]] == ["0 of 2 [0.00, 0.84]"] * 2
    assert outcomes.columns[4:] == ("rise", "held-out rise")
    assert outcomes.rows[2][4] == "0.500 ± 0.000"
    # the arm with a perturbation that moves nothing is its twin, bit for bit
    assert against.rows == (("still", "plain", *["+0.000 [+0.000, +0.000]"] * 6),)
    assert sharpness.rows[0][1:] == sharpness.rows[1][1:]
    assert findings.verdict == (
        "Unperturbed: 2 of 4 runs rebounded, 1 recovered. Of plain: 0 of 2 runs rebounded, 0 recovered; "
        "perturbed: 0 of 2 runs rebounded, 0 recovered."
    )
    titles = [chart.title for chart in findings.charts]
    assert len(titles) == 8
    assert "Training loss, plain and perturbed" in titles
    noise = next(chart for chart in findings.charts if chart.title == "Loss along GGPO's noise, unperturbed")
    assert list(noise.figure["data"][1]["x"]) == [0, 1, 2, 4, 8, 16]


def test_twins_differ_in_the_perturbation_alone(made: tuple[Study, Path]) -> None:
    study, root = made
    assert twins(Finished(study, root, {})) == {"still": "plain"}


@pytest.mark.parametrize(("count", "of"), [(0, 3), (1, 3), (3, 3), (7, 20)])
def test_the_interval_of_a_share_is_clopper_and_pearsons(count: int, of: int) -> None:
    """Its ends are the shares under which what was seen, or more of it (less of it), has a chance of 2.5 %."""
    from scipy.stats import binom

    low, high = share(count, of)
    assert low == 0 if count == 0 else binom.sf(count - 1, of, low) == pytest.approx(0.025)
    assert high == 1 if count == of else binom.cdf(count, of, high) == pytest.approx(0.025)
