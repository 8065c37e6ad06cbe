"""What a Gymnasium observation space becomes: a frame, which is a uint8 image or a float32 vector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from latency_tables.errors import ConfigError, EnvironmentFailedError


@dataclass(frozen=True)
class Seen:
    """How observations become frames.

    Attributes:
        frame_shape: ``(height, width, channels)`` of an image, ``(features,)`` of a vector.
        to_frame: observation -> frame.
        doubt: observation -> how it differs from what is declared, in words; empty where it does not.
    """

    frame_shape: tuple[int, ...]
    to_frame: Callable[[Any], np.ndarray]
    doubt: Callable[[Any], str] = lambda observation: ""


def seen_as(space: Any, layout: str | None, name: str) -> Seen:
    """How the observations of a space become frames.

    Args:
        space: Gymnasium's.
        layout: of images, ``channels_last`` or ``channels_first``; None: nobody said.
        name: of the environment, for messages.

    Raises:
        ConfigError: no agent can have such observations, or an image may have its channels first and nobody said so.
    """
    dimensions = len(getattr(space, "shape", None) or ())
    if dimensions and 0 in space.shape:
        raise ConfigError(f"{name} has observations of the shape {space.shape}: there is nothing to learn from")
    if getattr(space, "dtype", None) == np.uint8 and dimensions in (2, 3):
        _check_brightness(space, name)
        declared = (*space.shape, 1) if dimensions == 2 else tuple(space.shape)
        if dimensions == 3 and _layout_of(declared, layout, name) == "channels_first":
            return Seen((*declared[1:], declared[0]), _channels_last, partial(_doubt, space))
        return Seen(declared, _image, partial(_doubt, space))
    if type(space).__name__ == "Box" and dimensions == 1:
        return Seen(tuple(space.shape), _vector, partial(_doubt, space))
    raise ConfigError(
        f"{name} has observations {space}, expected uint8 images [height, width, channels] or a Box of one dimension; "
        "env.wrappers=[flatten] makes a vector of any, and a wrapper of yours (env.wrappers=[package.module:Class]) what you like"
    )


def _doubt(space: Any, observation: object) -> str:
    array = np.asarray(observation)
    if array.dtype != space.dtype:
        return f"an observation is {array.dtype}, its space declares {space.dtype}"
    outside = (array < space.low) | (array > space.high) if array.shape == space.shape else np.zeros(1, np.bool_)
    if not outside.any():
        return ""
    i = int(outside.argmax())
    return (
        f"component {i} of an observation is {array.ravel()[i]:g}, outside of the declared bounds "
        f"{space.low.ravel()[i]:g} and {space.high.ravel()[i]:g}"
    )


def _image(observation: object) -> np.ndarray:
    array = np.asarray(observation)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.dtype != np.uint8:
        raise EnvironmentFailedError(f"expected uint8 images [height, width, channels], got {array.dtype} {array.shape}")
    return array


def _channels_last(observation: object) -> np.ndarray:
    """An image with its channels first, as one with its channels last."""
    return np.ascontiguousarray(np.moveaxis(_image(observation), 0, -1))


def _vector(observation: object) -> np.ndarray:
    return np.array(observation, dtype=np.float32)


def _layout_of(shape: tuple[int, ...], said: str | None, name: str) -> str:
    """The order of an image's dimensions, of three; no shape is guessed that looks like channels first.

    Raises:
        ConfigError: the first dimension is the smallest, and nobody said whether that is the height or the channels.
    """
    if said is None and shape[0] < min(shape[1:]):
        raise ConfigError(
            f"{name} has images of the shape {shape}: {shape[0]} channels first, or a height of {shape[0]}? Say "
            "env.layout=channels_first or env.layout=channels_last"
        )
    return said or "channels_last"


def _check_brightness(space: Any, name: str) -> None:
    """Raise where an image space ends far below 255, by which networks here divide: its agent would see almost nothing.

    Raises:
        ConfigError: the largest value that the space declares is below a quarter of 255.
    """
    brightest = int(np.max(space.high))
    if brightest < 64:
        raise ConfigError(
            f"{name} declares images of 0 to {brightest}, and images are divided by 255 here: they would be nearly black. "
            f"Register a wrapper of yours that multiplies them by {255 // max(brightest, 1)}"
        )
