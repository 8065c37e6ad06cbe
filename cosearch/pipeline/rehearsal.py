"""What the end of a run needs, tried before its beginning: a few steps, the export with its gate, a short evaluation.

An agent that could not be written, an environment that breaks on its held-out levels, observations that cannot be normalised:
each would show after hours of training, and would show again at every resume. Here it takes a second, on a network that has
learned nothing but the statistics of the first observations. Nothing of it goes into the run, whose random streams do not move.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import torch

from cosearch.deploy.bundle.graph import needed_opset
from cosearch.deploy.export import check_parity, to_onnx
from cosearch.deploy.onnx_agent import OnnxAgent
from cosearch.pipeline.search.derivation import most_likely_feasible
from cosearch.planning.plan import Plan
from cosearch.rl.evaluate import evaluate
from cosearch.rl.memory import Carried
from cosearch.rl.policy import act, policy_of
from cosearch.rl.task import make_task
from cosearch.seeding import Streams
from cosearch.space.derivation.derive import derive
from cosearch.space.network import AgentNetwork
from cosearch.training.algorithms import as_deployed, as_policy, as_trained
from latency_tables.board.temporary import temporary_folder
from latency_tables.errors import NonFiniteError, ParityError, RunFailedError
from latency_tables.runtimes import RuntimeLimit, limit_of
from latency_tables.table import Table

ENVS, STEPS = 2, 32


def rehearse(plan: Plan, note: Callable[[str], None]) -> None:
    """Try export and evaluation on the first observations of a run.

    Args:
        plan: the resolved run.
        note: told where the device's runtime would not load such an agent.

    Raises:
        RunFailedError: no agent could be written at the end of this run, or it could not be played.
        EnvironmentFailedError: the environment breaks.
        ConfigError: the score is to be the share of successes, and the environment does not say whether an episode succeeded.
    """
    config, streams = plan.config, Streams(plan.config.seed)
    generator = torch.Generator().manual_seed(streams.derive("eval", 6))
    agent = _untrained(plan, streams, generator)
    try:
        frames = _first_observations(agent, plan, generator)
        agent.ends.see(torch.from_numpy(frames))
        with temporary_folder("cosearch-rehearsal-") as folder:
            model, file = to_onnx(agent, frames.shape[1:]), folder / "agent.onnx"
            check_parity(agent, model, frames, action_sizes=plan.space.action_sizes)
            too_new = unloadable(plan, model)
            if too_new:
                note(too_new)
            file.write_bytes(model)
            player = as_policy(OnnxAgent(file, threads=1), config)
            env = make_task(config.env, 1, streams.derive("eval", 7), test=True)
            try:
                metric, limit = config.env.metric, config.env.episode_steps
                steps = limit if metric == "success" else min(STEPS, limit)  # only the end of an episode says of success
                evaluate(player, env, 1, generator, episode_steps=steps, metric=metric).check_said()
            finally:
                env.close()
    except (NonFiniteError, ParityError) as error:
        raise RunFailedError(
            f"before any training: an agent of {config.env.name} could not be exported and played: {error}"
        ) from error


def _untrained(plan: Plan, streams: Streams, generator: torch.Generator) -> AgentNetwork:
    """A network of the run as it will be deployed, that has learned nothing."""
    scores = [[0.0] * len(point.candidates) for point in plan.space.points]
    network = derive(most_likely_feasible(plan, scores), generator)
    return as_deployed(as_trained(network, plan.config, streams), plan.config).float().eval()


def unloadable_agent(plan: Plan) -> str:
    """Why the device's own runtime would not load the agents of a run; empty where it would, or where nobody knows the runtime.

    Args:
        plan: the resolved run.
    """
    if _limit(plan) is None:
        return ""
    streams = Streams(plan.config.seed)
    agent = _untrained(plan, streams, torch.Generator().manual_seed(streams.derive("eval", 6)))
    return unloadable(plan, to_onnx(agent, plan.space.frame_shape))


def _limit(plan: Plan) -> RuntimeLimit | None:
    if not isinstance(plan.hardware, Table):
        return None
    device, software = plan.hardware.device, plan.hardware.header.get("software")
    version = software.get("version") if isinstance(software, dict) else None
    return limit_of(device.name, device.runtime, version if isinstance(version, str) else None)


def unloadable(plan: Plan, model: bytes) -> str:
    """Why the device's own runtime would not load an agent; empty where it would, or where nobody knows the runtime.

    Args:
        plan: the resolved run.
        model: a serialized agent of it.
    """
    limit = _limit(plan)
    needed = 0 if limit is None else needed_opset(onnx.load_model_from_string(model))
    if limit is None or needed <= limit.opset:
        return ""
    return (
        f"{plan.hardware.device.name} would not load this agent: it needs opset {needed}, {limit.runtime} {limit.version} there "
        f"ends at {limit.opset} ({limit.reason})"
    )


def _first_observations(agent: AgentNetwork, plan: Plan, generator: torch.Generator) -> np.ndarray:
    """``[observations, *frame_shape]`` of the training levels, as a new agent meets them."""
    config = plan.config
    env = make_task(config.env, min(ENVS, config.env.num_envs), config.seed & 0x7FFFFFFF)
    policy, player = policy_of(env), Carried(as_policy(agent, config), env.num_envs)
    seen = [env.observe().copy()]
    try:
        with torch.inference_mode():
            for _ in range(STEPS):
                env.send(act(player, seen[-1], policy, generator))
                step = env.receive()
                seen.append(step.frames.copy())
                player.forget(step.terminated | step.truncated)
    finally:
        env.close()
    return np.concatenate(seen)
