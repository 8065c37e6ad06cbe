"""A policy that someone already has becomes the teacher of a smaller agent: read, timed, and searched for where it is too slow.

The policy is timed on this machine in turns with the task's first reference agent, whose prediction for the target device turns
the ratio into a latency there; on this machine it is the measurement itself. The search's target is a third of that, or the one
that was asked for; where no network takes as little as a third, one near the fastest network. The policy's graph and what was
understood of it become one file beside the runs, which the run learns from.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from cosearch.config.run import Config
from cosearch.deploy.export import to_onnx
from cosearch.deploy.measure import measure_side_by_side
from cosearch.pipeline.agent.artifact import POLICY
from cosearch.pipeline.agent.policy_figures import policy_latency
from cosearch.planning.builtins import load_builtins
from cosearch.planning.device.artifact import plan_artifact
from cosearch.planning.device.constraints import references_on
from cosearch.planning.plan import Plan, make_plan
from cosearch.planning.request import resolve_request
from cosearch.planning.space import default_space
from cosearch.record.durable import write_bytes_atomic
from cosearch.report.format import time_text
from cosearch.rl.foreign.readers import read_policy
from cosearch.rl.foreign.understood import Policy, Said, TaskFacts
from cosearch.rl.task import make_task
from cosearch.space.ends import observations_of
from cosearch.space.network import AgentNetwork, reference_agents
from cosearch.space.space import SPACES
from latency_tables.errors import ConfigError, InfeasibleTargetError
from latency_tables.table import Table
from latency_tables.text.writing import make_folder

WANTED = 1 / 3  # of the policy's latency, where no target is given
WORTH = 0.95  # of the policy's latency: a fastest network above it is nothing smaller
NEAREST = 1.25  # of the fastest network of the space, where none is that fast
ROOM = 2  # different networks that this leaves at least: the fastest alone may be an empty one
FOLDER = "policies"  # below that of the runs


@dataclass(frozen=True)
class Timed:
    """A policy's latency.

    Attributes:
        latency_s: on the target device, seconds; None where its table has none of the task's reference agents.
        source: where that is from, see :func:`policy_latency`.
        measured_s: on this machine, seconds.
    """

    latency_s: float | None
    source: str
    measured_s: float


@dataclass(frozen=True)
class Compression:
    """What is to be done.

    Attributes:
        timed: the policy's latency.
        target_s: of the search, seconds.
        plan: of the run; None: the policy fits already.
        note: why the target is not the one that was asked for, or what is not known; empty where there is nothing to say.
    """

    timed: Timed
    target_s: float
    plan: Plan | None
    note: str = ""


def facts_of(config: Config) -> TaskFacts:
    """What a task gives to a policy and takes from it.

    Args:
        config: names it.

    Raises:
        UnknownNameError: there is none.
        EnvironmentFailedError: it cannot be made.
    """
    load_builtins()
    env = make_task(config.env, 1, 0)
    try:
        return TaskFacts(config.env.name, env.frame_shape, env.num_actions, env.action_box, env.first_action, env.action_sizes)
    finally:
        env.close()


def understand(path: Path, config: Config, said: Said) -> Policy:
    """Read a policy for a configured task.

    Args:
        path: of its file.
        config: names the task.
        said: what the user says of it.

    Raises:
        RequestError: there is no such file, it cannot be read, or plays another task.
    """
    return read_policy(path, facts_of(config), said)


def suited(config: Config, policy: Policy) -> Config:
    """The configuration with a space that suits a policy's student, where the request names none.

    A policy of images gets the one whose smallest networks are the smallest, one with a memory a student with a memory.

    Args:
        config: of the request.
        policy: the policy.
    """
    load_builtins()
    space, known = config.space, policy.understood
    if len(known.frame_shape) not in (1, 3):
        return config
    given = observations_of(known.frame_shape)
    if not config.said & {"space.name", "space.values"} and config.rl.algorithm != "dqn":
        students = [entry.name for entry in SPACES.entries() if entry.for_students and entry.takes == given]
        space = dataclasses.replace(space, name=students[0] if students else space.name)
    kind = default_space(given) if space.name == "auto" else SPACES.get(space.name)
    memory = kind.with_memory if kind.takes == given and known.states and config.rl.on_policy else None
    if memory and not memory.keys() & space.values.keys():
        space = dataclasses.replace(space, values={**space.values, **memory})
    return dataclasses.replace(config, space=space)


def taught_by(config: Config, policy: Policy, runs: Path) -> Config:
    """The configuration with a policy as its teacher; writes the file that the run learns from.

    Args:
        config: of the request.
        policy: the policy.
        runs: folder of the run folders; the file lies in ``policies`` below it, named after its content.

    Raises:
        ConfigError: another teacher is asked for.
        RunFailedError: the disk is full.
    """
    if "distill.teacher" in config.said:
        raise ConfigError("distill.teacher has no effect: the policy is the teacher; leave it out")
    content = policy.stored()
    path = Path(runs) / FOLDER / f"{hashlib.sha256(content).hexdigest()[:16]}.onnx"
    make_folder(path.parent)
    write_bytes_atomic(path, content)
    distill = dataclasses.replace(config.distill, teacher=str(path.resolve()))
    if "distill.temperature" not in config.said:  # a task's own value makes better agents; here the policy itself is wanted
        distill = dataclasses.replace(distill, temperature=1.0)
    if "distill.critic" not in config.said:
        distill = dataclasses.replace(distill, critic=0.0)
    return dataclasses.replace(config, distill=distill)


def plan_compression(config: Config, policy: Policy, *, seconds: float, anyway: bool = False) -> Compression:
    """Time the policy and plan the search for a smaller agent.

    Args:
        config: with the policy as its teacher, see :func:`taught_by`.
        policy: the policy.
        seconds: of the measurement, for each of two.
        anyway: search although the policy fits the target.

    Raises:
        InfeasibleTargetError: no network of the space is as fast as was asked for, or faster than the policy, or within another
            target.
        ConfigError: the policy's latency on the device is not known, and no target was given.
        RequestError: whatever else a plan refuses.
        MeasurementError: the policy cannot be timed.
    """
    timed = _time(config, policy, seconds)
    asked = config.objective.latency_target_s
    if timed.latency_s is None:
        if asked is None:
            raise ConfigError(
                f"the table of {config.device} holds none of this task's reference agents, so the policy's latency there is not "
                "known: give a target, --latency-target-ms MS"
            )
        note = f"what the policy takes on {config.device} is not known, so not whether it fits already"
        return Compression(timed, asked, make_plan(_with_target(config, asked)), note)
    target_s = WANTED * timed.latency_s if asked is None else asked
    if timed.latency_s <= target_s and not anyway:
        return Compression(timed, target_s, None)
    try:
        return Compression(timed, target_s, make_plan(_with_target(config, target_s)))
    except InfeasibleTargetError as error:
        if asked is not None or error.least is None or error.metric != "latency_s":
            raise
        fastest_s = error.least / (1.0 - config.objective.margin)
    if fastest_s > WORTH * timed.latency_s:
        raise InfeasibleTargetError(
            f"the policy takes {time_text(timed.latency_s)} and the fastest network of the space {time_text(fastest_s)}: there "
            "is nothing smaller to find. It is as small as this space gets; other spaces and their values: docs/guide/spaces.md"
        )
    plan = _with_room(config, min(NEAREST * fastest_s, (fastest_s + timed.latency_s) / 2), WORTH * timed.latency_s)
    nearest_s = plan.constraints[0].value
    note = (
        f"a third of the policy's latency ({time_text(target_s)}) is less than any network of this space takes: searching for "
        f"{time_text(nearest_s)}, {nearest_s / timed.latency_s:.2f} of the policy's"
    )
    return Compression(timed, nearest_s, plan, note)


def _has_room(plan: Plan) -> bool:
    """Whether ``ROOM`` different networks are within the targets; true also where they are too many to be counted."""
    found = plan.counts.feasible if plan.counts.distinct is None else plan.counts.distinct
    return found is None or found >= ROOM


def _with_room(config: Config, least_s: float, most_s: float) -> Plan:
    """The plan of the smallest target between the two that leaves room, up to a thousandth; of ``least_s`` where none does."""
    plan = make_plan(_with_target(config, least_s))
    if _has_room(plan) or least_s >= most_s:
        return plan
    loose = make_plan(_with_target(config, most_s))
    if not _has_room(loose):
        return plan
    while most_s - least_s > 1e-3 * most_s:
        middle_s = (least_s + most_s) / 2
        between = make_plan(_with_target(config, middle_s))
        if _has_room(between):
            most_s, loose = middle_s, between
        else:
            least_s = middle_s
    return loose


def _with_target(config: Config, target_s: float) -> Config:
    return dataclasses.replace(config, objective=dataclasses.replace(config.objective, latency_target_s=target_s))


def _time(config: Config, policy: Policy, seconds: float) -> Timed:
    request = resolve_request(config)
    hardware, space = request.hardware, request.space
    if not isinstance(hardware, Table):
        raise ConfigError(
            "compress compares two networks in one runtime, and an accelerator's design is searched for each network: give a "
            "device with a table, `cosearch list devices`"
        )
    form = plan_artifact(hardware)
    if form.runtime != "onnxruntime":
        raise ConfigError(f"compress times policies in onnxruntime, the table of {hardware.device.name} is of {form.runtime}")
    references = references_on(hardware, space)
    networks = {
        name: to_onnx(AgentNetwork(ops, torch.Generator().manual_seed(0)).eval(), space.frame_shape)
        for name, ops in reference_agents(space.frame_shape, space.num_actions).items()
        if name in references
    }
    first = dict(list(networks.items())[:1])
    timed = measure_side_by_side({POLICY: policy.content, **first}, threads=form.threads, seconds=seconds)
    latency_s, source = policy_latency(hardware.device, references, timed.agents)
    return Timed(latency_s, source, timed.agents[POLICY].measured.p50_s)
