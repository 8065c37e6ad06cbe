"""The environments of a configured task: in this process, or in one of their own."""

from __future__ import annotations

from cosearch.config.env import EnvConfig
from cosearch.rl.apart import EnvApart
from cosearch.rl.envs import CheckedEnv, EnvOptions, make_env, split_name


def make_task(config: EnvConfig, num_envs: int, seed: int, *, test: bool = False) -> CheckedEnv:
    """The environments of a configured task, made and checked.

    Args:
        config: the task.
        num_envs: how many; the configuration's own number is that of its training.
        seed: 31-bit seed.
        test: on the held-out test levels.

    Raises:
        UnknownNameError: no such environment.
        MissingExtraError: its package is not installed.
        ConfigError: it has other observations or actions than an agent can have.
        EnvironmentFailedError: it does not keep its own contract.
    """
    options = EnvOptions(num_envs, seed, train_levels=config.train_levels, test=test, kwargs=config.kwargs, layout=config.layout)
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
    probe = make_task(config, 1, 0)
    exact = probe.exact_resume
    probe.close()
    if exact:
        return None
    return f"{config.name} can neither save its state nor be replayed exactly: after a resume its episodes begin anew"
