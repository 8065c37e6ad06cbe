"""Vector environments behind one interface: Procgen, MinAtar, ALE, quantum circuits and any Gymnasium id.

An observation is an image or a vector, called a frame in both cases: uint8 ``[num_envs, height, width, channels]`` or float32
``[num_envs, features]``; or it has several parts, packed into a frame of bytes, uint8 ``[num_envs, 1, bytes]``
(:mod:`cosearch.space.parts`). The number of dimensions of ``frame_shape`` tells which. An episode that ends resets in the same
step; a time limit is reported apart from a termination, with the last frame, so that the learner can bootstrap (never for
Procgen, whose engine does not tell the two apart: there every end counts as a termination).
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from cosearch.record.state import State
from cosearch.registry import Registry
from cosearch.rl.action_box import Box as Box
from cosearch.space.parts import MASK, Part, frame_shape_of, unpack
from latency_tables.errors import CosearchError, EnvironmentFailedError, ShapeError, UnknownNameError, plain

Got = TypeVar("Got")
_log = logging.getLogger(__name__)


def frame_dtype(frame_shape: tuple[int, ...]) -> np.dtype:
    """uint8 for images ``(height, width, channels)`` and packed parts ``(1, bytes)``, float32 for vectors ``(features,)``.

    Raises:
        ShapeError: neither.
    """
    if len(frame_shape) not in (1, 2, 3) or (len(frame_shape) == 2 and frame_shape[0] != 1):
        raise ShapeError(
            "observations must be images (height, width, channels), vectors (features,) or packed parts (1, bytes), got shape "
            f"{frame_shape}"
        )
    return np.dtype(np.float32 if len(frame_shape) == 1 else np.uint8)


@dataclass(frozen=True)
class Step:
    """What one step of all environments returned.

    Attributes:
        frames: ``[num_envs, *frame_shape]``, uint8 images or float32 vectors; of the next episode where one ended.
        reward: ``[num_envs]``, float32.
        terminated: ``[num_envs]``, bool: the episode ended, nothing follows.
        truncated: ``[num_envs]``, bool: a time limit cut the episode; its value must be bootstrapped.
        last_frames: env index -> the last frame of a truncated episode.
        success: env index -> whether the episode that ended succeeded; without those of which the environment does not say it.
    """

    frames: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    last_frames: dict[int, np.ndarray]
    success: dict[int, bool] = field(default_factory=dict)


class VectorEnv(Protocol):
    """What the collector needs of an environment.

    One that numbers its discrete actions from another number than 0 says so in ``first_action``, for the exported agent; it takes
    them from 0 all the same. One that has names for its actions, or for the components of an action vector, gives them in
    ``action_names``. One whose frames have parts lists them in ``parts``; one whose actions are vectors of whole numbers gives
    in ``action_sizes`` how many values each has, and ``num_actions`` is their sum. ``doubts`` are sentences on what is not as it
    declares, ``endless`` says that it has no time limit. ``solved_at`` is the mean return that counts as solved, where its author
    named one.
    """

    @property
    def num_envs(self) -> int:
        """Environments stepped together."""

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """``(height, width, channels)`` of images, or ``(features,)`` of vectors."""

    @property
    def num_actions(self) -> int:
        """How many discrete actions (of several factors all together), or how long an action vector."""

    @property
    def action_box(self) -> Box | None:
        """Bounds of action vectors; None for discrete actions, and then it may be left out."""

    @property
    def exact_resume(self) -> bool:
        """Whether a restored state goes on exactly as the original would have."""

    def observe(self) -> np.ndarray:
        """The current frames ``[num_envs, *frame_shape]``, uint8 images or float32 vectors."""

    def send(self, actions: np.ndarray) -> None:
        """Start a step; the caller may compute meanwhile.

        Args:
            actions: ``[num_envs]``, int, ``[num_envs, factors]``, int, where there are ``action_sizes``, or
                ``[num_envs, num_actions]``, float32, in the box (``make_env`` puts them there).
        """

    def receive(self) -> Step:
        """The result of the step that :meth:`send` started."""

    def state(self) -> State:
        """Everything needed to go on exactly here: tensors and plain values only."""

    def restore(self, state: State) -> Sequence[int] | None:
        """Go back to a :meth:`state`.

        Returns:
            The environments whose episode could not be continued and begins anew; None: none where ``exact_resume``, else all.
        """

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
        kwargs: what an environment is made with beside its name, where its family takes such values.
        layout: of images, ``channels_last`` or ``channels_first``; None: nobody said.
        first_level: the first of the training levels.
        wrappers: names of the wrappers around each environment, the nearest first.
    """

    num_envs: int
    seed: int
    threads: int = 1
    train_levels: int = 100_000
    test: bool = False
    kwargs: Mapping[str, object] = field(default_factory=dict, hash=False)
    layout: str | None = None
    first_level: int = 0
    wrappers: tuple[str, ...] = ()


