"""Evaluation: a fixed number of episodes of each environment, actions sampled, with a bootstrap interval.

A fixed quota for each environment avoids the bias towards short episodes that "the first n episodes to end" has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cosearch.rl.envs import VectorEnv
from cosearch.rl.policy import act, policy_of
from cosearch.rl.rollout import Forward
from cosearch.statistics import Interval, mean_interval


@dataclass(frozen=True)
class Score:
    """Returns of finished episodes.

    Attributes:
        returns: one undiscounted, unscaled return an episode.
    """

    returns: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def ci95(self) -> Interval | None:
        """Bootstrap interval of the mean over episodes, 95 %, from a fixed seed; None for one episode."""
        return mean_interval(self.returns)


def evaluate(forward: Forward, env: VectorEnv, episodes: int, generator: torch.Generator, *, greedy: bool = False) -> Score:
    """Play ``episodes`` whole episodes, an equal number in each environment (rounded up).

    Args:
        forward: frames ``[batch, *frame_shape]`` -> policy outputs ``[batch, outputs]``, values ``[batch]``.
        env: fresh environment.
        episodes: at least this many.
        generator: CPU generator of the actions.
        greedy: take the most likely action (the mean of a Gaussian) instead of sampling (Procgen's protocol samples).

    Raises:
        NonFiniteError: the network returned NaN or infinity.
        EnvironmentFailedError: an environment failed.
    """
    quota = -(-episodes // env.num_envs)
    finished: list[list[float]] = [[] for _ in range(env.num_envs)]
    running = np.zeros(env.num_envs)
    frames, policy = env.observe(), policy_of(env)
    while min(len(f) for f in finished) < quota:
        env.send(act(forward, frames, policy, generator, greedy=greedy))
        step = env.receive()
        frames = step.frames
        running += step.reward
        for i in np.flatnonzero(step.terminated | step.truncated):
            if len(finished[i]) < quota:
                finished[i].append(float(running[i]))
            running[i] = 0.0
    return Score(tuple(r for part in finished for r in part))
