"""Real observations of an agent: what the gate of the export, the self-test of the bundle and int8 ranges are made with."""

from __future__ import annotations

import numpy as np
import torch

from cosearch.config.run import Config
from cosearch.rl.policy import act, policy_of
from cosearch.rl.rollout import Forward
from cosearch.rl.task import make_task
from cosearch.seeding import Streams
from cosearch.training.algorithms import as_policy

OBSERVED_ENVS = 64


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
    policy = as_policy(agent, config)
    seen: list[np.ndarray] = []
    try:
        while sum(len(part) for part in seen) < count:
            frames = env.observe().copy()
            seen.append(frames)
            for _ in range(8):  # observations that are some steps apart differ more
                env.send(act(policy, frames, policy_of(env), generator))
                frames = env.receive().frames
    finally:
        env.close()
    return np.concatenate(seen)[:count]
