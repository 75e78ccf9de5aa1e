"""The page of a study in a real headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By

from underdog.rl.studies.study import run_study
from underdog.tests.browser import assert_quiet, browser, open_folds, visit


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from browser(tmp_path_factory.mktemp("chromium"))


@pytest.mark.usefixtures("quick")
def test_the_page_shows_tables_charts_and_the_grid(driver: Any, write_study: Any, tmp_path: Path) -> None:
    hostile = ("# Which is better?", "# Which is <b onclick='window.hacked=1'>better</b>?")
    _, page = run_study(str(write_study(hostile)), out=tmp_path / "out")
    visit(driver, page)
    open_folds(driver)
    assert driver.find_element(By.TAG_NAME, "h1").text == "which"
    assert "Which is <b onclick" in driver.find_element(By.TAG_NAME, "header").text
    titles = [title.text for title in driver.find_elements(By.CSS_SELECTOR, "h3")]
    assert titles == ["Arms", "Against first", "pass@1 after training", "Reward"]
    assert "+0.125 [+0.125, +0.125]" in driver.find_element(By.ID, "result").text
    assert len(driver.find_elements(By.CSS_SELECTOR, "#runs tbody tr")) == 4
    assert "init_adapter: '{first}/adapters/v8'" in driver.find_element(By.ID, "config-0").text
    points = driver.execute_script("return document.querySelectorAll('.scatterlayer .points path').length")
    assert points >= 4 + 2
    assert driver.execute_script("return document.querySelectorAll('.yerror').length") == 2
    assert_quiet(driver)
