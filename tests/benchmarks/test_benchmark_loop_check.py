"""The reported latency beside a loop that knows nothing of this project: its arithmetic here, the figures on a quiet machine."""

import ast
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import typer
from typer.testing import CliRunner

from cosearch.benchmarks.speed import loop_check
from cosearch.deploy.export import to_onnx
from cosearch.space.network import AgentNetwork
from latency_tables.board.runners import OnnxRunner
from latency_tables.opspec import OpSpec

APP = typer.Typer()
APP.command()(loop_check.main)
LOOP = Path(loop_check.__file__).parent / "files" / "plain_loop.py"


def test_the_loop_is_short_and_uses_nothing_of_this_project():
    tree = ast.parse(LOOP.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported <= {*sys.stdlib_module_names, "numpy", "onnxruntime"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)] and len(tree.body) <= 20


@pytest.mark.parametrize("slower, code", [(1.015, 0), (0.97, 1)])
def test_the_median_over_agents_of_the_medians_over_turns_decides(slower, code, monkeypatch, tmp_path):
    """Turns that met a slow moment, in one loop alone, do not count."""
    counted = {"plain": 0}

    def plain(path, threads, seconds):
        counted["plain"] += 1
        return slower * 1e-4 * (7 if counted["plain"] % 3 == 0 else 1)

    found = SimpleNamespace(agents={"agent": SimpleNamespace(measured=SimpleNamespace(p50_s=1e-4))})
    monkeypatch.setattr(loop_check, "_plain_s", plain)
    monkeypatch.setattr(loop_check, "measure_agent", lambda path, threads, seconds: found)
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- loop check: begin -->\nold\n<!-- loop check: end -->\nafter\n")
    places = ["--out", str(tmp_path / "kept.json"), "--page", str(page)]
    done = CliRunner().invoke(APP, ["--agents", "2", "--turns", "3", "--json", *places])
    result = json.loads(done.stdout)
    assert done.exit_code == code and counted["plain"] == 6
    assert result["ratio"] == pytest.approx(slower) and result["ratios"] == pytest.approx([slower, slower])
    assert result["to_prediction"] is None and json.loads((tmp_path / "kept.json").read_text()) == result
    assert re.fullmatch(
        rf"before\n<!-- loop check: begin -->\nPlain loop .*: {slower:.4f} in the .* 2 agents, 3 turns .*load of the machine .*\n"
        r"<!-- loop check: end -->\nafter\n",
        page.read_text(),
    )


def test_a_real_agent_is_timed_by_both(tmp_path, monkeypatch):
    monkeypatch.setattr(loop_check, "derive", lambda architecture, generator: small(generator))
    found = loop_check.loop_check(1, 1, 0.05, None)
    assert 0.2 < found.ratio < 5 and found.agents == found.turns == 1


def small(generator):
    return AgentNetwork([OpSpec("stem", 3, 64, 64, 4, 8, 8), OpSpec("head", 4, 8, 8, 16, hidden=4)], generator)


def test_a_call_on_the_cpu_is_the_one_that_a_program_makes(monkeypatch):
    """No bound inputs and outputs: they save what no program is spared."""
    runner = OnnxRunner(to_onnx(small(torch.Generator().manual_seed(0)).eval(), (64, 64, 3)))
    calls = []
    session = runner.session
    runner.session = SimpleNamespace(run=lambda *words: calls.append(words) or session.run(*words))
    runner()
    assert calls == [(None, runner.feed)] and [value.shape for value in runner.outputs()] == [(1, 15), (1,)]
