"""Decisions once a control period, before and after the runner's settings: ``python -m cosearch.benchmarks.speed.paced``.

Five networks with random weights are exported, each into a folder with its ``run_agent.py``, and each decides once in 20 ms in
three ways in turns, in a process of its own (``files/paced_loop.py``): a plain loop, the runner that sleeps, and the runner
that wakes early and warms up. Printed, kept in ``paced.json`` and written into ``docs/guide/deploy.md``. Wants a quiet machine:
``load`` is that of the minute before.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from cosearch.benchmarks.documents import DOCS, keep
from cosearch.benchmarks.results import program
from cosearch.deploy.bundle.contract import Contract
from cosearch.deploy.bundle.folder import FILES, STORED
from cosearch.deploy.bundle.graph import load, with_contract, with_opset
from cosearch.deploy.export import to_onnx
from cosearch.record.json_record import to_json
from cosearch.space.network import AgentNetwork, fixed_agents

HERE = Path(__file__).parent
PERIOD_S = 0.02
MODES = ("back_to_back", "plain", "asleep", "warmed")
AGENTS: dict[str, tuple[str, tuple[int, ...], int]] = {  # name in the table -> network, shape of an observation, actions
    "MLP 64-64, 8 features": ("mlp-64x64", (8,), 4),
    "IMPALA-CNN, 10x10x4": ("impala-cnn", (10, 10, 4), 3),
    "MinAtar's network, 10x10x4": ("minatar-cnn", (10, 10, 4), 3),
    "Nature-CNN, 64x64x3": ("nature-cnn", (64, 64, 3), 15),
    "IMPALA-CNN, 64x64x3": ("impala-cnn", (64, 64, 3), 15),
}


@dataclass(frozen=True, kw_only=True)
class PacedMode:
    """Decisions of one agent in one way.

    Attributes:
        p50_s, p99_s: of one decision, seconds.
        answered_p99_s: from the moment at which it was due to the answer, seconds.
        missed: answers that came after the next moment.
        calls: how many.
    """

    p50_s: float
    p99_s: float
    answered_p99_s: float
    missed: int
    calls: int


@dataclass(frozen=True, kw_only=True)
class PacedRow:
    """One agent.

    Attributes:
        name: as in the table.
        modes: by name, those of :data:`MODES`.
        load: of the machine before, jobs a minute.
    """

    name: str
    modes: Mapping[str, PacedMode]
    load: float


@dataclass(frozen=True, kw_only=True)
class PacedResult:
    """All agents, and the period in seconds."""

    period_s: float
    agents: tuple[PacedRow, ...]


def write_agent(folder: Path, network: str, shape: tuple[int, ...], actions: int) -> None:
    """Write what the runner needs of an agent with random weights: file, contract, observations.

    Args:
        folder: exists, and is empty.
        network: of :func:`cosearch.space.network.fixed_agents`.
        shape: of one observation.
        actions: discrete ones.
    """
    made = AgentNetwork(fixed_agents(shape, actions)[network], torch.Generator().manual_seed(0)).eval()
    model = with_opset(load(to_onnx(made, shape), network), None)
    taken = model.graph.input[0]
    contract = Contract(
        opset=int(model.opset_import[0].version),
        input_name=taken.name,
        input_dtype="uint8" if len(shape) == 3 else "float32",
        input_shape=("batch", *shape),
        input_names=(),
        input_scaling="",
        output_names=tuple(output.name for output in model.graph.output),
        stored_outputs=(),
        policy="categorical",
        rule="sample",
        action_names=tuple(map(str, range(actions))),
        period_s=PERIOD_S,
        tolerance=1e-4,
        environment="",
        run=network,
        created_utc="",
        seed=0,
        network=(network,),
        network_sha256="",
        device="",
        table_id="",
        table_provenance="",
        latency_target_s=0.0,
        latency_predicted_s=0.0,
        versions={},
    )
    (folder / contract.model).write_bytes(with_contract(model, contract))
    (folder / Contract.FILE).write_text(json.dumps(contract.to_json()), encoding="utf-8")
    shutil.copy(FILES / "run_agent.py", folder)
    (folder / "self_test").mkdir()
    rng = np.random.default_rng(0)
    size = (STORED, *shape)
    seen = rng.integers(0, 256, size, np.uint8) if len(shape) == 3 else rng.normal(0, 1, size).astype(np.float32)
    np.save(folder / "self_test" / "observations.npy", seen)


def paced_row(name: str, calls: int, turns: int) -> PacedRow:
    """Time one agent.

    Args:
        name: of :data:`AGENTS`.
        calls: in each way and turn.
        turns: of all ways.
    """
    with tempfile.TemporaryDirectory(prefix="cosearch-") as folder:
        write_agent(Path(folder), *AGENTS[name])
        words = [sys.executable, str(HERE / "files" / "paced_loop.py"), folder, str(PERIOD_S), str(calls), str(turns)]
        load_before = os.getloadavg()[0]
        found = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return PacedRow(name=name, modes={mode: PacedMode(**found[mode]) for mode in MODES}, load=load_before)


def markdown(result: PacedResult) -> str:
    """The table of the documentation: microseconds, median and 99th percentile.

    Args:
        result: what was measured.
    """
    loads = [row.load for row in result.agents]
    calls = result.agents[0].modes["plain"].calls
    lines = [
        f"{calls} decisions in each way, once in {result.period_s * 1e3:g} ms; load of the machine {min(loads):.1f} to "
        f"{max(loads):.1f}; microseconds, median and 99th percentile, and how many came after the next moment:",
        "",
        "| agent | back to back | plain loop | runner, after a sleep | runner, warmed up | missed: plain, warmed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in result.agents:
        cells = [f"{row.modes[mode].p50_s * 1e6:,.0f}, {row.modes[mode].p99_s * 1e6:,.0f}" for mode in MODES]
        lines.append(f"| {' | '.join([row.name, *cells])} | {row.modes['plain'].missed}, {row.modes['warmed'].missed} |")
    return "\n".join(lines)


def main(
    calls: Annotated[int, typer.Option(help="Decisions in each way and turn.")] = 150,
    turns: Annotated[int, typer.Option(help="Turns of all ways.")] = 3,
    out: Annotated[Path, typer.Option(help="File of the result.")] = HERE / "paced.json",
    page: Annotated[Path, typer.Option(help="Page that gets the table; one of the docs with the default --out alone.")] = DOCS
    / "guide"
    / "deploy.md",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result for a machine.")] = False,
) -> None:
    """Time five agents once a control period, before and after the runner's settings."""
    result = PacedResult(period_s=PERIOD_S, agents=tuple(paced_row(name, calls, turns) for name in AGENTS))
    keep(to_json(result), out, page, "paced", markdown(result))
    typer.echo(json.dumps(to_json(result)) if as_json else markdown(result))


if __name__ == "__main__":
    program(main)
