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
from latency_tables.errors import ConfigError

NOTE_EVERY_S = 10.0
Note = Callable[[str], None]


@dataclass(frozen=True)
class Score:
    """Finished episodes.

    Attributes:
        returns: one undiscounted, unscaled return an episode.
        cut: how many of the episodes had not ended at the limit of their steps.
        lengths: environment steps of each.
        successes: whether each succeeded; None for one that does not say it.
        metric: what the score is the mean of: ``return``, ``success`` (1 or 0 an episode) or ``length``.
    """

    returns: tuple[float, ...]
    cut: int = 0
    lengths: tuple[int, ...] = ()
    successes: tuple[bool | None, ...] = ()
    metric: str = "return"

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
    def values(self) -> tuple[float, ...]:
        """One number of the metric an episode; one of which nobody said that it succeeded has not."""
        if self.metric == "length":
            return tuple(map(float, self.lengths))
        if self.metric == "success":
            return tuple(float(success is True) for success in self.successes)
        return self.returns

    def check_said(self) -> None:
        """Raise unless the environment says what the metric needs; episodes that were all cut do not tell.

        Raises:
            ConfigError: the metric is ``success``, and none of the episodes that ended says whether it succeeded.
        """
        if self.metric == "success" and self.success_rate is None and self.cut < len(self.returns):
            raise ConfigError(
                "env.metric=success needs an environment whose last step of every episode says in its information whether it "
                "succeeded, info['is_success'] or info['success'], true or false; this one does not. Let it say so, or take "
                "env.metric=return"
            )

    @property
    def success_rate(self) -> float | None:
        """Share of the episodes that succeeded; None where none of them says it."""
        if all(success is None for success in self.successes):
            return None
        return sum(success is True for success in self.successes) / len(self.successes)

    @property
    def mean(self) -> float:
        """Mean of the metric."""
        return float(np.mean(self.values))

    @property
    def ci95(self) -> Interval | None:
        """Bootstrap interval of the mean over episodes, 95 %, from a fixed seed; None for one episode."""
        return mean_interval(self.values)


def evaluate(
    forward: Forward,
    env: VectorEnv,
    episodes: int,
    generator: torch.Generator,
    *,
    greedy: bool = False,
    episode_steps: int = EPISODE_STEPS,
    metric: str = "return",
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
        metric: what the score is the mean of, ``return``, ``success`` or ``length``.
        note: told every few seconds how far it is, and at the end whether episodes were cut, or none said whether it succeeded.

    Raises:
        NonFiniteError: the network returned NaN or infinity.
        EnvironmentFailedError: an environment failed.
    """
    policy, actor = policy_of(env), Carried(forward, env.num_envs)
    return play_episodes(
        lambda frames: act(actor, frames, policy, generator, greedy=greedy),
        env,
        episodes,
        episode_steps=episode_steps,
        metric=metric,
        forget=actor.forget,
        note=note,
    )


def play_episodes(
    choose: Callable[[np.ndarray], np.ndarray],
    env: VectorEnv,
    episodes: int,
    *,
    episode_steps: int = EPISODE_STEPS,
    metric: str = "return",
    forget: Callable[[np.ndarray], None] = lambda ended: None,
    note: Note | None = None,
) -> Score:
    """Play ``episodes`` whole episodes of whatever chooses the actions.

    Args:
        choose: frames ``[num_envs, *frame_shape]`` -> actions, ``[num_envs]`` or ``[num_envs, num_actions]``.
        env, episodes, episode_steps, metric: see :func:`evaluate`.
        forget: told after each step which episodes have ended, ``[num_envs]``, bool.
        note: see :func:`evaluate`.

    Raises:
        EnvironmentFailedError: an environment failed.
    """
    quota = -(-episodes // env.num_envs)
    finished: list[list[tuple[float, int, bool | None]]] = [[] for _ in range(env.num_envs)]
    running, steps, cut = np.zeros(env.num_envs), np.zeros(env.num_envs, np.int64), np.zeros(env.num_envs, np.bool_)
    frames = env.observe()
    told_s, done = time.monotonic(), 0
    while any(len(played) < quota and not stopped for played, stopped in zip(finished, cut)):
        env.send(choose(frames))
        step = env.receive()
        frames = step.frames
        running += step.reward
        steps += 1
        done += 1
        ended = step.terminated | step.truncated
        forget(ended)
        for i in np.flatnonzero(ended | (steps >= episode_steps)):
            if len(finished[i]) < quota and not cut[i]:
                finished[i].append((float(running[i]), int(steps[i]), step.success.get(int(i))))
                cut[i] = not ended[i]
            running[i], steps[i] = 0.0, 0
        if note is not None and time.monotonic() - told_s > NOTE_EVERY_S:
            told_s = time.monotonic()
            note(f"evaluation: {sum(map(len, finished))} of {quota * env.num_envs} episodes after {done:,} steps each")
    returns, lengths, successes = zip(*(episode for part in finished for episode in part), strict=True)
    score = Score(returns, int(cut.sum()), lengths, successes, metric)
    if score.cut and note is not None:
        note(score.cut_text(episode_steps))
    if metric == "success" and score.success_rate is None and note is not None:
        note(f"none of {len(returns)} episodes said whether it succeeded; all count as failed")
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
