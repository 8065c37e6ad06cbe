"""Observations of several parts: images, vectors and an action mask, packed into one frame of bytes.

What carries frames (rollouts, replays, checkpoints, environments in a process of their own) carries such a frame as any other:
uint8 ``[1, bytes]``, the parts one after the other. The network takes it apart, and the exported file has an input for each part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from latency_tables.errors import ShapeError

KINDS = ("image", "vector", "mask")
DTYPES = {"image": "uint8", "vector": "float32", "mask": "uint8"}
MASK = "action_mask"


@dataclass(frozen=True)
class Part:
    """One part of an observation.

    Attributes:
        name: of the input of the exported file; of a mask ``action_mask``.
        kind: ``image`` (uint8), ``vector`` (float32) or ``mask`` (uint8, not 0 for an action that is allowed).
        shape: ``(height, width, channels)``, ``(features,)``, or ``(outputs,)`` with one entry for each logit.
        layout: of an image as the environment gives it, ``channels_last`` or ``channels_first``; in a frame they are last.
        low, high: bounds of an image that the environment gives as floats; in a frame they are 0 and 255. None: it gives bytes.

    Raises:
        ShapeError: no such kind, or a shape of another one.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    layout: str = "channels_last"
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        dimensions = 3 if self.kind == "image" else 1
        if self.kind not in KINDS or len(self.shape) != dimensions or min(self.shape) < 1:
            raise ShapeError(
                f"part {self.name!r} of an observation must be an image (height, width, channels), a vector or mask (size,), got "
                f"{self.kind!r} {self.shape}"
            )

    @property
    def dtype(self) -> str:
        """Of its values."""
        return DTYPES[self.kind]

    @property
    def bytes(self) -> int:
        """In a frame."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Bounds of an image of floats; None for all other parts."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def given_dtype(self) -> str:
        """Of its values as the environment gives them."""
        return self.dtype if self.bounds is None else "float32"

    @property
    def given_shape(self) -> tuple[int, ...]:
        """Shape as the environment gives it."""
        return (self.shape[2], *self.shape[:2]) if self.layout == "channels_first" else self.shape

    def taken(self, values: np.ndarray) -> np.ndarray:
        """Values ``[..., *given_shape]`` as the environment gives them -> ``[..., *shape]`` as they are in a frame."""
        if self.layout == "channels_first":
            values = np.moveaxis(values, -3, -1)
        if self.bounds is None:
            return np.ascontiguousarray(values, np.dtype(self.dtype))
        low, high = self.bounds
        steps = np.rint((values.astype(np.float32) - np.float32(low)) * np.float32(255.0 / (high - low)))
        return np.ascontiguousarray(np.clip(steps, 0, 255), np.uint8)

    def given(self, values: np.ndarray) -> np.ndarray:
        """Values ``[..., *shape]`` of a frame -> ``[..., *given_shape]`` as the environment could have given them."""
        if self.bounds is not None:
            low, high = self.bounds
            values = (values * ((high - low) / 255.0) + low).astype(np.float32)
        return np.ascontiguousarray(np.moveaxis(values, -1, -3) if self.layout == "channels_first" else values)

    def to_dict(self) -> dict[str, object]:
        """Plain JSON; :func:`parts_from` reads a list of them back."""
        how: dict[str, object] = {} if self.layout == "channels_last" else {"layout": self.layout}
        if self.bounds is not None:
            how |= {"low": self.low, "high": self.high}
        return {"name": self.name, "kind": self.kind, "shape": list(self.shape), **how}


def parts_from(values: object) -> tuple[Part, ...]:
    """The parts in a list of plain JSON objects.

    Raises:
        ShapeError: it is no such list.
    """
    found = []
    for entry in values if isinstance(values, list) else [values]:
        if not isinstance(entry, dict):
            raise ShapeError(f"a part of an observation needs name, kind and shape, got {str(entry)[:80]}")
        name, kind, shape = entry.get("name"), entry.get("kind"), entry.get("shape")
        if not isinstance(name, str) or not isinstance(kind, str) or not isinstance(shape, (list, tuple)):
            raise ShapeError(f"a part of an observation needs name, kind and shape, got {str(entry)[:80]}")
        if not all(type(side) is int and 1 <= side <= 2**20 for side in shape):
            raise ShapeError(f"the shape of part {name[:40]!r} must be whole numbers from 1, got {str(shape)[:80]}")
        layout, low, high = entry.get("layout", "channels_last"), entry.get("low"), entry.get("high")
        numbers = [type(bound) in (int, float) for bound in (low, high) if bound is not None]
        if layout not in ("channels_last", "channels_first") or not all(numbers) or len(numbers) == 1:
            raise ShapeError(f"part {name[:40]!r} of an observation has an unknown layout or bounds, got {str(entry)[:80]}")
        found.append(Part(name, kind, tuple(shape), layout, low, high))
    return tuple(found)


def frame_shape_of(parts: Sequence[Part]) -> tuple[int, int]:
    """``(1, bytes)`` of a frame of these parts."""
    return 1, sum(part.bytes for part in parts)


def encoded(parts: Sequence[Part]) -> tuple[tuple[Part, ...], ...]:
    """What each encoder of a network reads: every image alone, then all vectors together; no encoder reads the mask."""
    images = [(part,) for part in parts if part.kind == "image"]
    vectors = tuple(part for part in parts if part.kind == "vector")
    return (*images, vectors) if vectors else tuple(images)


def single_shape(frame_shape: tuple[int, ...], parts: Sequence[Part]) -> tuple[int, ...] | None:
    """What the one encoder of a network reads: ``(height, width, channels)`` or ``(features,)``; None where there are several.

    Args:
        frame_shape: of whole frames.
        parts: of a frame; empty: it is an image or a vector itself.
    """
    if not parts:
        return frame_shape
    groups = encoded(parts)
    if len(groups) != 1:
        return None
    (group,) = groups
    return group[0].shape if group[0].kind == "image" else (sum(part.shape[0] for part in group),)


def can_be_shown(frame_shape: tuple[int, ...], parts: Sequence[Part] = ()) -> bool:
    """Whether observations are pictures: height, width and channels, not a vector; of several parts the first image counts.

    Args:
        frame_shape: of whole frames.
        parts: of a frame; empty: it is an image or a vector itself.
    """
    shape = next((part.shape for part in parts if part.kind == "image"), () if parts else frame_shape)
    return len(shape) == 3 and min(shape[:2]) > 1


def pack(parts: Sequence[Part], values: Mapping[str, np.ndarray]) -> np.ndarray:
    """One frame, or a batch of frames.

    Args:
        parts: of a frame.
        values: by name of a part, ``[*shape]`` or ``[batch, *shape]``.

    Returns:
        ``[1, bytes]`` or ``[batch, 1, bytes]``, uint8.

    Raises:
        ShapeError: a part is missing, or has another shape.
    """
    rows = []
    for part in parts:
        value = values.get(part.name)
        if value is None or value.shape[-len(part.shape) :] != part.shape:
            got = "nothing" if value is None else str(value.shape)
            raise ShapeError(f"part {part.name!r} of an observation has the shape {part.shape}, got {got}")
        plain = np.ascontiguousarray(value, np.dtype(part.dtype))
        leading = plain.shape[: plain.ndim - len(part.shape)]
        rows.append(plain.reshape(*leading, -1).view(np.uint8))
    return np.concatenate(rows, -1)[..., None, :]


def unpack(parts: Sequence[Part], frames: np.ndarray) -> dict[str, np.ndarray]:
    """The parts of frames ``[..., 1, bytes]`` by name, ``[..., *shape]``."""
    found, begin = {}, 0
    for part in parts:
        rows = np.ascontiguousarray(frames[..., 0, begin : begin + part.bytes])
        found[part.name] = rows.view(np.dtype(part.dtype)).reshape(*frames.shape[:-2], *part.shape)
        begin += part.bytes
    return found
