"""ALE and any Gymnasium environment: a registered id, or what a function or class of a module makes, with wrappers around it."""

from __future__ import annotations

import numpy as np

from cosearch.rl.env_families.made import maker_of
from cosearch.rl.env_families.replayed import ReplayedEnvs, actions_of
from cosearch.rl.env_families.seen import seen_as
from cosearch.rl.env_families.wrappers import wrapped
from cosearch.rl.envs import ENVIRONMENTS, EnvFamily, EnvOptions
from latency_tables.errors import ConfigError, EnvironmentFailedError, MissingExtraError, ShapeError

GYM_EXAMPLES = (
    "CartPole-v1",
    "Acrobot-v1",
    "MountainCar-v0",
    "Pendulum-v1",
    "MountainCarContinuous-v0",
    "LunarLander-v3",
    "CarRacing-v3",
)
ALE_EXAMPLES = ("Breakout", "Pong", "SpaceInvaders", "Qbert", "Seaquest", "BeamRider")


def _make_ale(game: str, options: EnvOptions) -> ReplayedEnvs:
    try:
        import ale_py
    except ImportError as error:
        raise MissingExtraError(f"ALE cannot be imported ({error}): pip install 'cosearch[atari]'") from error
    import gymnasium

    gymnasium.register_envs(ale_py)
    from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

    raw = maker_of(f"ALE/{game}-v5", {"frameskip": 1, **options.kwargs})
    return ReplayedEnvs(
        lambda: FrameStackObservation(AtariPreprocessing(raw()), 4),
        lambda o: np.ascontiguousarray(np.asarray(o).transpose(1, 2, 0)),
        options,
    )


def _make_gym(game: str, options: EnvOptions) -> ReplayedEnvs:
    make = wrapped(maker_of(game, options.kwargs), options.wrappers, options.layout, game)
    probe = make()
    observations, actions = probe.observation_space, probe.action_space
    probe.close()
    try:
        actions_of(actions)
    except (EnvironmentFailedError, ShapeError) as error:
        raise ConfigError(f"gym:{game}: {error}") from error
    seen = seen_as(observations, options.layout, f"gym:{game}")
    envs = ReplayedEnvs(make, seen.to_frame, options, doubt=seen.doubt)
    if envs.frame_shape != seen.frame_shape:
        envs.close()
        raise EnvironmentFailedError(
            f"gym:{game} declares observations of the shape {seen.frame_shape}, but gives {envs.frame_shape}"
        )
    return envs


ENVIRONMENTS.register(
    EnvFamily(
        "ale",
        "Atari 2600, 84x84 grey, four frames stacked (Bellemare et al. 2013)",
        ALE_EXAMPLES,
        _make_ale,
        True,
        takes_kwargs=True,
    )
)
GYM_RUN = {  # small networks on vectors, dense rewards: few environments, many epochs, float32; close to PPO's own settings
    "env.num_envs": 16,
    "rl.rollout_steps": 128,
    "rl.epochs": 10,
    "rl.minibatch": 128,
    "rl.micro_batch": 128,
    "rl.lr": 1e-3,
    "rl.gamma": 0.98,
    "rl.value_weight": 0.5,
    "rl.entropy_weight": 0.0,
    "rl.max_grad_norm": 0.5,
    "rl.bf16": False,
}
ENVIRONMENTS.register(
    EnvFamily(
        "gym",
        "any Gymnasium id, or MODULE:FUNCTION: images or vectors, discrete or continuous actions",
        GYM_EXAMPLES,
        _make_gym,
        True,
        teacher=GYM_RUN,
        run=GYM_RUN,
        takes_kwargs=True,
        takes_layout=True,
        takes_wrappers=True,
    )
)
