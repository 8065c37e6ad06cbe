"""The page of many runs in a real browser: sorted, filtered, an agent picked with keys alone, quiet and readable."""

import json
import shutil

import pytest
from report_browser import Browser, find_browser
from report_fake_run import change, make_run

from cosearch.overview.page import write_page
from cosearch.overview.rows import Reader
from cosearch.report.drawings.pareto import pareto_front

pytestmark = pytest.mark.skipif(find_browser() is None, reason="needs Chromium (Debian: apt-get install chromium)")
CONTRAST = """(() => {
  const channel = x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
  const light = c => { const v = c.match(/[\\d.]+/g).slice(0, 3).map(x => channel(x / 255));
    return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
  const page = light(getComputedStyle(document.body).backgroundColor);
  return Math.min(...[...document.querySelectorAll('svg text, h1, h2, p, td, th, label, figcaption, dd, dt, li')].map(e => {
    const own = light(e instanceof SVGElement ? getComputedStyle(e).fill : getComputedStyle(e).color);
    return (Math.max(own, page) + .05) / (Math.min(own, page) + .05); }));
})()"""
VISIBLE = "[...document.querySelectorAll('tbody tr')].filter(e => !e.hidden).map(e => e.cells[0].textContent.trim())"
POINTS = [(1.0, 3.0), (2.0, 9.0), (1.5, 5.0), (3.0, 8.0), (2.5, 12.0), (1.2, 3.0)]  # latency in ms, score
ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    first = make_run(root / "run0")
    for index, (latency_ms, score) in enumerate(POINTS):
        run = first if index == 0 else shutil.copytree(first, root / f"run{index}")
        change(run, "run.json", name=run.name, seed=index, config__strategy__name="x")
        change(
            run, "summary.json", latency_predicted_s=latency_ms / 1e3, score_mean=score, strategy=("a3cs", "random")[index % 2]
        )
    change(root / "run3", "run.json", name=ATTACK)
    return write_page(*Reader().rows([root], 2e9), root / "page.html", 2e9)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profile")
    with Browser(folder) as opened:
        yield opened
    shutil.rmtree(folder, ignore_errors=True)


def names(browser):
    return browser.evaluate(VISIBLE)


def press(browser, key, code):
    for kind in ("keyDown", "keyUp"):
        browser.call(
            "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, text="\r" if key == "Enter" else ""
        )


def test_it_is_quiet_closed_readable_and_runs_nothing_of_a_run_folder(browser, page):
    for width, scheme in ((360, "light"), (1280, "dark")):
        browser.open(page.as_uri(), width, scheme=scheme)
        assert browser.console == [] and browser.requests == [page.as_uri()]
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.evaluate(CONTRAST) >= 4.5
    assert browser.evaluate("document.scripts.length") == 2 and browser.evaluate("document.images.length") == 0
    assert names(browser)[3] == ATTACK


def test_it_sorts_and_filters_and_its_front_is_the_front(browser, page):
    browser.open(page.as_uri(), 1280)
    head = "[...document.querySelectorAll('thead button')].find(e => e.textContent === 'score')"
    browser.evaluate(f"{head}.click()")
    labels = [ATTACK if index == 3 else f"run{index}" for index in range(len(POINTS))]
    by_score = sorted(range(len(POINTS)), key=lambda index: (-POINTS[index][1], index))
    assert names(browser) == [labels[index] for index in by_score]
    assert browser.evaluate(f"{head}.parentElement.getAttribute('aria-sort')") == "descending"
    front = pareto_front([latency for latency, _ in POINTS], [score for _, score in POINTS])
    marks = browser.evaluate("[...document.querySelectorAll('.mark.best')].map(e => e.getAttribute('aria-label'))")
    assert [mark.split(":")[0] for mark in marks] == [labels[index] for index in front] == ["run0", "run2", "run1", "run4"]
    browser.evaluate(
        "(e => { e.checked = true; e.dispatchEvent(new Event('input', {bubbles: true})); })(document.querySelector('#front'))"
    )
    assert names(browser) == [labels[index] for index in by_score if index in front]
    browser.evaluate(
        "(e => { e.value = '5'; e.dispatchEvent(new Event('input', {bubbles: true})); })(document.querySelector('#lowest'))"
    )
    assert names(browser) == ["run4", "run1", "run2"]
    address = browser.evaluate("location.href")  # holds the view: the page that is read again has it
    browser.open("about:blank", 1280)
    browser.open(address, 1280)
    assert names(browser) == ["run4", "run1", "run2"]


def test_an_agent_is_picked_with_keys_alone(browser, page):
    browser.open(page.as_uri(), 1280)
    for _ in range(60):
        press(browser, "Tab", 9)
        label = browser.evaluate("document.activeElement.getAttribute('aria-label') || ''")
        if label.startswith("run1:"):
            break
    press(browser, "Enter", 13)
    shown = browser.evaluate("document.querySelector('#picked').innerText")
    run = page.parent / "run1"
    architecture = json.loads((run / "architecture.json").read_text())["choice_names"]
    for text in (str(run), ", ".join(architecture), f"python -m cosearch deploy {run} --host me@board", "score\n9 [13.1, 15.3]"):
        assert text in shown
    assert browser.evaluate("document.activeElement.id") == "picked"
    assert browser.evaluate("document.querySelector('tr.on').cells[0].textContent.trim()") == "run1"
    assert browser.evaluate("document.querySelectorAll('#curves .line.on').length") == 1
    assert browser.evaluate("document.querySelectorAll('#curves circle').length") == 6  # its evaluations
    assert browser.console == []
