"""What the episodes of an evaluation amount to: solved or not, and how far from a random policy's score to the teacher's."""

from __future__ import annotations

import numpy as np

from cosearch.config.env import EnvConfig
from cosearch.record.results.evaluation import EvaluationRecord, Interval, share_between
from cosearch.rl.envs import CheckedEnv
from cosearch.rl.evaluate import Note, Score, play_episodes
from cosearch.rl.task import make_task, random_actions
from cosearch.statistics import mean_interval

EVAL_ENVS = 64
SCALED = "reward_scale"  # the wrapper whose returns are not those that Gymnasium's register means


def solved_at(config: EnvConfig, env: CheckedEnv) -> float | None:
    """The mean score from which a task counts as solved; None where nobody named one.

    Args:
        config: the task; its own value counts first.
        env: of the task.
    """
    if config.solved_at is not None:
        return config.solved_at
    scaled = any(wrapper.partition(":")[0] == SCALED for wrapper in config.wrappers)
    return None if config.metric != "return" or scaled else env.solved_at


def random_score(config: EnvConfig, episodes: int, seed: int, note: Note | None = None) -> Score:
    """Score of a policy that draws its actions at random, on held-out levels: uniform, or standard normal for action vectors.

    Args:
        config: the task.
        episodes: at least this many.
        seed: of levels and actions, 31 bits.
        note: told how far it is.

    Raises:
        EnvironmentFailedError: the environment failed.
    """
    env, stream = make_task(config, min(EVAL_ENVS, episodes), seed, test=True), np.random.default_rng(seed)
    try:
        return play_episodes(
            lambda frames: random_actions(env, stream),
            env,
            episodes,
            episode_steps=config.episode_steps,
            metric=config.metric,
            note=note,
        )
    finally:
        env.close()


def judged(score: Score, threshold: float | None, teacher: float | None, random: Score | None) -> EvaluationRecord:
    """The record of an evaluation.

    Args:
        score: of the agent.
        threshold: see :func:`solved_at`.
        teacher: mean score of the teacher; None without one.
        random: of a random policy, in the same evaluation; None where it was not played.
    """
    mean, ci95 = score.mean, score.ci95
    low, high = (None if random is None else random.mean), teacher
    lower, upper = ci95 or (None, None)
    return EvaluationRecord(
        metric=score.metric,
        return_mean=float(np.mean(score.returns)),
        return_ci95=mean_interval(score.returns),
        length_mean=float(np.mean(score.lengths)),
        success_rate=score.success_rate,
        solved_at=threshold,
        solved=None if threshold is None else mean >= threshold,
        solved_surely=None if threshold is None or lower is None else lower >= threshold,
        random_mean=low,
        random_ci95=None if random is None else random.ci95,
        share_of_teacher=None if low is None or high is None else share_between(mean, low, high),
        share_ci95=_shares(lower, upper, low, high),
    )


def _shares(lower: float | None, upper: float | None, low: float | None, high: float | None) -> Interval | None:
    if lower is None or upper is None or low is None or high is None:
        return None
    ends = share_between(lower, low, high), share_between(upper, low, high)
    return None if ends[0] is None or ends[1] is None else (ends[0], ends[1])
