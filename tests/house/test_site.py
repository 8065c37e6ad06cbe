"""The documentation site: built by its one command without a warning, drawn from the code, and opened in a browser."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from report_browser import Browser, find_browser
from test_layers import FLOORS, floor, module_name

import cosearch

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).with_suffix(".html").as_posix() for path in DOCS.rglob("*.md"))
OUTSIDE = "document.documentElement.scrollWidth"

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="needs the extra docs: pip install '.[docs]'"),
    pytest.mark.timeout(600),
    pytest.mark.slow,  # half a minute to build it; .ci/run asks for these tests by name
]


def build(source, out):
    """The command of the README, into another folder."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(source), str(out)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site."""
    out = tmp_path_factory.mktemp("site")
    done = build(DOCS, out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser, ended and its profile removed afterwards."""
    if find_browser() is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    folder = tmp_path_factory.mktemp("profile")
    with Browser(folder) as opened:
        yield opened
    shutil.rmtree(folder, ignore_errors=True)


def test_the_command_is_the_readmes():
    assert "python -m sphinx -W docs build/site" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_page_is_there_and_asks_nothing_of_another_host(site):
    assert len(PAGES) > 20
    for page in PAGES:
        text = (site / page).read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe|source|video)\b[^>]*\bsrc="([^"]+)"', text)
        loaded += re.findall(r'<link\b[^>]*\brel="(?:stylesheet|preload|icon|preconnect)"[^>]*\bhref="([^"]+)"', text)
        assert loaded and not [address for address in loaded if re.match(r"(?:\w+:)?//", address)], page
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:\w+:)?//", style.read_text(encoding="utf-8")), style


def test_the_reference_shows_every_public_name_with_its_words(site):
    page = (site / "api" / "cosearch.html").read_text(encoding="utf-8")
    for name in cosearch.__all__:
        assert re.search(rf'id="cosearch\.(?:[\w.]+\.)?{name}"', page), name
    assert "upper bound, seconds" in page and "RunFailedError" in page
    for name in ("strategies", "latency_tables", "accel_models", "extension"):
        assert (site / "api" / f"{name}.html").read_text(encoding="utf-8").count('<dt class="sig') > 10


def test_the_results_are_the_saved_ones(site):
    page = (site / "results.html").read_text(encoding="utf-8")
    assert "made:" not in page
    saved = json.loads((ROOT / "cosearch" / "benchmarks" / "searches" / "default_run.json").read_text(encoding="utf-8"))
    for part in saved["strategies"].values():
        assert f"<strong>{part['mean']:.2f}</strong>" in page
        assert all(f"{row['score_mean']:.2f}" in page and f"{row['wall_s'] / 60:.1f}" in page for row in part["seeds"])
    speed = json.loads((ROOT / "cosearch" / "benchmarks" / "speed" / "throughput.json").read_text(encoding="utf-8"))
    assert all(f"<td><p>{w['steps_per_s']['cosearch']:,.0f}</p></td>" in page for w in speed["workloads"])


def test_the_floors_are_those_of_the_code(site):
    page = (site / "architecture.html").read_text(encoding="utf-8")
    rows = re.findall(
        r"<tr[^>]*><td><p>(\d+)</p></td>\s*<td><p><code[^>]*><span class=\"pre\">([\w.]+)</span>.*?<td><p>(\d+)</p></td>",
        page,
        re.DOTALL,
    )
    assert {room: int(level) for level, room, _ in rows} == FLOORS
    assert [int(level) for level, _, _ in rows] == sorted((int(level) for level, _, _ in rows), reverse=True)
    counts = {room: int(count) for _, room, count in rows}
    for room in ("cosearch.rl", "cosearch.space", "latency_tables", "accel_models"):
        files = [path for path in ROOT.joinpath(*room.split(".")).rglob("*.py") if floor(module_name(path)) == FLOORS[room]]
        assert counts[room] == len(files)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_open_silently_and_fit(site, browser, scheme):
    for page, width in (("index.html", 1280), ("index.html", 390), ("api/cosearch.html", 1280), ("results.html", 390)):
        address = (site / page).as_uri()
        browser.open(address, width, scheme=scheme)
        assert browser.console == [] and browser.evaluate(OUTSIDE) <= width, (page, width, browser.console)
        assert [asked for asked in browser.requests if not asked.startswith(("file://", "data:"))] == []
    assert browser.evaluate("document.querySelectorAll('table').length") >= 5


def test_the_search_finds_a_name(site, browser):
    browser.open((site / "search.html").as_uri() + "?q=load_agent", 1000)
    for _ in range(100):
        if found := browser.evaluate("document.querySelectorAll('#search-results li').length"):
            break
        browser.evaluate("new Promise(done => setTimeout(done, 100))")
    assert found > 0 and browser.console == []


def test_a_fault_of_a_page_stops_the_build(tmp_path):
    (tmp_path / "conf.py").write_text(
        (DOCS / "conf.py").read_text(encoding="utf-8").replace("Path(__file__).parent)", f"{str(DOCS)!r})")
    )
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "wide_tables.css").touch()
    (tmp_path / "index.md").write_text("# Home\n\n[nowhere](no-such-page.md)\n")
    done = build(tmp_path, tmp_path / "out")
    assert done.returncode != 0 and "no-such-page.md" in done.stderr
