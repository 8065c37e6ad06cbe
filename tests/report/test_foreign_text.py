"""Names from files reach the terminal, the page and the plot as plain text, whatever they hold."""

import json
import re
import sys
import warnings

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from made_comparison import made
from report_fake_run import make_run
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from small_table import make_file

from accel_models.cli import main as accel_main
from cosearch.cli.app import main
from cosearch.compare.data import comparison
from cosearch.compare.page import terminal_tables, write_comparison
from cosearch.report.data import read_run
from cosearch.report.page import render_page
from cosearch.report.terminal import render_summary
from latency_tables.commands import main as tables_main
from latency_tables.errors import plain
from latency_tables.schema import write_table
from latency_tables.text.terminal import say, show

HOSTILE = "\x1b]0;owned\x07 \x1b[31m[/] [bold]x[/bold] :smile: $\\frac{$ <script>alert(1)</script> \u202e \x9b2J \x00 \u2028"
STEERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")


def check_shown(text):
    assert not STEERS.search(text), STEERS.search(text)
    assert ":smile:" in text or "smile" not in text  # no words become pictures


@given(st.text())
@example(HOSTILE)
def test_plain_text_steers_nothing_and_keeps_every_other_letter(text):
    found = plain(text)
    assert not STEERS.search(found) and len(found) == len(text)
    assert all(a == b or b == "\ufffd" for a, b in zip(text, found)) and plain(found) == found
    if text.isprintable():
        assert found == text


@given(st.text(min_size=1, max_size=60))
@example(HOSTILE)
@example("[/]")
@example("[link=http://a.b]c")
@example(escape("[red]"))
@settings(deadline=None, max_examples=40)
def test_tables_and_panels_show_words_as_words(text):
    from contextlib import redirect_stdout
    from io import StringIO

    table = Table(text, title=text, caption=text)
    table.add_row(text)
    with redirect_stdout(StringIO()) as out:
        show(Panel(table), width=400)
        say(text)
        show(text, width=400)
    assert not STEERS.search(out.getvalue())


@pytest.mark.parametrize("argv", [["show", "T"], ["diff", "T", "T"], ["check", "T"], ["show", "T", "--png", "P"]], ids=" ".join)
def test_a_table_of_a_hostile_device_is_shown_as_text(argv, tmp_path, monkeypatch, capsys):
    file = make_file()
    device = {**file.header["device"], "name": f"toy {HOSTILE}", "description": HOSTILE}
    path = tmp_path / "t.jsonl"
    write_table(path, file.__class__({**file.header, "device": device}, file.rows, file.certificate))
    places = {"T": str(path), "P": str(tmp_path / "p.png")}
    monkeypatch.setattr(sys, "argv", ["latency_tables", *(places.get(word, word) for word in argv)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SystemExit) as caught:
            tables_main()
    assert not caught.value.code
    said = capsys.readouterr()
    check_shown(said.out + said.err)
    assert argv[1:2] != ["T"] or "--png" in argv or "check" in argv or "[bold]" in said.out.replace("\n", "")


def test_a_prediction_and_a_refusal_say_hostile_names_as_text(tmp_path, capsys):
    file = make_file()
    path = tmp_path / "t.jsonl"
    device = {**file.header["device"], "name": HOSTILE}
    write_table(path, file.__class__({**file.header, "device": device}, file.rows, file.certificate))
    assert main(["predict", "--table", str(path), "no-such-file.json"]) == 2
    assert main(["search", "--dry-run", f"env.name={HOSTILE}"]) == 2
    assert main(["search", "--dry-run", f"--device={HOSTILE}"]) == 2
    assert main([HOSTILE]) == 2
    check_shown(capsys.readouterr().err)


def test_a_hostile_design_and_its_layers_are_shown_as_text(tmp_path, monkeypatch, capsys):
    from accel_models.design import DESIGNS

    design = json.loads((DESIGNS / "edge-npu.json").read_text())
    design["name"] = design["platform"]["name"] = design["platform"]["description"] = HOSTILE
    layer = {"name": HOSTILE, "kind": "conv", "K": 8, "C": 8, "P": 4, "Q": 4, "R": 3, "S": 3, "stride": 1}
    (tmp_path / "d.json").write_text(json.dumps(design))
    (tmp_path / "n.json").write_text(json.dumps([layer]))
    monkeypatch.setattr(sys, "argv", ["accel_models", "evaluate", str(tmp_path / "d.json"), str(tmp_path / "n.json")])
    with pytest.raises(SystemExit) as caught:
        sys.exit(accel_main())
    assert not caught.value.code
    said = capsys.readouterr()
    check_shown(said.out + said.err)
    assert "[bold]" in said.out


def poisoned(value, fields):
    """The JSON value with hostile text wherever one of the fields holds text."""
    if isinstance(value, dict):
        return {
            key: f"{inner} {HOSTILE}" if key in fields and isinstance(inner, str) else poisoned(inner, fields)
            for key, inner in value.items()
        }
    return [poisoned(inner, fields) for inner in value] if isinstance(value, list) else value


FIELDS = {"name", "command", "description", "network", "latency_measured_on", "latency_predicted_for", "predicted_for", "path"}


def test_a_report_of_hostile_names_is_text_on_the_page_and_in_the_terminal(tmp_path, capsys):
    folder = make_run(tmp_path / "run")
    for file in ("run.json", "summary.json", "agent.json"):
        content = json.loads((folder / file).read_text())
        if file == "run.json":
            content["references"] = {f"{HOSTILE}{name}": value for name, value in content["references"].items()}
        (folder / file).write_text(json.dumps(poisoned(content, FIELDS)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = render_page(read_run(folder))
    assert "<script>alert" not in page and "onerror" not in page
    assert not STEERS.search(page), STEERS.search(page)
    assert "[bold]x[/bold]" in page and "$\\frac{$" in page
    show(render_summary(folder), width=300)
    check_shown(capsys.readouterr().out)


def test_a_comparison_of_hostile_labels_is_text(tmp_path, capsys):
    folder = tmp_path / "made"
    made(folder, {"random": [1.0, 2.0], "a3cs": [2.0, 3.0]})
    for path in folder.rglob("*.json"):
        path.write_text(path.read_text().replace("minatar:breakout", json.dumps(f"minatar:{HOSTILE}")[1:-1]))
    result = comparison(folder)
    for table in terminal_tables(result):
        show(table, width=300)
    check_shown(capsys.readouterr().out)
    _, files = write_comparison(folder)
    page = next(file for file in files if file.name.endswith(".html")).read_text()
    assert "<script>alert" not in page and not STEERS.search(page)
