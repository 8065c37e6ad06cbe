"""Is the latency that is reported the one that others measure? `python -m cosearch.benchmarks.speed.loop_check --json`.

Random agents of the default space are exported, and each is timed in turns by ``measure_agent`` and by ``plain_loop``, a script
of twenty lines that uses onnxruntime alone, in a process of its own. The ratio of the two in one turn has seen one and the same
moment of the machine; an agent's ratio is the median over its turns, and the figure is the median over agents, with its extremes.
With a table, the ratio of the loop to the prediction stands beside it. Printed, kept in ``loop_check.json`` and written into
``docs/guide/artifact.md``. Exit code 1 where the median is off by more than 2 %.

Wants a quiet machine: ``load`` in the result is that of the minute before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import torch
import typer

from cosearch.benchmarks.documents import DOCS, keep
from cosearch.benchmarks.results import program
from cosearch.deploy.export import to_onnx
from cosearch.deploy.measure import measure_agent
from cosearch.planning.builtins import load_builtins
from cosearch.planning.space import default_space
from cosearch.space.derivation.derive import derive
from cosearch.space.ends import observations_of
from latency_tables.table import load_table

HERE = Path(__file__).parent
SHAPE, ACTIONS = (64, 64, 3), 15
ALLOWED = 0.02


@dataclass(frozen=True)
class LoopCheck:
    """What the two loops said.

    Attributes:
        agents, turns: how many, and turns of each.
        ratio: plain loop by reported latency, median over agents.
        ratios: of each agent.
        to_prediction: plain loop by the table's prediction, median over agents; None without a table.
        load: of the machine before, jobs a minute.
    """

    agents: int
    turns: int
    ratio: float
    ratios: tuple[float, ...]
    to_prediction: float | None
    load: float


def loop_check(agents: int, turns: int, seconds: float, table: Path | None, threads: int = 1) -> LoopCheck:
    """Time random agents by both loops in turns.

    Args:
        agents: how many.
        turns: of each loop on each agent.
        seconds: of one turn of one loop.
        table: of this machine; None: no prediction is compared.
        threads: of the runtime.
    """
    load_builtins()
    load, known = os.getloadavg()[0], None if table is None else load_table(table)
    space = default_space(observations_of(SHAPE)).build({}, SHAPE, ACTIONS, "categorical")
    ratios, predicted = [], []
    with tempfile.TemporaryDirectory(prefix="cosearch-") as folder:
        path = Path(folder) / "agent.onnx"
        for number in range(agents):
            architecture = space.sample(torch.Generator().manual_seed(number))
            path.write_bytes(to_onnx(derive(architecture, torch.Generator().manual_seed(number)).eval(), SHAPE))
            pairs = [
                (_plain_s(path, threads, seconds), measure_agent(path, threads=threads, seconds=2 * seconds))
                for _ in range(turns)
            ]
            ratios.append(median(plain / found.agents["agent"].measured.p50_s for plain, found in pairs))
            if known is not None:
                predicted.append(median(plain for plain, _ in pairs) / known.predict(architecture.ops()).latency_s)
    return LoopCheck(agents, turns, median(ratios), tuple(ratios), median(predicted) if predicted else None, load)


def _plain_s(path: Path, threads: int, seconds: float) -> float:
    words = [sys.executable, str(HERE / "files" / "plain_loop.py"), str(path), str(threads), str(seconds)]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def sentence(found: LoopCheck) -> str:
    """The result in words.

    Args:
        found: what the two loops said.
    """
    low, high = min(found.ratios), max(found.ratios)
    text = (
        f"Plain loop by reported latency: {found.ratio:.4f} in the median over {found.agents} agents, {found.turns} turns "
        f"({low:.4f} to {high:.4f}), load of the machine {found.load:.1f}"
    )
    return text + ("." if found.to_prediction is None else f"; plain loop by the table's prediction: {found.to_prediction:.4f}.")


def main(
    agents: Annotated[int, typer.Option(help="Random agents.")] = 20,
    turns: Annotated[int, typer.Option(help="Turns of each loop on each agent.")] = 3,
    seconds: Annotated[float, typer.Option(help="Of one turn of one loop.")] = 1.0,
    table: Annotated[Path | None, typer.Option(help="A table of this machine.")] = None,
    out: Annotated[Path, typer.Option(help="File of the result.")] = HERE / "loop_check.json",
    page: Annotated[Path, typer.Option(help="Page that gets the result; one of the docs with the default --out alone.")] = DOCS
    / "guide"
    / "artifact.md",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result for a machine.")] = False,
) -> None:
    """Compare the reported latency of random agents with a plain loop's."""
    found = loop_check(agents, turns, seconds, table)
    keep(asdict(found), out, page, "loop check", sentence(found))
    typer.echo(json.dumps(asdict(found)) if as_json else sentence(found))
    if abs(found.ratio - 1) > ALLOWED:
        raise typer.Exit(1)


if __name__ == "__main__":
    program(main)
