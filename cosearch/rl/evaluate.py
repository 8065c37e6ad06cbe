"""Evaluation: a fixed number of episodes of each environment, actions sampled, with a bootstrap interval.

A fixed quota for each environment avoids the bias towards short episodes that "the first n episodes to end" has. Every evaluation
ends: an episode that takes longer than the limit counts with its return so far, and its environment plays no further one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from cosearch.config.env import EPISODE_STEPS
from cosearch.rl.envs import VectorEnv
from cosearch.rl.memory import Carried
from cosearch.rl.policy import act, policy_of
from cosearch.rl.rollout import Forward
from cosearch.statistics import Interval, mean_interval

NOTE_EVERY_S = 10.0
Note = Callable[[str], None]


@dataclass(frozen=True)
class Score:
    """Returns of finished episodes.

    Attributes:
        returns: one undiscounted, unscaled return an episode.
        cut: how many of the episodes had not ended at the limit of their steps.
    """

    returns: tuple[float, ...]
    cut: int = 0

    def cut_text(self, episode_steps: int) -> str:
        """A sentence on the episodes that were cut.

        Args:
            episode_steps: the limit.
        """
        return (
            f"{self.cut} of {len(self.returns)} episodes had not ended after {episode_steps:,} steps and count with their return "
            "so far; env.episode_steps sets the limit"
        )

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def ci95(self) -> Interval | None:
        """Bootstrap interval of the mean over episodes, 95 %, from a fixed seed; None for one episode."""
        return mean_interval(self.returns)


def evaluate(
    forward: Forward,
    env: VectorEnv,
    episodes: int,
    generator: torch.Generator,
    *,
    greedy: bool = False,
    episode_steps: int = EPISODE_STEPS,
    note: Note | None = None,
) -> Score:
    """Play ``episodes`` whole episodes, an equal number in each environment (rounded up); fewer where episodes were cut.

    Args:
        forward: frames ``[batch, *frame_shape]`` -> policy outputs ``[batch, outputs]``, values ``[batch]``, or recurrent.
        env: fresh environment.
        episodes: at least this many.
        generator: CPU generator of the actions.
        greedy: take the most likely action (the mean of a Gaussian) instead of sampling (Procgen's protocol samples).
        episode_steps: limit of one episode.
        note: told every few seconds how far it is, and at the end whether episodes were cut.

    Raises:
        NonFiniteError: the network returned NaN or infinity.
        EnvironmentFailedError: an environment failed.
    """
    quota = -(-episodes // env.num_envs)
    finished: list[list[float]] = [[] for _ in range(env.num_envs)]
    running, steps, cut = np.zeros(env.num_envs), np.zeros(env.num_envs, np.int64), np.zeros(env.num_envs, np.bool_)
    frames, policy, actor = env.observe(), policy_of(env), Carried(forward, env.num_envs)
    told_s, done = time.monotonic(), 0
    while any(len(returns) < quota and not stopped for returns, stopped in zip(finished, cut)):
        env.send(act(actor, frames, policy, generator, greedy=greedy))
        step = env.receive()
        frames = step.frames
        running += step.reward
        steps += 1
        done += 1
        ended = step.terminated | step.truncated
        actor.forget(ended)
        for i in np.flatnonzero(ended | (steps >= episode_steps)):
            if len(finished[i]) < quota and not cut[i]:
                finished[i].append(float(running[i]))
                cut[i] = not ended[i]
            running[i], steps[i] = 0.0, 0
        if note is not None and time.monotonic() - told_s > NOTE_EVERY_S:
            told_s = time.monotonic()
            note(f"evaluation: {sum(map(len, finished))} of {quota * env.num_envs} episodes after {done:,} steps each")
    score = Score(tuple(r for part in finished for r in part), int(cut.sum()))
    if score.cut and note is not None:
        note(score.cut_text(episode_steps))
    return score


def score_within(forward: Forward, env: VectorEnv, steps: int, generator: torch.Generator) -> float:
    """Mean over the environments of the return of an episode, played for a fixed number of steps; actions are sampled.

    Each environment counts once, with the mean of the episodes that it finished, or with the return so far of its first one. So
    agents of which one plays longer episodes are compared at equal steps.

    Args:
        forward: frames ``[batch, *frame_shape]`` -> policy outputs ``[batch, outputs]``, values ``[batch]``, or recurrent.
        env: fresh environment.
        steps: of each environment, at least 1.
        generator: CPU generator of the actions.

    Raises:
        NonFiniteError: the network returned NaN or infinity.
        EnvironmentFailedError: an environment failed.
    """
    frames, policy, actor = env.observe(), policy_of(env), Carried(forward, env.num_envs)
    running, finished, episodes = np.zeros(env.num_envs), np.zeros(env.num_envs), np.zeros(env.num_envs)
    for _ in range(steps):
        env.send(act(actor, frames, policy, generator))
        step = env.receive()
        frames = step.frames
        running += step.reward
        ended = step.terminated | step.truncated
        actor.forget(ended)
        finished[ended] += running[ended]
        episodes[ended] += 1
        running[ended] = 0.0
    return float(np.where(episodes > 0, finished / np.maximum(episodes, 1), running).mean())
