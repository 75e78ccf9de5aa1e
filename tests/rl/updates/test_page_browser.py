"""updates.html, and a run's report with its map, in a real headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By

import underdog
from underdog.rl.api import train
from underdog.tests.browser import assert_quiet, browser, open_folds, visit


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from browser(tmp_path_factory.mktemp("chromium"))


def test_the_page_and_the_report_draw_maps_curves_and_spectra(driver: Any, tiny_recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "<b>run"
    options: dict[str, Any] = {"learner.dtype": "bfloat16", "eval.problems": 0, "eval.every": 0, "checkpoint.every": 4}
    train(tiny_recipe, out=str(run), steps=4, **options)
    update = underdog.analyze(run, out=tmp_path / "maps")
    visit(driver, tmp_path / "maps" / "updates.html")
    open_folds(driver)
    assert driver.find_element(By.TAG_NAME, "h1").text == f"{run}@0 → {run}@last"
    table = driver.find_element(By.CSS_SELECTOR, "#updates table").text
    assert f"{update.total().unchanged:.2%}" in table
    assert f"{update.total().rounding_only:.2%}" in table
    titles = [title.text for title in driver.find_elements(By.CSS_SELECTOR, "figure h3")]
    assert titles == [
        "Share changed, as stored",
        "Share changed, in float32, before rounding",
        "Unchanged weights by tolerance",
        "Unchanged weights by layer",
        "Spectra of the update, as stored",
        "Spectra of the update, in float32, before rounding",
    ]
    assert driver.execute_script("return document.querySelectorAll('.heatmaplayer .hm').length") == 2
    assert "tied to model.embed_tokens.weight, counted once" in driver.find_element(By.ID, "apart").text
    assert_quiet(driver)
    visit(driver, run / "report.html")
    open_folds(driver)
    titles = [title.text for title in driver.find_elements(By.CSS_SELECTOR, "#updates figure h3")]
    assert {"Share changed, as stored", "Weights since the run's model", "Norm of the update by module"} <= set(titles)
    assert_quiet(driver)