@dataclass(frozen=True)
class EnvFamily:
    """Registry record of a family of environments, the part of the name before the colon.

    Attributes:
        name, description: for lists.
        games: known names of the family (examples where the family is open).
        make: (game, options) -> vector environment.
        is_open: other names than ``games`` are passed on to the family.
        teacher: what `cosearch teacher` does otherwise than on Procgen: configuration values by dotted key, and ``network``.
        run: what suits a search on its games better than the defaults: configuration values by dotted key.
        suited: for games that need other values than the family's: these, by dotted key, for searches and teachers.
        has_levels: ``EnvOptions.train_levels`` counts the levels that its games are trained on.
        takes_kwargs: its games are made with ``EnvOptions.kwargs``.
        takes_layout: its images may have the channels first, as ``EnvOptions.layout`` says.
        takes_wrappers: its games are wrapped as ``EnvOptions.wrappers`` says.
    """

    name: str
    description: str
    games: tuple[str, ...]
    make: Callable[[str, EnvOptions], VectorEnv]
    is_open: bool = False
    teacher: Mapping[str, object] = field(default_factory=dict, hash=False)
    run: Mapping[str, object] = field(default_factory=dict, hash=False)
    suited: Mapping[str, Mapping[str, object]] = field(default_factory=dict, hash=False)
    has_levels: bool = False
    takes_kwargs: bool = False
    takes_layout: bool = False
    takes_wrappers: bool = False


ENVIRONMENTS: Registry[EnvFamily] = Registry("environment", entry_point_group="cosearch.environments", plural="envs")


def split_name(name: str) -> tuple[EnvFamily, str]:
    """Family and game of a name such as ``procgen:starpilot``; ``package.module:function`` is a game of the family ``gym``.

    Raises:
        UnknownNameError: no such family, or no such game in it; the message suggests the nearest.
        EnvironmentFailedError: the package of a module fails as it is imported.
    """
    family_name, colon, game = name.partition(":")
    if not colon:
        raise UnknownNameError(
            f"unknown environment {name!r}: expected FAMILY:GAME such as 'procgen:starpilot'. `cosearch list envs` shows all"
        )
    known = [entry.name for entry in ENVIRONMENTS.entries()]
    if family_name not in known and "gym" in known and _is_module(family_name):
        return ENVIRONMENTS.get("gym"), name
    if family_name not in known and "." in family_name:
        raise UnknownNameError(
            f"unknown environment {name!r}: there is no module {family_name!r} in {Path.cwd()} or among the installed packages. "
            f"Go to the folder of {family_name.partition('.')[0]}, or name that folder: PYTHONPATH=FOLDER before the command"
        )
    family = ENVIRONMENTS.get(family_name)
    if game not in family.games and not family.is_open:
        import difflib

        near = difflib.get_close_matches(game, family.games, n=1)
        hint = f" Did you mean '{family_name}:{near[0]}'?" if near else ""
        raise UnknownNameError(
            f"unknown environment {name!r}: {family_name} has no game {game!r}.{hint} `cosearch list envs` shows all"
        )
    return family, game


def _is_module(name: str) -> bool:
    try:
        return bool(name) and importlib.util.find_spec(name) is not None
    except Exception as error:  # whatever the code of a package raises that the module lies in
        missing = isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}.")
        if missing or name in sys.modules or name.startswith("."):  # no package, or a module without a specification
            return False
        raise EnvironmentFailedError(f"the package of {name} failed: {type(error).__name__}: {error}") from error


def make_env(name: str, options: EnvOptions) -> CheckedEnv:
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


def _guarded(name: str, function: Callable[[], Got]) -> Got:
    try:
        return function()
    except EnvironmentFailedError as error:
        if name in str(error):
            raise
        raise EnvironmentFailedError(f"{name}: {error}") from error
    except CosearchError:
        raise
    except SystemExit as error:  # no environment ends a command, least of all with exit code 0
        raise EnvironmentFailedError(f"{name} ended the program: SystemExit({error.code!r})") from error
    except Exception as error:  # whatever the code of an environment raises
        raise EnvironmentFailedError(f"{name} failed: {type(error).__name__}: {error}") from error


def close_noted(name: str, close: Callable[[], object]) -> None:
    """Close an environment. What its code raises then is a warning, once: its work is done, and a nearer error may be on its way.

    Args:
        name: of the environment.
        close: closes it.
    """
    try:
        _guarded(name, close)
    except CosearchError as error:
        _warn_once(f"the environment could not be closed, which changes no result: {plain(str(error))}")


@functools.lru_cache(maxsize=64)
def _warn_once(text: str) -> None:
    _log.warning("%s", text)


