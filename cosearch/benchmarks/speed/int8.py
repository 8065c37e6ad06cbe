"""What int8 costs and what it gives: whole agents beside their float32 form, and the table of int8 latencies beside measurements.

``python -m cosearch.benchmarks.speed.int8`` takes the shipped teachers of three games and, for vectors, agents that it trains
first (discrete and continuous actions). Each is quantised as a run's agent is, with ranges from training levels, and both forms
play the same held-out levels. Their files are timed in turns in one process. With ``--table`` and ``--float-table`` of this
machine, random networks of the space ``chain`` are quantised, timed and compared with the predictions of both. What is finished
is kept in ``--runs`` and not made again; the table is printed, kept in ``int8.json`` and written into ``docs/evidence/int8.md``.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from cosearch.benchmarks.documents import DOCS, keep
from cosearch.benchmarks.results import program
from cosearch.benchmarks.speed.int8_rows import AgentRow, NetworkRow
from cosearch.cli.progress import TerminalProgress
from cosearch.config.run import Config, resolve
from cosearch.deploy.artifacts.quantised import Quantiser
from cosearch.deploy.export import export_agent, to_onnx
from cosearch.deploy.measure import measure_side_by_side
from cosearch.deploy.observing import observations
from cosearch.deploy.onnx_agent import OnnxAgent
from cosearch.pipeline.agent.artifact import AGENT, FLOAT_AGENT, deploy
from cosearch.planning.builtins import load_builtins
from cosearch.planning.device.artifact import ArtifactPlan
from cosearch.planning.space import default_space
from cosearch.record.durable import write_bytes_atomic
from cosearch.record.json_record import from_json, to_json
from cosearch.rl.evaluate import Score, evaluate
from cosearch.rl.rollout import Forward
from cosearch.rl.task import make_task
from cosearch.rl.teacher import TeacherRecord, find_teacher, load_network, read_record
from cosearch.seeding import Streams
from cosearch.space.derivation.derive import derive
from cosearch.space.ends import observations_of
from cosearch.space.network import AgentNetwork
from cosearch.statistics import estimate_text
from cosearch.teachers.train import TeacherRequest, train_teacher
from cosearch.training.algorithms import as_policy
from latency_tables.errors import MissingOpError, RunFolderError
from latency_tables.table import Table, load_table
from latency_tables.text.reading import read_json

HERE = Path(__file__).parent
FORM = ArtifactPlan("onnxruntime", "int8")
AGENTS: dict[str, tuple[str, int]] = {  # name -> task, steps of a training; 0: the shipped teacher
    "coinrun": ("procgen:coinrun", 0),
    "breakout": ("minatar:breakout", 0),
    "asterix": ("minatar:asterix", 0),
    "cartpole": ("gym:CartPole-v1", 60_000),
    "pendulum": ("gym:Pendulum-v1", 100_000),
}
VALUES = {"pendulum": ("rl.gamma=0.9",)}  # as usual for this task: a torque has its effect within ten steps
ENVS, COMPARED = 64, 1000
NETWORK_FRAMES = 64


@dataclass(frozen=True, kw_only=True)
class Int8Result:
    """All that was measured.

    Attributes:
        machine: its processor.
        agents: in the order of :data:`AGENTS`.
        networks: random ones; empty without tables.
        table_id, float_table_id: of the tables; empty without.
    """

    machine: str
    agents: tuple[AgentRow, ...]
    networks: tuple[NetworkRow, ...]
    table_id: str
    float_table_id: str

    def error(self, of: str) -> tuple[float, float]:
        """Mean absolute error of the predictions and their bias, shares of what was measured.

        Args:
            of: ``int8`` or ``float32`` latencies, or ``speed-up``: float32 by int8, which a load on both does not move.
        """
        pairs = {
            "int8": [(row.predicted_s, row.latency_s) for row in self.networks],
            "float32": [(row.float_predicted_s, row.float_latency_s) for row in self.networks],
            "speed-up": [(row.float_predicted_s / row.predicted_s, row.float_latency_s / row.latency_s) for row in self.networks],
        }[of]
        errors = np.array([said / whole - 1 for said, whole in pairs])
        return float(np.abs(errors).mean()), float(errors.mean())


def agent_row(name: str, runs: Path, episodes: int, seconds: float) -> AgentRow:
    """Quantise, play and time one agent.

    Args:
        name: a key of :data:`AGENTS`.
        runs: folder of what is made on the way.
        episodes: of each form, at least.
        seconds: of timing of each form.
    """
    env, record = AGENTS[name][0], _agent(name, runs)
    network, folder, streams = load_network(record), runs / f"int8-{name}", Streams(0)
    folder.mkdir(parents=True, exist_ok=True)
    config = resolve(options={"env.name": env, "budget.eval_episodes": episodes})
    frames = observations(network, config, COMPARED, streams)
    export_agent(network, folder, frames)
    deployed = deploy(
        FORM,
        folder,
        frames,
        evaluate=lambda path: _score(OnnxAgent(path, 1), config, episodes),
        compare=lambda path: _score(OnnxAgent(path, 1), config, episodes, test=False),
        observe=lambda count: observations(network, config, count, streams, test=False),
        greedy=False,
        note=lambda text: typer.echo(f"{name}: {text}", err=True),
    )
    made = deployed.record.quantised
    if made is None:
        raise AssertionError("the plan of an int8 agent gives an int8 agent")
    files = {"float32": folder / FLOAT_AGENT, "int8": folder / AGENT}
    load, timed = os.getloadavg()[0], measure_side_by_side(files, threads=1, seconds=seconds, dtype="int8")
    ratio = timed.ratios["int8"]
    return AgentRow(
        name=name,
        env=env,
        description=record.description,
        params=sum(op.params for op in record.ops),
        random_score=_score(_knows_nothing(network), config, episodes).mean,
        score=made.score.mean,
        score_ci95=made.score.ci95,
        float_score=made.float_score.mean,
        float_score_ci95=made.float_score.ci95,
        difference_ci95=made.score_difference_ci95,
        episodes=made.score.episodes,
        layers=made.layers,
        float_layers=len(made.float_layers),
        greedy=made.greedy_agreement,
        kl=made.kl,
        bytes=deployed.record.bytes,
        float_bytes=files["float32"].stat().st_size,
        latency_s=timed.agents["int8"].measured.p50_s,
        float_latency_s=timed.agents["float32"].measured.p50_s,
        speed_up=1 / ratio.p50,
        speed_up_low=1 / ratio.high,
        speed_up_high=1 / ratio.low,
        load=load,
    )


def _agent(name: str, runs: Path) -> TeacherRecord:
    env, steps = AGENTS[name]
    shipped = None if steps else find_teacher("auto", env)
    if shipped is not None:
        return shipped
    out = runs / f"int8-{name}.json"
    if not out.is_file():
        request = TeacherRequest(env, "", steps, 0, 1, 256, values=VALUES.get(name, ()))
        train_teacher(request, out, runs, "python -m cosearch.benchmarks.speed.int8", TerminalProgress(True))
    return read_record(out)


def _with_predictions(row: AgentRow, table: Table, float_table: Table, runs: Path) -> AgentRow:
    ops = _agent(row.name, runs).ops
    try:
        predicted_s, float_predicted_s = table.predict(table.cast(ops)).latency_s, float_table.predict(ops).latency_s
    except MissingOpError:
        return row
    return replace(row, predicted_s=predicted_s, float_predicted_s=float_predicted_s)


def _score(forward: Forward, config: Config, episodes: int, *, test: bool = True) -> Score:
    streams, (of_env, of_actions) = Streams(0), (0, 3) if test else (8, 9)
    env = make_task(config.env, min(ENVS, episodes), streams.derive("eval", of_env), test=test)
    generator = torch.Generator().manual_seed(streams.derive("eval", of_actions))
    try:
        policy = as_policy(forward, config)
        return evaluate(policy, env, episodes, generator, episode_steps=config.env.episode_steps)
    finally:
        env.close()


def _knows_nothing(network: AgentNetwork) -> Forward:
    """All actions alike, or standard normal ones."""

    def forward(frames: Tensor) -> tuple[Tensor, Tensor]:
        policy = network(frames[:1])[0]
        return torch.zeros(len(frames), policy.shape[1]), torch.zeros(len(frames))

    return forward


def network_row(seed: int, table: Table, float_table: Table, frames: np.ndarray, actions: int, seconds: float) -> NetworkRow:
    """Quantise and time one random network of the space ``chain``.

    Args:
        seed: of its choices and weights.
        table, float_table: of this machine.
        frames: real observations, ``[observations, *frame_shape]``.
        actions: discrete ones.
        seconds: of timing of each form.
    """
    shape = frames.shape[1:]
    space = default_space(observations_of(shape)).build({}, shape, actions, "categorical")
    architecture = space.sample(torch.Generator().manual_seed(seed))
    model = to_onnx(derive(architecture, torch.Generator().manual_seed(seed)).eval(), shape)
    rounded = Quantiser(model, frames, frames, greedy=False).make().model
    load, timed = os.getloadavg()[0], measure_side_by_side({"float32": model, "int8": rounded}, threads=1, seconds=seconds)
    ops = architecture.ops()
    return NetworkRow(
        latency_s=timed.agents["int8"].measured.p50_s,
        float_latency_s=timed.agents["float32"].measured.p50_s,
        predicted_s=table.predict(table.cast(ops)).latency_s,
        float_predicted_s=float_table.predict(ops).latency_s,
        load=load,
    )


def markdown(result: Int8Result) -> str:
    """The tables of the documentation.

    Args:
        result: what was measured.
    """
    loads = [row.load for row in result.agents]
    lines = [
        f"{result.machine}, ONNX Runtime, one thread; load of the machine {min(loads):.1f} to {max(loads):.1f}:",
        "",
        "| agent | random | float32 | int8 | int8 minus float32, 95 % | same best action | divergence, nats "
        "| layers in float32 | kB, float32 and int8 | us, float32 and int8 | times as fast |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result.agents:
        ours, theirs = (
            estimate_text(mean, interval, "episode", ".2f")
            for mean, interval in ((row.score, row.score_ci95), (row.float_score, row.float_score_ci95))
        )
        apart = "-" if row.difference_ci95 is None else f"{row.difference_ci95[0]:.2f} to {row.difference_ci95[1]:.2f}"
        lines.append(
            f"| {row.env} ({row.params:,} weights) | {row.random_score:.2f} | {theirs} | {ours} | {apart} | {row.greedy:.1%} "
            f"| {row.kl:.2g} | {row.float_layers} of {row.layers} | {row.float_bytes / 1e3:,.1f}, {row.bytes / 1e3:,.1f} "
            f"| {row.float_latency_s * 1e6:.0f}, {row.latency_s * 1e6:.0f} "
            f"| {row.speed_up:.2f} ({row.speed_up_low:.2f} to {row.speed_up_high:.2f}) |"
        )
    for row in result.agents:
        if row.predicted_s is not None and row.float_predicted_s is not None:
            said = f"{row.float_predicted_s * 1e6:.0f} and {row.predicted_s * 1e6:.0f} us for {row.env}"
            lines += ["", f"The tables of this machine predict {said}."]
    if result.networks:
        load = [row.load for row in result.networks]
        lines += ["", f"{len(result.networks)} random networks of `chain`, load {min(load):.1f} to {max(load):.1f}:", ""]
        lines += [
            "| predicted by the tables of this machine | mean absolute error | bias | measured |",
            "| --- | --- | --- | --- |",
        ]
        times_us = {
            "int8": [row.latency_s * 1e6 for row in result.networks],
            "float32": [row.float_latency_s * 1e6 for row in result.networks],
        }
        for dtype, took_us in times_us.items():
            error, bias = result.error(dtype)
            lines.append(f"| {dtype} latency | {error:.1%} | {bias:+.1%} | {min(took_us):.0f} to {max(took_us):.0f} us |")
        error, bias = result.error("speed-up")
        faster = [row.float_latency_s / row.latency_s for row in result.networks]
        lines.append(f"| times as fast | {error:.1%} | {bias:+.1%} | {min(faster):.2f} to {max(faster):.2f} |")
    return "\n".join(lines)


def _kept(path: Path, identity: str) -> object:
    """What an earlier process made of the same request; None where there is nothing."""
    content = read_json(path, "a part of the benchmark", RunFolderError) if path.is_file() else None
    return content.get("row") if isinstance(content, dict) and content.get("identity") == identity else None


def _keep(path: Path, identity: str, row: AgentRow | NetworkRow) -> None:
    write_bytes_atomic(path, json.dumps({"identity": identity, "row": to_json(row)}, indent=1).encode())


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown processor"


def main(
    episodes: Annotated[int, typer.Option(help="Of each form of an agent.")] = 256,
    seconds: Annotated[float, typer.Option(help="Of timing of each form.")] = 4.0,
    table: Annotated[Path | None, typer.Option(help="Int8 table of this machine.")] = None,
    float_table: Annotated[Path | None, typer.Option(help="Float32 table of this machine.")] = None,
    networks: Annotated[int, typer.Option(help="Random networks to hold against the tables.")] = 12,
    runs: Annotated[Path, typer.Option(help="Folder of what is made on the way.")] = Path("runs"),
    only: Annotated[list[str] | None, typer.Option(help="These agents alone.")] = None,
    out: Annotated[Path, typer.Option(help="File of the result.")] = HERE / "int8.json",
    page: Annotated[Path, typer.Option(help="Page that gets the table; one of the docs with the default --out alone.")] = DOCS
    / "evidence"
    / "int8.md",
) -> None:
    """Quantise, play, time, compare, print, save."""
    load_builtins()
    torch.set_num_threads(1)
    rows = []
    for name in only or AGENTS:
        path, identity = runs / f"int8-{name}-row.json", f"{AGENTS[name]} {VALUES.get(name)} {episodes} {seconds}"
        if (kept := _kept(path, identity)) is None:
            _keep(path, identity, row := agent_row(name, runs, episodes, seconds))
        else:
            row = from_json(AgentRow, kept, path)
        rows.append(row)
    found = []
    tables = None if table is None or float_table is None else (load_table(table), load_table(float_table))
    if tables is not None:
        teacher = _agent("coinrun", runs)
        config = resolve(options={"env.name": teacher.env})
        frames = observations(load_network(teacher), config, NETWORK_FRAMES, Streams(0), test=False)
        actions = teacher.ops[-1].out_channels - 1  # the head's last output is the value
        for seed in range(networks):
            path, identity = runs / f"int8-network-{seed}.json", f"{seed} {seconds} {tables[0].table_id} {tables[1].table_id}"
            if (kept := _kept(path, identity)) is None:
                _keep(path, identity, one := network_row(seed, *tables, frames, actions, seconds))
            else:
                one = from_json(NetworkRow, kept, path)
            found.append(one)
        rows = [_with_predictions(row, *tables, runs) for row in rows]
    result = Int8Result(
        machine=_processor(),
        agents=tuple(rows),
        networks=tuple(found),
        table_id="" if tables is None else tables[0].table_id,
        float_table_id="" if tables is None else tables[1].table_id,
    )
    keep(to_json(result), out, page, "int8", markdown(result))
    typer.echo(markdown(result))


if __name__ == "__main__":
    program(main)
