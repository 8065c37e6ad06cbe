"""The page itself: complete, closed, escaped, and equal to the files of the run."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import old_run
import pytest
from report_fake_run import change, make_run, operations

from cosearch.record.json_record import to_json
from cosearch.report.page import write_report
from latency_tables.errors import RunFolderError

VOID = {"meta", "img", "br", "link", "input", "hr"}
SECTIONS = [
    "How sure is this?",
    "Learning",
    "Architecture",
    "What it is worth",
    "Where the time goes",
    "The agent playing",
    "Where it comes from",
]


class Page(HTMLParser):
    """Tags, attributes and text of a page; notes tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack, self.faults, self.tags, self.links, self.words = [], [], [], [], []
        self.feed(text)
        self.faults += self.stack

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [
            (name, value) for name, value in attributes if name in ("src", "href", "srcset", "data", "action", "poster")
        ]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        if not self.stack or self.stack.pop() != tag:
            self.faults.append(f"</{tag}>")

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())


@pytest.fixture
def path(tmp_path):
    return make_run(tmp_path / "run")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder, text and parsed page of the run as it is."""
    folder = make_run(tmp_path_factory.mktemp("finished") / "run")
    return folder, *page(folder)


@pytest.fixture
def light(path):
    """The same run without its log: its page is drawn in a moment."""
    (path / "metrics.jsonl").write_text("", encoding="utf-8")
    return path


def page(path):
    text = write_report(path).read_text(encoding="utf-8")
    return text, Page(text)


def test_the_page_is_well_formed_and_in_order(finished):
    _, text, parsed = finished
    assert text.startswith("<!DOCTYPE html>") and parsed.faults == []
    positions = [parsed.text.index(f" {title} ") for title in SECTIONS]
    assert positions == sorted(positions)


def test_the_page_reaches_for_nothing(finished):
    _, text, parsed = finished
    assert not {"script", "link", "iframe", "object", "embed", "base", "form", "a"} & set(parsed.tags)
    assert all(value.startswith(("#", "data:image/gif;base64,")) for _, value in parsed.links), parsed.links
    assert re.findall(r"url\((?!#)", text) == [] and "@import" not in text and not re.search(r"(https?:)?//\w", text)
    assert "default-src 'none'" in text


def test_figures_equal_the_files(finished):
    path, _, parsed = finished
    summary = json.loads((path / "summary.json").read_text())
    for figure in (
        "14.2",
        "94 %",
        "13.1 to 15.3",
        "400 episodes",
        f"{summary['latency_predicted_s'] * 1e3:.2f} ms",
        "1.21 ms",
        "4.00 ms",
        f"{summary['params'] / 1e6:.2f} M",
        f"{summary['macs'] / 1e6:.1f} M",
        "10 min 12 s",
        "1.00 M",
        "1.72 ms",
        "20.0 ms",
    ):
        assert figure in parsed.text, figure
    for operation in operations():
        assert operation.key in parsed.text and f"{operation.latency_s * 1e6:.0f} µs" in parsed.text
    for word in (
        "python -m cosearch --device jetson --target-ms 4",
        "9f31c2",
        "starpilot-impala",
        "strategy.name",
        "a3cs",
        "1.31.1",
    ):
        assert word in parsed.text, word
    assert "Fixed cost of an inference what the prediction holds beyond its operations 250 µs" in parsed.text


def test_the_clip_is_embedded_whole(light):
    path = light
    text, _ = page(path)
    data = re.search(r'src="data:image/gif;base64,([^"]+)"', text).group(1)
    assert base64.b64decode(data) == (path / "clip.gif").read_bytes()
    (path / "clip.gif").unlink()
    text, parsed = page(path)
    assert "<img" not in text and "The agent playing" not in parsed.text


@pytest.mark.parametrize(
    "gone",
    [
        ["summary.json"],
        ["summary.json", "agent.json", "architecture.json", "clip.gif"],
        ["summary.json", "agent.json", "architecture.json", "metrics.jsonl", "clip.gif"],
    ],
)
def test_an_unfinished_run_has_a_page_that_says_what_is_missing(path, gone):
    for name in gone:
        (path / name).unlink()
    _, parsed = page(path)
    assert parsed.faults == [] and "This run is not finished. Still missing:" in parsed.text and "not measured" in parsed.text
    for name in gone:
        assert name == "clip.gif" or f"{name} is not there yet" in parsed.text


def test_nulls_are_words_and_energy_has_its_column_when_known(light):
    path = light
    _, parsed = page(path)
    assert "energy" not in parsed.text.split("Where the time goes")[1].split("Predicted against measured")[0]
    costs = [to_json(op) | {"energy_j": 3e-4 if index else None} for index, op in enumerate(operations())]
    change(path, "architecture.json", predicted__operations=costs)
    table = page(path)[1].text.split("Where the time goes")[1].split("Predicted against measured")[0]
    assert "energy" in table and "300 µJ" in table and "not measured" in table


def test_paced_latency_absent_is_said(light):
    path = light
    assert "missed deadlines 0" in page(path)[1].text
    change(path, "agent.json", latency__paced=None)
    assert "as a controller would not measured" in page(path)[1].text


def test_what_a_run_says_is_text_and_never_markup(path):
    hostile = '<script>alert(1)</script><img src="//x.example/y.png" onerror=z> $\\alpha_{$ &amp;'
    change(
        path,
        "run.json",
        name=hostile,
        command=hostile,
        versions={hostile: hostile},
        config={"env": {"name": hostile}},
        device__name=hostile,
        created_utc=hostile,
    )
    change(path, "summary.json", latency_predicted_for=hostile)
    change(path, "agent.json", latency__predicted_for=hostile)
    names = [hostile + str(i) for i in range(9)]
    change(path, "architecture.json", candidate_names=[names] * 9, choice_names=names, derived_by={"method": hostile})
    agents = json.loads((path / "summary.json").read_text())["reference_agents"]
    change(path, "summary.json", table_provenance=hostile, reference_agents=[agents[0] | {"name": hostile}])
    _, parsed = page(path)
    assert "script" not in parsed.tags and parsed.tags.count("img") == 1 and parsed.faults == []
    assert hostile in parsed.text


def test_unknown_keys_are_left_out_and_other_types_are_refused_by_file_and_key(light):
    path = light
    for name in ("run.json", "summary.json", "agent.json", "architecture.json"):
        change(path, name, something_new={"nested": [1, {"x": None}]}, another=None)
    _, parsed = page(path)
    assert parsed.faults == [] and "something_new" not in parsed.text
    for name, key, value in (
        ("run.json", "device", None),
        ("run.json", "config", "text"),
        ("agent.json", "parity", [1]),
        ("architecture.json", "choices", [1, "x", None]),
        ("summary.json", "score_ci95", [None, 2]),
        ("summary.json", "params", "many"),
    ):
        kept = (path / name).read_text(encoding="utf-8")
        change(path, name, **{key: value})
        with pytest.raises(RunFolderError, match=rf"{name}: {key}"):
            write_report(path)
        (path / name).write_text(kept, encoding="utf-8")


def test_the_page_of_a_run_of_version_0_1_0(tmp_path):
    _, parsed = page(old_run.copy_to(tmp_path / "run"))
    assert parsed.faults == [] and "This run is not finished" not in parsed.text
    for words in (
        "The agent reaches 93 % of its teacher's score",
        "407 µs",
        "95 %: 10.6 to 13.1; 256 episodes",
        "procgen:starpilot · jetson",
        "impala-cnn",
        "stage2.cell1: conv_k3",
        "24537d73c4f1",
    ):
        assert words in parsed.text, words


def test_a_report_replaces_the_older_one_and_leaves_nothing_else(light):
    path = light
    before = {item.name for item in path.iterdir()}
    first = page(path)[0]
    change(path, "summary.json", score_mean=1.51)
    second = page(path)[0]
    assert "10 % of its teacher" in second.replace("\u00a0", " ") and first != second
    assert {item.name for item in path.iterdir()} == before | {"report.html"}


def test_the_same_folder_gives_the_same_page(finished):
    path, text, _ = finished
    assert write_report(path) == path / "report.html"
    assert (path / "report.html").read_text(encoding="utf-8") == text
