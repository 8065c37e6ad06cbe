"""Wrappers of Gymnasium by a word (``frame_stack:4``), and of any package by their path (``minigrid.wrappers:ImgObsWrapper``).

They are put around an environment in the order in which they are given: the first one is the nearest to the environment. Those
with a word of their own leave an action mask in a dictionary of observations as it is.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cosearch.registry import Registry
from cosearch.space.parts import MASK
from latency_tables.errors import ConfigError, EnvironmentFailedError, MissingExtraError


@dataclass(frozen=True)
class WrapperEntry:
    """Registry record of a wrapper.

    Attributes:
        name, description: for lists.
        example: a value that stands behind the name and a colon; empty: the wrapper takes none.
        apply: (Gymnasium environment, value, layout of images or None) -> Gymnasium environment.
    """

    name: str
    description: str
    example: str
    apply: Callable[[Any, str, str | None], Any]


WRAPPERS: Registry[WrapperEntry] = Registry("wrapper", entry_point_group="cosearch.wrappers")


def wrapped(make: Callable[[], Any], wrappers: Sequence[str], layout: str | None, name: str) -> Callable[[], Any]:
    """The maker of an environment with wrappers around it.

    Args:
        make: () -> Gymnasium environment.
        wrappers: ``NAME``, ``NAME:VALUE`` or ``package.module:Class``, the nearest to the environment first.
        layout: of the environment's images, ``channels_last`` or ``channels_first``; None: nobody said.
        name: of the environment, for messages.

    Raises:
        UnknownNameError: there is no such wrapper.
        ConfigError: a value that a wrapper does not take.
    """
    steps = [_step(text, layout) for text in wrappers]

    def made() -> Any:
        env = make()
        for text, apply in zip(wrappers, steps, strict=True):
            try:
                env = apply(env)
            except ImportError as error:
                raise MissingExtraError(f"env.wrappers: {text} needs a package that is not installed: {error}") from error
            except Exception as error:  # whatever the code of a wrapper raises
                if type(error).__name__ == "DependencyNotInstalled":
                    raise MissingExtraError(f"env.wrappers: {text} needs a package that is not installed: {error}") from error
                raise ConfigError(
                    f"env.wrappers: {text} does not fit {name}, whose observations are then {env.observation_space} and actions "
                    f"{env.action_space}: {type(error).__name__}: {error}"
                ) from error
        return env

    return made


def _step(text: str, layout: str | None) -> Callable[[Any], Any]:
    name, colon, value = text.partition(":")
    if colon and "." in name:
        return _of_a_package(name, value, text)
    entry = WRAPPERS.get(name)
    if bool(entry.example) != bool(value):
        form = f"{name}:{entry.example}" if entry.example else name
        raise ConfigError(f"env.wrappers: expected {form}, got {text!r}: {entry.description}")
    return lambda env: entry.apply(env, value, layout)


def _of_a_package(module: str, name: str, text: str) -> Callable[[Any], Any]:
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise MissingExtraError(f"env.wrappers: {text} cannot be imported: {error}") from error
    if not callable(found):
        raise ConfigError(f"env.wrappers: module {module!r} has no wrapper {name!r}")
    wrapper: Callable[[Any], Any] = found
    return wrapper


def _whole(name: str, value: str) -> int:
    if not value.isdecimal() or not 1 <= int(value) <= 10**9:
        raise ConfigError(f"env.wrappers: {name} takes a whole number from 1, got {value!r}")
    return int(value)


def _grey_scale(env: Any, value: str, layout: str | None) -> Any:
    from gymnasium.wrappers import GrayscaleObservation

    if layout == "channels_first":
        raise EnvironmentFailedError("it takes images with their channels last")
    return GrayscaleObservation(env)


def _resize(env: Any, value: str, layout: str | None) -> Any:
    from gymnasium.wrappers import ResizeObservation

    height, by, width = value.partition("x")
    if not by:
        raise ConfigError(f"env.wrappers: resize takes HEIGHTxWIDTH, got {value!r}")
    return ResizeObservation(env, (_whole("resize", height), _whole("resize", width)))


def _frame_stack(env: Any, value: str, layout: str | None) -> Any:
    from gymnasium import spaces
    from gymnasium.wrappers import FrameStackObservation, TransformObservation

    count = _whole("frame_stack", value)
    if count < 2:
        raise ConfigError(f"env.wrappers: frame_stack takes a whole number from 2, got {value!r}")
    stacked = FrameStackObservation(env, count)

    def space_of(space: Any) -> Any:
        if isinstance(space, spaces.Dict):
            flattened = {key: space_of(part) for key, part in space.items() if key != MASK}
            return spaces.Dict(flattened | ({MASK: env.observation_space[MASK]} if _has_mask(env) else {}))
        low, high = flat(space.low), flat(space.high)
        return spaces.Box(low, high, dtype=space.dtype)

    def flat(observation: Any) -> Any:
        if isinstance(observation, dict):
            return {key: part[-1] if key == MASK else flat(part) for key, part in observation.items()}
        return _in_a_row(np.asarray(observation), layout)

    return TransformObservation(stacked, flat, space_of(stacked.observation_space))


def _in_a_row(stack: np.ndarray, layout: str | None) -> np.ndarray:
    """``[times, ...]`` -> vectors and channels one time after the other: ``[times * features]``, ``[h, w, times * channels]``."""
    if stack.ndim == 3 and layout != "channels_first":  # grey images
        return np.moveaxis(stack, 0, -1)
    if stack.ndim == 4 and layout != "channels_first":
        return np.moveaxis(stack, 0, 2).reshape(*stack.shape[1:3], -1)
    return stack if stack.ndim == 3 else stack.reshape(-1, *stack.shape[2:])


def _time_limit(env: Any, value: str, layout: str | None) -> Any:
    from gymnasium.wrappers import TimeLimit

    return TimeLimit(env, _whole("time_limit", value))


def _reward_scale(env: Any, value: str, layout: str | None) -> Any:
    from gymnasium.wrappers import TransformReward

    try:
        factor = float(value)
    except ValueError:
        factor = 0.0
    if not np.isfinite(factor) or factor == 0.0:
        raise ConfigError(f"env.wrappers: reward_scale takes a number other than 0, got {value!r}")
    return TransformReward(env, lambda reward: float(reward) * factor)


def _flatten(env: Any, value: str, layout: str | None) -> Any:
    from gymnasium import spaces
    from gymnasium.wrappers import FlattenObservation, TransformObservation

    if not _has_mask(env):
        return FlattenObservation(env)
    others = spaces.Dict({key: part for key, part in env.observation_space.items() if key != MASK})

    def flat(observation: Any) -> dict[str, Any]:
        return {"observations": spaces.flatten(others, observation), MASK: observation[MASK]}

    declared = {"observations": spaces.flatten_space(others), MASK: env.observation_space[MASK]}
    return TransformObservation(env, flat, spaces.Dict(declared))


def _keep(env: Any, value: str, layout: str | None) -> Any:
    from gymnasium.wrappers import FilterObservation

    names = value.split(",")
    return FilterObservation(env, [*names, MASK] if _has_mask(env) and MASK not in names else names)


def _has_mask(env: Any) -> bool:
    space = env.observation_space
    return type(space).__name__ == "Dict" and MASK in space.spaces


for _entry in (
    WrapperEntry("frame_stack", "the last so many observations as one, along the channels or features", "4", _frame_stack),
    WrapperEntry("grey_scale", "images without colour", "", _grey_scale),
    WrapperEntry("resize", "images of another height and width (needs opencv-python)", "84x84", _resize),
    WrapperEntry("time_limit", "an episode is cut after so many steps", "1000", _time_limit),
    WrapperEntry("reward_scale", "rewards times a number, also in scores", "0.1", _reward_scale),
    WrapperEntry("flatten", "any observation as one vector", "", _flatten),
    WrapperEntry("keep", "these parts of a dictionary of observations alone", "image,direction", _keep),
):
    WRAPPERS.register(_entry)
