"""Agents searched for one device on another: what the table counts, and what is priced by which table."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from cosearch.benchmarks.searches import crossed as module
from cosearch.benchmarks.searches.crossed import Crossed, crossed, markdown
from cosearch.planning.builtins import load_builtins
from cosearch.record.rundir import RunDir

FINISHED = Path(__file__).parents[1] / "assets" / "run_0_1_0"
load_builtins()

app = module.typer.Typer()
app.command()(module.main)


def row(device, seed, a, b, score, measured=()):
    return Crossed(
        run=f"{device}/s{seed}",
        game="g",
        seed=seed,
        device=device,
        target_s={"a": 1.0, "b": 2.0}[device],
        score=score,
        predicted_s={"a": a, "b": b},
        measured_s=dict(zip("ab", measured)),
    )


def test_an_agent_is_held_to_the_target_of_the_device_that_it_is_on():
    rows = [row("a", 0, 0.9, 3.0, 5.0), row("a", 1, 1.0, 1.0, 7.0), row("b", 0, 1.5, 2.0, 4.0, measured=(1.2, 2.2))]
    lines = markdown(rows).splitlines()[2:]
    cells = {tuple(cell.strip() for cell in line.split("|")[2:4]): [c.strip() for c in line.split("|")[4:-1]] for line in lines}
    assert cells[("a", "a")][:2] == ["2", "0 of 2"] and cells[("a", "b")][:2] == ["2", "1 of 2"]
    assert cells[("b", "a")] == ["1", "1 of 1", "1 of 1", "1.20, no interval (1 seed)", "4.00, no interval (1 seed)"]
    assert cells[("b", "b")] == ["1", "0 of 1", "1 of 1", "1.10, no interval (1 seed)", "4.00, no interval (1 seed)"]
    # mean 6, standard deviation sqrt(2), Student's t of one degree of freedom 12.706
    assert cells[("a", "a")][-1] == "6.00 [-6.71, 18.71]"


def cells_of(rows):
    lines = [[cell.strip() for cell in line.split("|")[2:-1]] for line in markdown(rows).splitlines()[2:]]
    return {(searched_for, on): rest for searched_for, on, *rest in lines}


def test_a_device_with_two_targets_stands_once_for_each():
    rows = [row("a", 0, 0.9, 3.0, 5.0), replace(row("a", 1, 0.3, 1.0, 7.0), target_s=0.4), row("b", 0, 1.5, 2.0, 4.0)]
    cells = cells_of(rows)
    loose, tight = "a within 1000 ms", "a within 400 ms"
    assert {key: own[1] for key, own in cells.items()} == {
        (loose, loose): "0 of 1",
        (tight, loose): "0 of 1",
        ("b", loose): "1 of 1",
        (loose, tight): "1 of 1",
        (tight, tight): "0 of 1",
        ("b", tight): "1 of 1",
        (loose, "b"): "1 of 1",
        (tight, "b"): "0 of 1",
        ("b", "b"): "0 of 1",
    }


def test_a_third_device_is_added_to_results_of_two(tmp_path, monkeypatch):
    """Rows that are not priced on it yet stand in the lines of the devices that they know."""
    monkeypatch.setattr(module, "table_of", lambda run: run.path.name)
    monkeypatch.setattr(module.RunDir, "open", lambda path: SimpleNamespace(path=path))
    priced = []

    def crossed(run, on, *, measure):
        priced.append(run.path.name)
        target_s, name = {"a": 1.0, "b": 2.0, "c": 3.0}, run.path.name
        return Crossed(f"{run.path.parent.name}/{name}", "g", 0, name, target_s[name], 1.0, dict.fromkeys(on, 1.5), {})

    monkeypatch.setattr(module, "crossed", crossed)
    monkeypatch.setattr(module, "PAGE", tmp_path / "no page")
    runs, out = {name: str(tmp_path / name) for name in "abc"}, ["--out", str(tmp_path / "out.json")]
    assert CliRunner().invoke(app, [runs["a"], runs["b"], *out]).exit_code == 0
    done = CliRunner().invoke(app, [runs["a"], runs["c"], *out])
    assert done.exit_code == 0, repr(done.exception)
    kept = [Crossed(**each) for each in json.loads((tmp_path / "out.json").read_text())["rows"]]
    assert priced == ["a", "b", "a", "c"] and [sorted(each.predicted_s) for each in kept] == [["a", "c"], ["a", "b"], ["a", "c"]]
    assert set(cells_of(kept)) == {(one, "a") for one in "abc"} | {("b", "b")} | {(one, "c") for one in "ac"}


def test_runs_of_one_device_alone_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "table_of", lambda run: "jetson")
    monkeypatch.setattr(module.RunDir, "open", lambda path: path)
    done = CliRunner().invoke(app, [str(tmp_path), str(tmp_path)])
    assert done.exit_code == 2 and "two or more devices" in done.output


def test_a_run_is_priced_by_each_devices_table():
    found, summary = (
        crossed(RunDir.open(FINISHED), ["jetson", "raspberry-pi-4"], measure=False),
        json.loads((FINISHED / "summary.json").read_text()),
    )
    assert found.predicted_s["jetson"] == pytest.approx(summary["latency_predicted_s"])  # written by the first release
    assert found.predicted_s["raspberry-pi-4"] > 2 * found.predicted_s["jetson"] and not found.measured_s
    assert (found.device, found.seed, found.score) == ("jetson", summary["seed"], summary["score_mean"])
