"""Real observations of an agent: what the gate of the export, the self-test of the bundle and int8 ranges are made with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cosearch.config.run import Config
from cosearch.rl.memory import Carried, recurrent
from cosearch.rl.policy import act, policy_of
from cosearch.rl.rollout import Forward
from cosearch.rl.task import make_task
from cosearch.seeding import Streams
from cosearch.training.algorithms import as_policy

OBSERVED_ENVS = 64
EPISODE_ENVS = 8  # of an agent with a memory, whose observations are kept in their order
LONGEST = 8  # times as many steps as were asked for, for the sake of whole episodes


@dataclass(frozen=True)
class Observed:
    """Observations that an agent met.

    Attributes:
        frames: ``[observations, *frame_shape]``; of an agent with a memory in the order of time, ``[time * envs, *frame_shape]``.
        begins: ``[time, envs]``, bool: the step is the first of an episode; None of an agent without a memory.
    """

    frames: np.ndarray
    begins: np.ndarray | None = None


def observed(agent: Forward, config: Config, count: int, streams: Streams) -> Observed:
    """Real observations on held-out levels: those of an agent with a memory in their order, whole episodes if they are not long.

    Args:
        agent, config, count, streams: see :func:`observations`.
    """
    if recurrent(agent) is None:
        return Observed(observations(agent, config, count, streams))
    env = make_task(config.env, EPISODE_ENVS, streams.derive("eval", 1), test=True)
    generator, player = torch.Generator().manual_seed(streams.derive("eval", 2)), Carried(agent, EPISODE_ENVS)
    least, begins = max(2, -(-count // EPISODE_ENVS)), [np.zeros(EPISODE_ENVS, np.bool_)]
    frames: list[np.ndarray] = []
    try:
        while len(frames) < least or (len(frames) < LONGEST * least and not np.any(begins, axis=0).all()):
            frames.append(env.observe().copy())
            env.send(act(player, frames[-1], policy_of(env), generator))
            step = env.receive()
            begins.append(step.terminated | step.truncated)
            player.forget(begins[-1])
    finally:
        env.close()
    return Observed(np.concatenate(frames), np.stack(begins[:-1]))


def observations(agent: Forward, config: Config, count: int, streams: Streams, *, test: bool = True) -> np.ndarray:
    """Real observations that the agent meets.

    Args:
        agent: trained network or exported file, as a callable.
        config: of the run: task and algorithm.
        count: how many.
        streams: give the seeds of levels and actions.
        test: on held-out levels; else on those that it was trained on.

    Returns:
        ``[count, *frame_shape]``, uint8 images or float32 vectors.
    """
    of_env, of_actions = (1, 2) if test else (4, 5)
    env = make_task(config.env, min(OBSERVED_ENVS, count), streams.derive("eval", of_env), test=test)
    generator = torch.Generator().manual_seed(streams.derive("eval", of_actions))
    policy = Carried(as_policy(agent, config), env.num_envs)
    seen: list[np.ndarray] = []
    try:
        while sum(len(part) for part in seen) < count:
            frames = env.observe().copy()
            seen.append(frames)
            for _ in range(8):  # observations that are some steps apart differ more
                env.send(act(policy, frames, policy_of(env), generator))
                step = env.receive()
                frames = step.frames
                policy.forget(step.terminated | step.truncated)
    finally:
        env.close()
    return np.concatenate(seen)[:count]
