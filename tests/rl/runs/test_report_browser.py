"""The report in a real headless Chromium, from file://: drawn, filtered, silent on the network, deaf to hostility."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from underdog.rl.runs.report.build import write_report
from underdog.tests.browser import PATIENCE, assert_quiet, browser, open_folds, visit
from underdog.tests.rl.runs.fake_run import HOSTILE, write_run


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    yield from browser(tmp_path_factory.mktemp("chromium"))


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    return write_report([write_run(tmp_path_factory.mktemp("runs") / "demo-1", steps=24)])


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    folders = [write_run(runs / "demo-1", steps=12), write_run(runs / "demo-2", steps=70, seed=4, lr=1e-3)]
    return write_report([*folders, write_run(runs / "<b>3", steps=8, finished=False)], runs / "comparison.html")


def count_text(driver):
    return driver.find_element(By.ID, "count").text


@pytest.mark.parametrize("which", ["single", "several"])
def test_every_chart_is_drawn_without_an_error_or_a_request(driver, which, request):
    visit(driver, request.getfixturevalue(which))
    open_folds(driver)
    charts = driver.execute_script(
        """return [...document.querySelectorAll('.plot')].map((plot) => ({
             title: plot.parentElement.querySelector('h3').textContent,
             label: plot.getAttribute('aria-label'),
             width: plot.getBoundingClientRect().width,
             wanted: plot._fullData.filter((t) => t.visible === true).length,
             drawn: plot.querySelectorAll('.scatterlayer .trace, .barlayer .trace').length,
             shapes: plot.querySelectorAll('.scatterlayer .trace path[d], .barlayer .point path[d]').length,
           }))"""
    )
    assert len(charts) >= 18
    for chart in charts:
        assert chart["drawn"] == chart["wanted"] > 0, chart
        assert chart["shapes"] > 0, chart
        assert chart["width"] > 200, chart
        assert chart["label"].startswith(chart["title"]), chart
    assert_quiet(driver)


def test_hostile_names_and_texts_stay_text(driver, several):
    visit(driver, several)
    assert driver.find_element(By.TAG_NAME, "h1").text == "demo-1 · demo-2 · <b>3"
    legend = driver.execute_script("return [...document.querySelectorAll('.legendtext')].map((t) => t.textContent)")
    assert "<b>3" in legend
    assert "<b>3: base" in legend
    titles = driver.execute_script("return [...document.querySelectorAll('.chart h3')].map((t) => t.textContent)")
    assert f"Parts of the reward: {HOSTILE[1]}" in titles
    assert driver.execute_script("return document.querySelectorAll('main img, main iframe, main link').length") == 0
    assert_quiet(driver)


@pytest.mark.parametrize("text", [t for t in HOSTILE if t.isprintable()])
def test_a_hostile_completion_is_found_and_shown_letter_by_letter(driver, single, text):
    visit(driver, single)
    search(driver, f"{text} 27*3")
    assert 0 < int(count_text(driver).split()[0]) < 384
    shown = first_completion(driver)
    assert shown.startswith(f"{text} 27*3=81, 81+14=95\nThe answer is")
    assert_quiet(driver)


def first_completion(driver):
    """Open the first sample by a click and read its completion."""
    driver.find_element(By.CSS_SELECTOR, ".sample summary").click()
    prompt_gold_completion = WebDriverWait(driver, PATIENCE).until(
        lambda d: d.find_elements(By.CSS_SELECTOR, ".sample pre")
    )
    return prompt_gold_completion[2].get_attribute("textContent")


def search(driver, text):
    driver.execute_script(
        "const field = document.getElementById('filters').elements.text;"
        "field.value = arguments[0]; field.dispatchEvent(new Event('input', { bubbles: true }))",
        text,
    )


def test_characters_that_hide_or_turn_text_are_made_visible(driver, single):
    visit(driver, single)
    search(driver, "gnirts")
    shown = first_completion(driver)
    for mark in ("U+202E", "U+202C", "U+0000", "U+001B", "U+2028"):
        assert f"⟨{mark}⟩" in shown
    assert not {"\u202e", "\u2028", "\x00", "\x1b"} & set(shown)
    assert_quiet(driver)


def test_filters_narrow_by_step_outcome_kind_and_stop(driver, single):
    rows = [
        json.loads(line)
        for path in (single.parent / "rollouts").glob("*.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    visit(driver, single)
    total = int(count_text(driver).split()[0])
    assert total == len(rows) == 24 * 16
    assert not driver.find_element(By.CSS_SELECTOR, "[name=run]").is_displayed()
    assert len(driver.find_elements(By.CLASS_NAME, "sample")) == 25
    driver.find_element(By.ID, "more-samples").click()
    assert len(driver.find_elements(By.CLASS_NAME, "sample")) == 50
    choose(driver, "step", "7")
    assert count_text(driver) == "16 of 384 match; 16 listed"
    choose(driver, "outcome", "could_not_grade")
    assert count_text(driver).startswith("1 of")
    choose(driver, "step", "")
    assert count_text(driver).startswith(f"{sum(r['outcome'] == 'could_not_grade' for r in rows)} of")
    choose(driver, "outcome", "right")
    choose(driver, "stop", "length")
    wanted = sum(r["outcome"] == "right" and r["stop"] == "length" for r in rows)
    assert count_text(driver).startswith(f"{wanted} of")
    choose(driver, "kind", "ungraded")
    assert count_text(driver).startswith("0 of")
    assert_quiet(driver)


def choose(driver, name, value):
    Select(driver.find_element(By.CSS_SELECTOR, f"#filters [name={name}]")).select_by_value(value)


def test_samples_are_ordered_by_reward_with_ungraded_last(driver, single):
    visit(driver, single)
    choose(driver, "order", "-reward")
    rewards = [float(e.text.split()[1]) for e in driver.find_elements(By.CSS_SELECTOR, ".sample .reward")]
    assert rewards == sorted(rewards, reverse=True)
    choose(driver, "step", "7")
    last = driver.find_elements(By.CSS_SELECTOR, ".sample .outcome")[-1]
    assert last.text == "ungraded"


def test_several_runs_are_laid_over_each_other_and_filtered_by_run(driver, several):
    visit(driver, several)
    names = driver.execute_script(
        "return [...document.querySelectorAll('.plot')].find((p) => p.getAttribute('aria-label').startsWith('Reward.'))"
        "._fullData.filter((t) => t.showlegend).map((t) => t.name)"
    )
    assert names == ["demo-1", "demo-2", "&lt;b&gt;3"]  # plotly's own escapes: the legend shows <b>3
    differing = driver.execute_script(
        "return [...document.querySelectorAll('#differences tbody th')].map((t) => t.textContent)"
    )
    assert differing == ["learner.lr", "seed", "steps"]
    choose(driver, "run", "1")
    lines = [e.text for e in driver.find_elements(By.CSS_SELECTOR, ".sample summary")]
    assert lines
    assert all("demo-2, step" in line for line in lines)
    assert_quiet(driver)


def test_charts_follow_the_dark_scheme(driver, single):
    visit(driver, single)
    stroke = "return getComputedStyle(document.querySelectorAll('.plot .js-line')[0]).stroke"
    light = driver.execute_script(stroke)
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    try:
        WebDriverWait(driver, PATIENCE).until(lambda d: d.execute_script(stroke) != light)
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert_quiet(driver)


def test_nothing_is_wider_than_a_phone(driver, several):
    visit(driver, several)
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 380, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 380
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_chart_tools_hold_no_upload(driver, single):
    visit(driver, single)
    shown = "return [...new Set([...document.querySelectorAll('.modebar [data-title]')].map((b) => b.dataset.title))]"
    titles = WebDriverWait(driver, PATIENCE).until(lambda d: d.execute_script(shown))
    assert titles == ["Download plot as a PNG", "Reset axes"]


def test_the_policy_stops_a_script_and_a_request_that_got_in(driver, single):
    """The second line of defence: even markup that was let in could neither run nor call home."""
    asked = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        visit(driver, single)
        violations = driver.execute_async_script(
            """const [url, done] = arguments;
            const seen = new Set();
            document.addEventListener('securitypolicyviolation', (e) => {
              seen.add(e.effectiveDirective);
              if (seen.size === 4) done([...seen].sort());
            });
            document.body.insertAdjacentHTML('beforeend', `<img src="${url}a.png"><p onclick="window.hacked=1">x</p>`);
            document.body.lastElementChild.click();
            const script = document.createElement('script');
            script.textContent = 'window.hacked = 1';
            document.body.append(script);
            fetch(url + 'b').catch(() => {});
            setTimeout(() => done([...seen].sort()), 4000);""",
            f"http://127.0.0.1:{server.server_port}/",
        )
        assert violations == ["connect-src", "img-src", "script-src-attr", "script-src-elem"]
        assert driver.execute_script("return window.hacked === undefined")
        assert asked == []
    finally:
        server.shutdown()
        server.server_close()
