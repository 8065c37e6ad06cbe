"""Agents searched for one device on another: what the table counts, and what is priced by which table."""

import json
from pathlib import Path

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
