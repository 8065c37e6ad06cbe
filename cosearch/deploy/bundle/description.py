"""The contract of a finished run's agent, put together from the files of its folder."""

from __future__ import annotations

import importlib.metadata

import numpy as np

from cosearch.deploy.bundle.contract import CHANNELS_FIRST, Contract, InputPart
from cosearch.deploy.player import ActingRule, read_rule
from cosearch.record.results.agent import AgentRecord
from cosearch.record.results.summary import Summary
from cosearch.record.run_record import RunRecord
from cosearch.record.rundir import RunDir
from cosearch.space.parts import Part
from latency_tables.errors import RunFolderError

PERIOD_S = 0.02
INT8_TOLERANCE = (
    0.02  # a processor that rounds one value to the next of 255 steps moves an output by about a hundredth of its size
)


def describe(run: RunDir) -> Contract:
    """What the exported file of a run takes, gives and was made for; a bundle's file can have more outputs and another opset.

    Args:
        run: a finished run.

    Raises:
        RunFolderError: a file of the run is missing or damaged.
    """
    agent, record, summary = run.read(AgentRecord), run.read(RunRecord), run.read(Summary)
    rule = read_rule(run.path / AgentRecord.FILE)
    expected = (len(rule.parts) or 1) + (agent.memory is not None)
    if len(agent.inputs) != expected or len(agent.inputs[0].shape) < 2 or not record.space.frame_shape:
        raise RunFolderError(
            f"{run.path / AgentRecord.FILE} does not describe the observations, and the memory where the agent has one, as its "
            f"inputs; `cosearch export {run.path}` writes it again"
        )
    taken, artifact, kept = agent.inputs[0], agent.artifact, agent.memory
    parts = tuple(_given(part) for part in rule.parts)
    dtype, threads = ("float32", 1) if artifact is None else (artifact.dtype, artifact.threads)
    is_vector, count = len(taken.shape) == 2, record.space.num_actions
    word = "action" if rule.policy == "categorical" else "component"
    named = len(rule.action_sizes) or count
    return Contract(
        dtype=dtype,
        threads=threads,
        opset=agent.parity.opset,
        input_name=taken.name,
        input_dtype=parts[0].dtype if parts else taken.dtype,
        input_shape=_turned(taken.shape) if rule.channels_first else ("batch", *parts[0].shape) if parts else taken.shape,
        input_names=tuple(f"observation_{i}" for i in range(record.space.frame_shape[0])) if is_vector and not parts else (),
        inputs=parts,
        environment_layout=CHANNELS_FIRST if rule.channels_first else "channels_last",
        input_scaling=agent.preprocessing,
        output_names=tuple(output.name for output in agent.outputs),
        stored_outputs=tuple(output.name for output in agent.outputs),
        policy=rule.policy,
        rule=rule.rule,
        action_names=rule.action_names or tuple(f"{word}_{i + rule.first_action}" for i in range(named)),
        action_sizes=rule.action_sizes,
        first_action=rule.first_action,
        action_low=_finite(rule.low),
        action_high=_finite(rule.high),
        action_scale=_each(rule, rule.scale, count),
        action_shift=_each(rule, rule.shift, count),
        memory_input="" if kept is None else kept.input,
        memory_output="" if kept is None else kept.output,
        memory_initial=() if kept is None else kept.initial,
        period_s=PERIOD_S if agent.latency.paced is None else agent.latency.paced.period_s,
        tolerance=INT8_TOLERANCE if dtype == "int8" else agent.parity.tolerance,
        environment=str(_environment(record)),
        run=record.name or run.path.name,
        created_utc=record.created_utc,
        seed=record.seed,
        network=agent.architecture,
        network_sha256=agent.deployed_sha256,
        device=record.device.name,
        table_id=record.table.table_id,
        table_provenance=summary.table_provenance,
        latency_target_s=summary.latency_target_s,
        latency_predicted_s=summary.latency_predicted_s,
        versions={"cosearch": _own_version(), **record.versions},
    )


def _given(part: Part) -> InputPart:
    return InputPart(
        name=part.name,
        kind=part.kind,
        dtype=part.given_dtype,
        shape=part.given_shape,
        layout=part.layout,
        low=part.low,
        high=part.high,
    )


def _turned(shape: tuple[object, ...]) -> tuple[object, ...]:
    batch, height, width, channels = shape
    return batch, channels, height, width


def _environment(record: RunRecord) -> object:
    section = record.config.get("env")
    return section.get("name", "") if isinstance(section, dict) else ""


def _own_version() -> str:
    try:
        return importlib.metadata.version("cosearch")
    except importlib.metadata.PackageNotFoundError:  # run from its sources
        return "unknown"


def _finite(bound: np.ndarray | None) -> tuple[float | None, ...]:
    return () if bound is None else tuple(float(value) if np.isfinite(value) else None for value in bound)


def _each(rule: ActingRule, value: np.ndarray | float, count: int) -> tuple[float, ...]:
    return () if rule.policy != "gaussian" else tuple(float(v) for v in np.broadcast_to(value, (count,)))
