"""A real headless Chromium for the tests of pages, and what every page must be: drawn, without error or request."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE = 240
"""Seconds to wait for the page: a busy machine draws slowly, and only a page that never gets there is at fault."""
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)


def browser(profile: Path) -> Iterator[webdriver.Chrome]:
    """A browser with its files in `profile`, closed in the end."""
    binary, service = shutil.which("chromium"), shutil.which("chromedriver")
    assert binary, "these tests need Debian's packages chromium and chromium-driver: apt-get install them"
    assert service, "these tests need Debian's packages chromium and chromium-driver: apt-get install them"
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(service))
    yield driver
    driver.quit()


def visit(driver, path):
    """Open a page, with what earlier ones said forgotten."""
    driver.get("about:blank")
    driver.get_log("browser")
    driver.get(path.as_uri())
    return driver


def assert_quiet(driver):
    """No script error, nothing fetched, and nothing of what the samples tried."""
    assert driver.get_log("browser") == []
    assert driver.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)") == []
    assert driver.execute_script("return window.hacked === undefined")


def open_folds(driver):
    """Open what is folded, and wait until every chart is drawn."""
    driver.execute_script("document.querySelectorAll('section > details').forEach((d) => { d.open = true; })")
    WebDriverWait(driver, PATIENCE).until(
        lambda d: d.execute_script(
            "return [...document.querySelectorAll('.plot')]"
            ".every((p) => p._fullData && p.querySelector('.trace path[d], .trace .point path[d], .hm image'))"
        )
    )
