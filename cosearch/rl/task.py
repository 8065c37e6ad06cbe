"""The environments of a configured task: in this process, or in one of their own."""

from __future__ import annotations

import numpy as np

from cosearch.config.env import EnvConfig
from cosearch.rl.apart import EnvApart
from cosearch.rl.envs import CheckedEnv, EnvOptions, make_env, split_name
from cosearch.space.parts import MASK, unpack

PROBE_STEPS = 16


def make_task(config: EnvConfig, num_envs: int, seed: int, *, test: bool = False, first_level: int = 0) -> CheckedEnv:
    """The environments of a configured task, made and checked.

    Args:
        config: the task.
        num_envs: how many; the configuration's own number is that of its training.
        seed: 31-bit seed.
        test: on the held-out test levels.
        first_level: of the training levels, where the task has levels.

    Raises:
        UnknownNameError: no such environment.
        MissingExtraError: its package is not installed.
        ConfigError: it has other observations or actions than an agent can have.
        EnvironmentFailedError: it does not keep its own contract.
    """
    options = EnvOptions(
        num_envs,
        seed,
        train_levels=config.train_levels,
        first_level=first_level,
        test=test,
        kwargs=config.kwargs,
        layout=config.layout,
        wrappers=config.wrappers,
    )
    if config.step_limit_s is None:
        return make_env(config.name, options)
    family, game = split_name(config.name)
    return CheckedEnv(EnvApart(family.make, game, options, config.name, config.step_limit_s), config.name)


def inexact_resume(config: EnvConfig) -> str | None:
    """Why a resumed run of a task cannot equal an uninterrupted one; None where it does.

    Args:
        config: the task.

    Raises:
        UnknownNameError: no such environment.
        EnvironmentFailedError: it cannot be made.
    """
    probe, twin = make_task(config, 1, 0), make_task(config, 1, 0)
    try:
        if not probe.exact_resume:
            return f"{config.name} can neither save its state nor be replayed exactly: after a resume its episodes begin anew"
        other = _first_difference(probe, twin)
    finally:
        probe.close()
        twin.close()
    if other is None:
        return None
    return f"{config.name} does not replay: {other} after one seed. After a resume its running episodes begin anew"


def _first_difference(one: CheckedEnv, other: CheckedEnv) -> str | None:
    """How two environments of one seed differ after the reset and in their first steps; None: they do not."""
    if not np.array_equal(one.observe(), other.observe()):
        return "two resets give different observations"
    stream = np.random.default_rng(0)
    for _ in range(PROBE_STEPS):
        action = random_actions(one, stream)
        steps = []
        for env in (one, other):
            env.send(action)
            steps.append(env.receive())
        first, second = ((step.frames, step.reward, step.terminated, step.truncated) for step in steps)
        if not all(np.array_equal(a, b) for a, b in zip(first, second)):
            return "the same actions give different observations, rewards or ends"
    return None


def random_actions(env: CheckedEnv, stream: np.random.Generator) -> np.ndarray:
    """An action for each environment as a new agent draws it: standard normal, or uniform over the actions that are allowed.

    Args:
        env: the task.
        stream: random numbers.

    Returns:
        ``[num_envs, num_actions]``, float32, ``[num_envs]``, int64, or ``[num_envs, factors]``, int64.
    """
    if env.action_box is not None:
        return stream.normal(0.0, 1.0, (env.num_envs, env.num_actions)).astype(np.float32)
    if not env.parts and not env.action_sizes:
        return stream.integers(0, env.num_actions, env.num_envs)
    allowed = unpack(env.parts, env.observe()).get(MASK)
    weights = (1.0 - stream.random((env.num_envs, env.num_actions))) * (1.0 if allowed is None else allowed > 0)
    factors = np.split(weights, np.cumsum(env.action_sizes)[:-1], axis=1) if env.action_sizes else [weights]
    chosen = np.stack([factor.argmax(axis=1) for factor in factors], axis=1)
    return chosen if env.action_sizes else chosen[:, 0]
