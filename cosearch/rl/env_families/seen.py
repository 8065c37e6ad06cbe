"""What a Gymnasium observation space becomes: a frame, which is a uint8 image, a float32 vector, or several parts packed.

An image of floats with bounds becomes bytes, 0 at the lower bound and 255 at the upper one; the bundle of the exported agent does
the same inside its file. Of a dictionary each entry is a part: an image, a vector of any dtype, or a number of a fixed set, as a
vector with a 1 in its place. An entry ``action_mask``, or a mask beside the observation, is the part ``action_mask``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cosearch.space.parts import MASK, Part, frame_shape_of, pack
from latency_tables.errors import ConfigError, EnvironmentFailedError

Reader = Callable[[Any], np.ndarray]


@dataclass(frozen=True)
class Seen:
    """How observations become frames.

    Attributes:
        frame_shape: ``(height, width, channels)`` of an image, ``(features,)`` of a vector, ``(1, bytes)`` of parts.
        to_frame: observation, or a pair of observation and mask where there is one -> frame.
        doubt: observation -> how it differs from what is declared, in words; empty where it does not.
        parts: of a frame; empty: it is an image or a vector itself.
    """

    frame_shape: tuple[int, ...]
    to_frame: Callable[[Any], np.ndarray]
    doubt: Callable[[Any], str] = lambda observation: ""
    parts: tuple[Part, ...] = ()


def seen_as(space: Any, layout: str | None, name: str, mask: int = 0) -> Seen:
    """How the observations of a space become frames.

    Args:
        space: Gymnasium's.
        layout: of images, ``channels_last`` or ``channels_first``; None: nobody said.
        name: of the environment, for messages.
        mask: length of an action mask that comes beside each observation; 0: none does.

    Raises:
        ConfigError: no agent can have such observations, or an image may have its channels first and nobody said so.
    """
    if type(space).__name__ == "Dict":
        return _of_dictionary(space, layout, name, mask)
    part, read = _part(space, layout, name, "")
    doubt = partial(_doubt, space)
    if part.bounds is None and not mask:
        return Seen(part.shape, read, doubt)
    if not mask:
        return Seen(frame_shape_of((part,)), lambda o: pack((part,), {part.name: read(o)}), doubt, (part,))
    parts = (part, Part(MASK, "mask", (mask,)))
    return Seen(frame_shape_of(parts), lambda o: pack(parts, {part.name: read(o[0]), MASK: o[1]}), doubt, parts)


def _of_dictionary(space: Any, layout: str | None, name: str, mask: int) -> Seen:
    readers: list[tuple[str, Part, Reader]] = []
    for key, inner in space.items():
        if key == MASK:
            if mask:
                raise ConfigError(f"{name} gives an action mask twice: in its observations, and beside them")
            size = int(np.prod(inner.shape))
            readers.append((key, Part(MASK, "mask", (size,)), partial(as_mask, size)))
            continue
        readers.append((key, *_part(inner, layout, name, str(key))))
    parts = tuple(part for _, part, _ in readers) + ((Part(MASK, "mask", (mask,)),) if mask else ())
    if len({part.name for part in parts}) < len(parts) or not any(part.kind != "mask" for part in parts):
        raise ConfigError(f"{name} has observations {space}: their names must differ in letters and digits, and one must be seen")

    def to_frame(observation: Any) -> np.ndarray:
        values, allowed = observation if mask else (observation, None)
        missing = [key for key, _, _ in readers if key not in values]
        if missing:
            raise EnvironmentFailedError(f"{name} returned an observation without {', '.join(missing)}")
        found = {part.name: read(values[key]) for key, part, read in readers}
        return pack(parts, found if allowed is None else {**found, MASK: allowed})

    def doubt(observation: Any) -> str:
        boxes = ((key, inner) for key, inner in space.items() if type(inner).__name__ == "Box")
        found = ((key, _doubt(inner, observation[key])) for key, inner in boxes if key in observation)
        return next((f"{key}: {text}" for key, text in found if text), "")

    return Seen(frame_shape_of(parts), to_frame, doubt, parts)


def _part(space: Any, layout: str | None, name: str, key: str) -> tuple[Part, Reader]:
    """The part that a space is, and how a value of it is read: ``[*part.shape]``."""
    kind, shape = type(space).__name__, tuple(getattr(space, "shape", None) or ())
    where = f"{name}: {key}" if key else name
    if shape and 0 in shape:
        raise ConfigError(f"{where} has observations of the shape {shape}: there is nothing to learn from")
    word = re.sub(r"\W", "_", key)
    if kind == "Box" and len(shape) in (2, 3) and (space.dtype == np.uint8 or _is_bounded(space)):
        declared = (*shape, 1) if len(shape) == 2 else shape
        first = len(shape) == 3 and _layout_of(declared, layout, where) == "channels_first"
        size = (*declared[1:], declared[0]) if first else declared
        order = "channels_first" if first else "channels_last"
        if space.dtype == np.uint8:
            _check_brightness(space, where)
            return Part(word or "frames", "image", size, order), _channels_last if first else _image
        part = Part(word or "frames", "image", size, order, float(space.low.min()), float(space.high.max()))
        return part, partial(_of_floats, part, declared, where)
    if (kind == "Box" and len(shape) == 1) or (kind == "MultiBinary" and len(shape) == 1):
        return Part(word or "observations", "vector", shape), _vector
    if key and kind == "Box" and not shape:
        return Part(word, "vector", (1,)), lambda value: _vector(np.reshape(value, (1,)))
    if key and kind == "Discrete":
        return Part(word, "vector", (int(space.n),)), partial(_one_of, (int(space.n),), int(space.start))
    if key and kind == "MultiDiscrete" and len(shape) == 1:
        sizes = tuple(int(n) for n in space.nvec)
        return Part(word, "vector", (sum(sizes),)), partial(_one_of, sizes, space.start)
    advice = (
        f"env.wrappers='[\"keep:NAME,...\"]' leaves {key!r} out"
        if key
        else "env.wrappers=[flatten] makes a vector of any, and a wrapper of yours (package.module:Class) what you like"
    )
    raise ConfigError(
        f"{where} has observations {space}, expected uint8 images [height, width, channels], images of floats with bounds, or a "
        f"Box of one dimension; {advice}"
    )


def _is_bounded(space: Any) -> bool:
    low, high = float(np.min(space.low)), float(np.max(space.high))
    return bool(np.issubdtype(space.dtype, np.floating) and np.isfinite([low, high]).all() and low < high < 1e30 and low > -1e30)


def as_mask(size: int, given: Any) -> np.ndarray:
    """An action mask as an environment gives it, flat or one array for each factor -> ``[size]``, uint8.

    Args:
        size: number of all actions.
        given: an array, or a sequence of arrays.

    Raises:
        EnvironmentFailedError: it has another size, or is no array of numbers.
    """
    try:
        flat = np.concatenate([np.ravel(row) for row in given]) if isinstance(given, (tuple, list)) else np.ravel(given)
    except (ValueError, TypeError):
        flat = np.zeros(0, np.object_)
    if flat.dtype.kind not in "biuf" or flat.size != size:
        raise EnvironmentFailedError(
            f"its action mask has {flat.size} entries of {flat.dtype}, expected {size}, one for each action"
        )
    return (flat > 0).astype(np.uint8)


def _one_of(sizes: Sequence[int], start: Any, value: Any) -> np.ndarray:
    """A number of a fixed set, or several, as vectors with a 1 in their place."""
    rows, numbers = [], np.ravel(np.asarray(value) - np.asarray(start))
    for size, number in zip(sizes, numbers, strict=True):
        if not 0 <= number < size:
            raise EnvironmentFailedError(f"an observation is {number} where it declares 0 to {size - 1}")
        rows.append(np.eye(size, dtype=np.float32)[int(number)])
    return np.concatenate(rows)


def _doubt(space: Any, observation: object) -> str:
    array = np.asarray(observation)
    if array.dtype != space.dtype:
        return f"an observation is {array.dtype}, its space declares {space.dtype}"
    if type(space).__name__ != "Box" or array.shape != space.shape:
        return ""
    outside = (array < space.low) | (array > space.high)
    if not outside.any():
        return ""
    i = int(outside.argmax())
    return (
        f"component {i} of an observation is {array.ravel()[i]:g}, outside of the declared bounds "
        f"{space.low.ravel()[i]:g} and {space.high.ravel()[i]:g}"
    )


def _of_floats(part: Part, declared: tuple[int, ...], name: str, observation: object) -> np.ndarray:
    """An image of floats as bytes, channels last."""
    array = np.asarray(observation, np.float32)
    if array.shape not in (declared, declared[:2]):
        raise EnvironmentFailedError(f"{name} declares observations of the shape {declared}, but gives {array.shape}")
    if not np.isfinite(array).all():
        raise EnvironmentFailedError(f"{name} returned an image that is not finite")
    return part.taken(array.reshape(declared))


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
