"""The page of many runs as a file: closed, whole, with every run in its table, and nothing of a run folder taken for markup."""

import hashlib
import html.parser
import json
import re
import shutil
from base64 import b64encode

import pytest
from report_fake_run import change, make_run

from cosearch.cli.app import main
from cosearch.config.run import config_to_dict, resolve
from cosearch.overview.page import COLUMNS, follow, render_page
from cosearch.overview.rows import Reader
from cosearch.report.format import score_text, time_text

ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


class Page(html.parser.HTMLParser):
    """Elements with their attributes, cells of the table, and texts of the scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.rows, self.scripts, self._in_script = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "script":
            self._in_script = True
            self.scripts.append("")

    def handle_endtag(self, tag):
        if tag == "script":
            self._in_script = False

    def handle_data(self, text):
        if self._in_script:
            self.scripts[-1] += text
        elif self.rows and self.rows[-1]:
            self.rows[-1][-1] += text.strip()


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "runs" / "one")


def rendered(folder, now_s=2e9):
    return render_page(*Reader().rows([folder], now_s), folder, now_s)


def test_every_run_is_in_the_table_with_its_figures(run):
    change(shutil.copytree(run, run.parent / "two"), "summary.json", score_mean=3.25)
    page = Page(rendered(run.parent))
    head, *rows = page.rows
    assert head == [title for title, _ in COLUMNS] and len(rows) == 2
    first = dict(zip(head, rows[0], strict=True))
    predicted_s = json.loads((run / "architecture.json").read_text())["predicted"]["latency_s"]
    assert (first["run"], first["score"], first["95 % interval"]) == ("starpilot-jetson", "14.2", "13.1 to 15.3")
    assert first["latency, predicted"] == f"{time_text(predicted_s)} estimated" and first["measured"] == "1.21 ms on this machine"
    assert (first["target met"], first["energy"], first["state"]) == ("yes", "", "finished")
    assert rows[1][head.index("score")] == score_text(3.25)
    content = json.loads(page.scripts[0])
    assert [one["score"] for one in content["rows"]] == [14.2, 3.25]
    assert content["rows"][0]["measured"] is None and content["rows"][0]["timed"] == "1.21 ms on this machine"
    assert content["rows"][0]["deploy"] == f"python -m cosearch deploy {run} --host me@board"


def test_a_latency_is_the_devices_own_where_it_was_timed_there(run):
    change(run, "summary.json", latency_measured_on="my-board", target_checked_by="measurement on my-board")
    change(run, "agent.json", latency__measured__device="my-board")
    page = Page(rendered(run.parent))
    assert page.rows[1][page.rows[0].index("measured")] == "1.21 ms"
    assert json.loads(page.scripts[0])["rows"][0]["measured"] == 1.21e-3


@pytest.mark.parametrize("name", ["my-board", "jetson"])
def test_a_latency_of_an_emulated_device_says_so_whatever_its_name(run, name):
    change(run, "summary.json", latency_measured_on=f"{name}, synthetic", target_checked_by=f"measurement on {name}, synthetic")
    change(run, "agent.json", latency__measured__device=name)
    page = Page(rendered(run.parent))
    assert page.rows[1][page.rows[0].index("measured")] == f"1.21 ms on {name}, emulated"
    row = json.loads(page.scripts[0])["rows"][0]
    assert (row["measured"], row["timed"]) == (None, f"1.21 ms on {name}, emulated")


def test_the_page_loads_nothing_and_lets_one_script_run(run):
    text = rendered(run.parent)
    page = Page(text)
    assert not [
        (tag, key)
        for tag, attributes in page.elements
        for key in ("src", "href", "action")
        if "//" in (attributes.get(key) or "")
    ]
    assert re.findall(r"@import|url\(|https?://(?!www\.w3\.org/)", text) == []
    digest = b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    policy = next(attributes["content"] for _, attributes in page.elements if attributes.get("http-equiv"))
    assert policy.startswith("default-src 'none'; ") and f"script-src 'sha256-{digest}';" in policy


def test_what_a_run_folder_holds_is_never_markup(run):
    change(run, "run.json", name=ATTACK)
    change(run, "summary.json", strategy=ATTACK)
    bad = shutil.copytree(run, run.parent / "bad")
    change(bad, "summary.json", score_mean=ATTACK)
    page = Page(rendered(run.parent))
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 2 and "img" not in tags
    assert not set("<>&") & set(page.scripts[0])  # nothing in it could end the element, or begin a comment
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    names = [json.loads(page.scripts[0])["rows"][index]["name"] for index in (0, 1)]
    assert names == ["bad", ATTACK] and page.rows[2][0] == ATTACK
    assert "score_mean must be a finite number" in json.loads(page.scripts[0])["rows"][0]["reason"]


def test_it_is_written_again_until_no_run_goes_on(run, tmp_path):
    half = shutil.copytree(run, run.parent / "half")
    summary = half / "summary.json"
    kept = summary.read_bytes()
    summary.unlink()  # and its files are fresh: it counts as running
    out, seen, waits = tmp_path / "page.html", [], []

    def wait(seconds):
        waits.append(seconds)
        assert Page(out.read_text()).rows[1][5].startswith("running: retrain")
        if len(waits) == 2:
            summary.write_bytes(kept)

    rows, _ = follow([run.parent], out, 7.0, tell=lambda rows: seen.append([row.state for row in rows]), wait=wait)
    assert waits == [7.0, 7.0] and seen == [["running", "finished"]] * 2 + [["finished", "finished"]]
    assert [row.state for row in rows] == seen[-1] and Page(out.read_text()).rows[1][5] == "finished"


def test_of_the_folder_above_a_comparison_it_ends_with_a_run_that_failed_before_it_began(run, tmp_path):
    comparison = run.parent / "methods"
    comparison.mkdir()
    planned = [{"name": "s0", "env": "a", "strategy": "a3cs", "seed": 0, "config": config_to_dict(resolve())}]
    (comparison / "compare.json").write_text(json.dumps({"format": 1, "runs": planned}))
    (comparison / "failures.json").write_text(json.dumps({"format": 1, "failed": {"s0": "lost three times"}}))
    rows, _ = follow(
        [run.parent], tmp_path / "page.html", 7.0, wait=lambda seconds: pytest.fail("it waits for a run that failed")
    )
    assert [(row.folder.name, row.state, row.reason) for row in rows] == [
        ("s0", "failed", "lost three times"),
        ("one", "finished", ""),
    ]


def test_the_verb_writes_the_page_and_names_what_it_passed_over(run, tmp_path, capsys):
    bad = shutil.copytree(run, run.parent / "bad")
    (bad / "summary.json").write_text("{")
    out = tmp_path / "there" / "all.html"
    assert main(["dashboard", str(run.parent), "--out", str(out), "--json"]) == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert (result["page"], result["runs"], result["states"]) == (str(out), 2, {"unreadable": 1, "finished": 1})
    assert [one["folder"] for one in result["passed"]] == [str(bad)] and f"passed over {bad}: {bad}/summary.json" in said.err
    assert out.read_text().startswith("<!DOCTYPE html>")
    assert main(["dashboard", str(tmp_path / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err
