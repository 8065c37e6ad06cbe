"""Vector environments behind one interface: Procgen, MinAtar, ALE and any Gymnasium id.

Frames stay uint8 ``[num_envs, height, width, channels]``. An episode that ends resets in the same step; a time limit is
reported apart from a termination, with the last frame, so that the learner can bootstrap (never for Procgen, whose engine
does not tell the two apart: there every end counts as a termination).
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from cosearch.registry import Registry
from latency_tables.errors import CosearchError, EnvironmentFailedError, UnknownNameError


@dataclass(frozen=True)
class Step:
    """What one step of all environments returned.

    Attributes:
        frames: ``[num_envs, height, width, channels]``, uint8; of the next episode where one ended.
        reward: ``[num_envs]``, float32.
        terminated: ``[num_envs]``, bool: the episode ended, nothing follows.
        truncated: ``[num_envs]``, bool: a time limit cut the episode; its value must be bootstrapped.
        last_frames: env index -> the last frame of a truncated episode.
    """

    frames: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    last_frames: dict[int, np.ndarray]


class VectorEnv(Protocol):
    """What the collector needs of an environment."""

    num_envs: int
    frame_shape: tuple[int, int, int]
    num_actions: int
    exact_resume: bool

    def observe(self) -> np.ndarray:
        """The current frames ``[num_envs, height, width, channels]``, uint8."""

    def send(self, actions: np.ndarray) -> None:
        """Start a step with ``actions`` ``[num_envs]``, int; the caller may compute meanwhile."""

    def receive(self) -> Step:
        """The result of the step that :meth:`send` started."""

    def state(self) -> dict[str, Any]:
        """Everything needed to go on exactly here: tensors and plain values only."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a :meth:`state`."""

    def close(self) -> None:
        """Release processes and memory."""


@dataclass(frozen=True)
class EnvOptions:
    """How a vector environment is made.

    Attributes:
        num_envs: environments stepped together.
        seed: 31-bit seed.
        threads: threads of the environment's own stepping, where it has them.
        train_levels: number of training levels (Procgen); the test levels begin after them.
        test: the held-out test levels instead of the training levels.
    """

    num_envs: int
    seed: int
    threads: int = 1
    train_levels: int = 100_000
    test: bool = False


@dataclass(frozen=True)
class EnvFamily:
    """Registry record of a family of environments, the part of the name before the colon.

    Attributes:
        name, description: for lists.
        games: known names of the family (examples where the family is open).
        make: (game, options) -> vector environment.
        is_open: other names than ``games`` are passed on to the family.
        teacher: what `cosearch teacher` does otherwise than on Procgen: configuration values by dotted key, and ``network``.
    """

    name: str
    description: str
    games: tuple[str, ...]
    make: Callable[[str, EnvOptions], VectorEnv]
    is_open: bool = False
    teacher: Mapping[str, Any] = field(default_factory=dict, hash=False)


ENVIRONMENTS: Registry[EnvFamily] = Registry("environment", entry_point_group="cosearch.environments")


def split_name(name: str) -> tuple[EnvFamily, str]:
    """Family and game of a name such as ``procgen:starpilot``.

    Raises:
        UnknownNameError: no such family, or no such game in it; the message suggests the nearest.
    """
    family_name, colon, game = name.partition(":")
    if not colon:
        raise UnknownNameError(f"unknown environment {name!r}: expected FAMILY:GAME such as 'procgen:starpilot'. "
                               "`cosearch list envs` shows all")
    family = ENVIRONMENTS.get(family_name)
    if game not in family.games and not family.is_open:
        import difflib

        near = difflib.get_close_matches(game, family.games, n=1)
        hint = f" Did you mean '{family_name}:{near[0]}'?" if near else ""
        raise UnknownNameError(f"unknown environment {name!r}: {family_name} has no game {game!r}.{hint} "
                               "`cosearch list envs` shows all")
    return family, game


def make_env(name: str, options: EnvOptions) -> VectorEnv:
    """Make and check a vector environment.

    Args:
        name: ``FAMILY:GAME``.
        options: number, seed, levels.

    Raises:
        UnknownNameError: no such environment.
        MissingExtraError: its package is not installed.
        EnvironmentFailedError: it does not keep its own contract.
    """
    family, game = split_name(name)
    return CheckedEnv(_guarded(name, lambda: family.make(game, options)), name)


def _guarded(name: str, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except CosearchError:
        raise
    except Exception as error:  # whatever the code of an environment raises
        raise EnvironmentFailedError(f"{name} failed: {type(error).__name__}: {error}") from error


class CheckedEnv:
    """Holds an environment to its contract at every step, so that a broken one cannot poison a run.

    Args:
        env: the environment.
        name: for messages.
    """

    def __init__(self, env: VectorEnv, name: str) -> None:
        self.env, self.name = env, name
        self.num_envs, self.frame_shape, self.num_actions = env.num_envs, env.frame_shape, env.num_actions
        self.exact_resume = env.exact_resume

    def _check(self, what: str, array: np.ndarray, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != dtype:
            got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise EnvironmentFailedError(f"{self.name} returned {what} as {got}, expected {np.dtype(dtype)} {shape}")
        return array

    def observe(self) -> np.ndarray:
        """See :class:`VectorEnv`."""
        return self._check("frames", self._call(self.env.observe), (self.num_envs, *self.frame_shape), np.uint8)

    def send(self, actions: np.ndarray) -> None:
        """See :class:`VectorEnv`."""
        self._call(lambda: self.env.send(actions))

    def receive(self) -> Step:
        """See :class:`VectorEnv`.

        Raises:
            EnvironmentFailedError: the environment died, or returned a wrong shape, dtype or a reward that is not finite.
        """
        step = self._call(self.env.receive)
        n = (self.num_envs,)
        self._check("frames", step.frames, (*n, *self.frame_shape), np.uint8)
        self._check("reward", step.reward, n, np.float32)
        self._check("terminated", step.terminated, n, np.bool_)
        self._check("truncated", step.truncated, n, np.bool_)
        cut = set(np.flatnonzero(step.truncated).tolist())
        if set(step.last_frames) != cut:
            raise EnvironmentFailedError(f"{self.name} truncated the episodes of {sorted(cut)} but handed over last frames of "
                                         f"{sorted(step.last_frames)}: a truncated episode needs its last frame")
        for frame in step.last_frames.values():
            self._check("a last frame", frame, self.frame_shape, np.uint8)
        if not np.isfinite(step.reward).all():
            raise EnvironmentFailedError(f"{self.name} returned a reward that is not finite: {step.reward}")
        return step

    def _call(self, function: Callable[[], Any]) -> Any:
        return _guarded(self.name, function)

    def state(self) -> dict[str, Any]:
        """See :class:`VectorEnv`."""
        return self._call(self.env.state)

    def restore(self, state: dict[str, Any]) -> None:
        """See :class:`VectorEnv`."""
        self._call(lambda: self.env.restore(state))

    def close(self) -> None:
        """See :class:`VectorEnv`."""
        self.env.close()
