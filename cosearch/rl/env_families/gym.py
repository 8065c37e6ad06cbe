"""ALE and any Gymnasium environment: a registered id, or what a function or class of a module makes, with wrappers around it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cosearch.rl.env_families.made import maker_of
from cosearch.rl.env_families.replayed import ReplayedEnvs, actions_of, reset_of
from cosearch.rl.env_families.seen import as_mask, seen_as
from cosearch.rl.env_families.wrappers import wrapped
from cosearch.rl.envs import ENVIRONMENTS, EnvFamily, EnvOptions, close_noted
from cosearch.space.parts import MASK
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
MUJOCO = ("Ant", "HalfCheetah", "Hopper", "Humanoid", "HumanoidStandup", "Pusher", "Reacher", "Swimmer", "Walker2d")
ALE_EXAMPLES = ("Breakout", "Pong", "SpaceInvaders", "Qbert", "Seaquest", "BeamRider")
_log = logging.getLogger(__name__)


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


def _mask_of(env: Any, count: int) -> Callable[[Any, Mapping[str, Any]], np.ndarray] | None:
    """Where an environment gives its action mask: with each step's information, or by a method; None: nowhere."""
    if MASK in reset_of(env, 0)[1]:
        return lambda env, info: as_mask(count, info.get(MASK))
    if _method(env) is None:
        return None
    return lambda env, info: as_mask(count, _method(env)())


def _method(env: Any) -> Any:
    while env is not None:
        found = env.__dict__.get("action_masks") or getattr(type(env), "action_masks", None)
        if found is not None:
            return env.action_masks
        env = env.__dict__.get("env")
    return None


@functools.cache
def _warn_once(message: str) -> None:
    _log.warning("MuJoCo: %s", message)


def _tell_mujoco() -> None:
    """Log each of MuJoCo's warnings once: by itself it prints them for each environment, and writes a file where it runs."""
    try:
        import mujoco
    except ImportError:
        return  # gymnasium says what is missing
    if hasattr(mujoco, "set_mju_user_warning"):  # not every version has it
        mujoco.set_mju_user_warning(_warn_once)


def _make_gym(game: str, options: EnvOptions) -> ReplayedEnvs:
    if game.partition("-")[0] in MUJOCO:
        _tell_mujoco()
    make = wrapped(maker_of(game, options.kwargs), options.wrappers, options.layout, game)
    probe = make()
    observations, actions = probe.observation_space, probe.action_space
    try:
        count, box, _ = actions_of(actions)
    except (EnvironmentFailedError, ShapeError) as error:
        raise ConfigError(f"gym:{game}: {error}") from error
    mask_of = _mask_of(probe, count)
    close_noted(f"gym:{game}", probe.close)
    seen = seen_as(observations, options.layout, f"gym:{game}", 0 if mask_of is None else count)
    masks = [part.shape[0] for part in seen.parts if part.kind == "mask"]
    if masks and (box is not None or masks != [count]):
        raise ConfigError(
            f"gym:{game} has a mask of {masks[0]} actions, and actions {actions}: it must have an entry for each action"
        )
    envs = ReplayedEnvs(make, seen.to_frame, options, doubt=seen.doubt, parts=seen.parts, mask_of=mask_of)
    if envs.frame_shape != seen.frame_shape:
        close_noted(f"gym:{game}", envs.close)
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
MUJOCO_RUN = {  # of PPO's reference implementations since Schulman et al. 2017 (Huang et al. 2022, The 37 Implementation Details)
    "rl.minibatch": 64,
    "rl.micro_batch": 64,
    "rl.lr": 3e-4,
    "rl.gamma": 0.99,
    "rl.value_clip": False,
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
        suited={f"{name}-v{version}": MUJOCO_RUN for name in MUJOCO for version in (4, 5)},
        takes_kwargs=True,
        takes_layout=True,
        takes_wrappers=True,
    )
)
