"""The page in a real browser: silent console, no request, no sideways scrolling, readable in light and dark."""

from __future__ import annotations

import shutil

import pytest
from report_browser import Browser, find_browser
from report_fake_run import make_run

from cosearch.report.page import write_report

pytestmark = pytest.mark.skipif(find_browser() is None, reason="needs Chromium (Debian: apt-get install chromium)")
# Contrast ratio of text against the page (Web Content Accessibility Guidelines 2.1, 1.4.3: 4.5 for text of this size).
CONTRAST = """(() => {
  const channel = x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
  const light = c => { const v = c.match(/[\\d.]+/g).slice(0, 3).map(x => channel(x / 255));
    return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
  const page = light(getComputedStyle(document.body).backgroundColor);
  const names = 'svg.plot text, h1, h2, h3, p, td, th, .label, .detail, .figure, .word, figcaption, .cost';
  return [...document.querySelectorAll(names)].map(e => {
    const own = light(e instanceof SVGElement ? getComputedStyle(e).fill : getComputedStyle(e).color);
    return [(Math.max(own, page) + .05) / (Math.min(own, page) + .05), e.textContent.trim().slice(0, 40)];
  }).sort((a, b) => a[0] - b[0])[0];
})()"""
OUTSIDE = """[...document.querySelectorAll('main *')]
  .filter(e => !(e instanceof SVGElement) && e.getBoundingClientRect().width > 0
    && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(e => e.tagName + '.' + e.className).slice(0, 5)"""
CUT_TEXT = """[...document.querySelectorAll('figure svg.plot')].flatMap(s => { const box = s.getBoundingClientRect();
  return [...s.querySelectorAll('text')].filter(t => { const b = t.getBoundingClientRect();
    return b.right > box.right + 4 || b.left < box.left - 4 || b.bottom > box.bottom + 4; }).map(t => t.textContent); })"""
BAD_PAGE = """<!DOCTYPE html><html><head><link rel="icon" href="data:,"></head><body><main><p style="width: 2000px">wide</p>
<svg class="plot"></svg><p style="color: #eee">pale</p><img src="missing.png">
<script>console.error('oh'); undefined_name()</script></main></body></html>"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profile")
    with Browser(folder) as opened:
        yield opened
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    finished, unfinished = make_run(root / "finished"), make_run(root / "unfinished")
    for name in ("summary.json", "agent.json", "architecture.json", "clip.gif"):
        (unfinished / name).unlink()
    return {path.name: write_report(path).as_uri() for path in (finished, unfinished)}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 700, 1280])
@pytest.mark.parametrize("name", ["finished", "unfinished"])
def test_the_page_is_quiet_closed_and_fits(browser, addresses, name, width, scheme):
    browser.open(addresses[name], width, scheme=scheme)
    assert browser.console == []
    assert [address for address in browser.requests if not address.startswith("data:")] == [addresses[name]]
    assert browser.evaluate("document.documentElement.scrollWidth") <= width and browser.evaluate(OUTSIDE) == []
    assert browser.evaluate("document.querySelectorAll('svg.plot').length") >= 5
    contrast, text = browser.evaluate(CONTRAST)
    assert contrast >= 4.5, f"{text!r} has contrast {contrast:.2f} in the {scheme} scheme"
    assert (
        browser.evaluate("getComputedStyle(document.body).backgroundColor")
        == {"light": "rgb(247, 246, 243)", "dark": "rgb(19, 21, 24)"}[scheme]
    )


def test_the_clip_plays_from_the_page_itself(browser, addresses):
    browser.open(addresses["finished"], 800)
    assert browser.evaluate("document.querySelector('img.clip').naturalWidth") == 64


def test_every_text_of_a_drawing_lies_inside_it_or_its_margin(browser, addresses):
    browser.open(addresses["finished"], 1280)
    assert browser.evaluate(CUT_TEXT) == []


def test_this_browser_notices_requests_messages_and_overflow(browser, tmp_path):
    """The checks above can fail: a page with all the faults is found out."""
    bad = tmp_path / "bad.html"
    bad.write_text(BAD_PAGE, encoding="utf-8")
    browser.open(bad.as_uri(), 360)
    assert any(address.endswith("missing.png") for address in browser.requests)
    assert any("oh" in message for message in browser.console) and any("exception" in message for message in browser.console)
    assert browser.evaluate("document.documentElement.scrollWidth") > 360 and browser.evaluate(OUTSIDE) != []
    assert browser.evaluate(CONTRAST)[0] < 1.3