class CheckedEnv:
    """Holds an environment to its contract at every step, so that a broken one cannot poison a run.

    Args:
        env: the environment.
        name: for messages.
    """

    def __init__(self, env: VectorEnv, name: str) -> None:
        self.env, self.name = env, name
        self.num_envs, self.frame_shape, self.num_actions = env.num_envs, tuple(env.frame_shape), env.num_actions
        self.action_box: Box | None = getattr(env, "action_box", None)
        if self.action_box is not None and len(self.action_box.low) != self.num_actions:
            raise EnvironmentFailedError(
                f"{name} has {self.num_actions} action components, but bounds for {len(self.action_box.low)}"
            )
        self.first_action: int = getattr(env, "first_action", 0)
        self.action_names: tuple[str, ...] = getattr(env, "action_names", ())
        if self.action_names and len(self.action_names) != self.num_actions:
            raise EnvironmentFailedError(f"{name} has {self.num_actions} actions, but {len(self.action_names)} names of actions")
        self.parts: tuple[Part, ...] = tuple(getattr(env, "parts", ()))
        self.action_sizes: tuple[int, ...] = tuple(getattr(env, "action_sizes", ()))
        self._dtype = frame_dtype(self.frame_shape)
        misfit = frame_shape_of(self.parts) != self.frame_shape if self.parts else len(self.frame_shape) == 2
        if misfit or (self.action_sizes and sum(self.action_sizes) != self.num_actions):
            raise EnvironmentFailedError(
                f"{name} has {self.num_actions} actions and frames {self.frame_shape}, but declares the factors "
                f"{self.action_sizes} and the parts {[part.name for part in self.parts]}"
            )
        self._masked = any(part.kind == "mask" for part in self.parts)
        self.endless: bool = getattr(env, "endless", False)
        self.solved_at: float | None = getattr(env, "solved_at", None)
        self.exact_resume = env.exact_resume
        self.process_id: int = getattr(env, "process_id", os.getpid())  # where it is stepped

    @property
    def doubts(self) -> tuple[str, ...]:
        """What is not as the environment declares it, so far, one sentence each."""
        return tuple(f"{self.name}: {doubt}" for doubt in getattr(self.env, "doubts", ()))

    def _check(self, what: str, array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
        if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != dtype:
            got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise EnvironmentFailedError(f"{self.name} returned {what} as {got}, expected {np.dtype(dtype)} {shape}")
        return array

    def _check_frames(self, what: str, array: np.ndarray, *leading: int) -> np.ndarray:
        self._check(what, array, (*leading, *self.frame_shape), self._dtype)
        vectors = [array] if self._dtype == np.float32 else []
        if self.parts:
            values = unpack(self.parts, array)
            vectors = [values[part.name] for part in self.parts if part.kind == "vector"]
            if self._masked and leading:
                self._check_mask(values[MASK] > 0)
        for vector in vectors:
            if not np.isfinite(vector).all():
                raise EnvironmentFailedError(f"{self.name} returned {what} that are not finite: {vector}")
        return array

    def _check_mask(self, allowed: np.ndarray) -> None:
        begin = 0
        for size in self.action_sizes or (self.num_actions,):
            if not allowed[:, begin : begin + size].any(1).all():
                raise EnvironmentFailedError(
                    f"{self.name} returned an action mask that allows none of the {size} actions, and its episode goes on"
                )
            begin += size

    def observe(self) -> np.ndarray:
        """See :class:`VectorEnv`."""
        return self._check_frames("frames", self._call(self.env.observe), self.num_envs)

    def send(self, actions: np.ndarray) -> None:
        """See :class:`VectorEnv`; action vectors are scaled and clipped to the box."""
        if self.action_box is not None:
            actions = self.action_box.from_policy(actions)
        self._call(lambda: self.env.send(actions))

    def receive(self) -> Step:
        """See :class:`VectorEnv`.

        Raises:
            EnvironmentFailedError: the environment died, or returned a wrong shape, dtype or a reward that is not finite.
        """
        step = self._call(self.env.receive)
        n = (self.num_envs,)
        self._check_frames("frames", step.frames, *n)
        self._check("reward", step.reward, n, np.float32)
        self._check("terminated", step.terminated, n, np.bool_)
        self._check("truncated", step.truncated, n, np.bool_)
        cut = set(np.flatnonzero(step.truncated).tolist())
        if set(step.last_frames) != cut:
            raise EnvironmentFailedError(
                f"{self.name} truncated the episodes of {sorted(cut)} but handed over last frames of "
                f"{sorted(step.last_frames)}: a truncated episode needs its last frame"
            )
        for frame in step.last_frames.values():
            self._check_frames("a last frame", frame)
        if not np.isfinite(step.reward).all():
            raise EnvironmentFailedError(f"{self.name} returned a reward that is not finite: {step.reward}")
        return step

    def _call(self, function: Callable[[], Got]) -> Got:
        return _guarded(self.name, function)

    def state(self) -> State:
        """See :class:`VectorEnv`."""
        return self._call(self.env.state)

    def restore(self, state: State) -> Sequence[int]:
        """See :class:`VectorEnv`."""
        anew = self._call(lambda: self.env.restore(state))
        return anew if anew is not None else () if self.exact_resume else range(self.num_envs)

    def close(self) -> None:
        """See :class:`VectorEnv`; what it raises is noted, see :func:`close_noted`."""
        close_noted(self.name, self.env.close)
