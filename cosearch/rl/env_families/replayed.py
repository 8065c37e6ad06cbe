"""Gymnasium environments stepped in turn as one vector environment, exactly resumable although none can save its state.

Such environments are deterministic after ``reset(seed)``. Each episode has a seed of its own; the actions of the running episode
are recorded, and a restore plays them again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from cosearch.record.state import State, read, read_list
from cosearch.rl.envs import Box, EnvOptions, Step
from cosearch.space.parts import MASK, Part
from latency_tables.errors import EnvironmentFailedError
from latency_tables.text.reading import shown


@dataclass(frozen=True)
class Moved:
    """What one step of each of several environments gave, before any is reset.

    Attributes:
        reward: ``[envs]``, float32.
        terminated, truncated: ``[envs]``, bool; never both.
        last_frames: the last frame of each environment whose episode was truncated.
        success: of each environment whose episode ended and says so, whether it succeeded.
    """

    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    last_frames: dict[int, np.ndarray]
    success: dict[int, bool] = field(default_factory=dict)


OLD_STYLE = (
    "is it in the old style of Gym? Then let the function that makes it return shimmy.GymV21CompatibilityV0(env=...), the "
    "compatibility that Gymnasium names (pip install shimmy)"
)
LOOKED_AT = 256  # observations that are compared with what the environment declares
Mover = Callable[[Sequence[Any], list[Any], np.ndarray], Moved]


class ReplayedEnvs:
    """Single Gymnasium environments stepped in turn, restored by replaying the running episodes.

    Args:
        make: () -> one Gymnasium environment.
        to_frame: observation -> uint8 ``[height, width, channels]`` or float32 ``[features]``.
        options: number and seed.
        on_reset: (one environment) -> None, called before each reset, for what a reset with a seed leaves as it was.
        move: (environments, actions, frames) -> what a step of each gave; it writes the frames of those whose episode goes on.
            None: Gymnasium's ``step``, one after the other.
        doubt: observation -> how it differs from what the environment declares; asked of the first observations.
        parts: of a frame, where it has parts.
        mask_of: (one environment, its information) -> action mask; then ``to_frame`` takes a pair of observation and mask.

    Raises:
        EnvironmentFailedError: actions that are neither discrete nor vectors.
    """

    exact_resume = True

    def __init__(
        self,
        make: Callable[[], Any],
        to_frame: Callable[[Any], np.ndarray],
        options: EnvOptions,
        *,
        on_reset: Callable[[Any], None] = lambda env: None,
        move: Mover | None = None,
        doubt: Callable[[Any], str] = lambda observation: "",
        parts: tuple[Part, ...] = (),
        mask_of: Callable[[Any, Mapping[str, Any]], np.ndarray] | None = None,
    ) -> None:
        self._envs = [make() for _ in range(options.num_envs)]
        self.num_envs, self.parts, self._mask_of = options.num_envs, parts, mask_of
        self.num_actions, self.action_box, self.action_sizes = actions_of(self._envs[0].action_space)
        self.first_action = 0 if self.action_sizes else int(getattr(self._envs[0].action_space, "start", 0))
        self.action_names = _action_names(self._envs[0])
        self._action_dtype = np.int64 if self.action_box is None else np.float32
        self._on_reset, self._move = on_reset, move or self._one_by_one
        self._doubt, self._looked_at = doubt, 0
        self.doubts: tuple[str, ...] = ()
        self.endless = _is_endless(self._envs[0])
        self.solved_at = _solved_at(self._envs[0])
        self._to_frame, self._seed = to_frame, options.seed + (1_000_003 if options.test else 0)
        self._episodes = np.zeros(self.num_envs, dtype=np.int64)
        self._actions: list[list[Any]] = [[] for _ in self._envs]
        self.frame_shape: tuple[int, ...] = ()
        frames = [self._reset(i) for i in range(self.num_envs)]
        self._frames = np.stack(frames)
        self._pending = np.zeros(0)  # of the step in progress

    def _reset(self, i: int) -> np.ndarray:
        self._on_reset(self._envs[i])
        seed = np.random.SeedSequence([self._seed, i, int(self._episodes[i])]).generate_state(1)[0]
        return self._frame(self._envs[i], *reset_of(self._envs[i], int(seed) & 0x7FFFFFFF))

    def _frame(self, env: Any, observation: Any, info: Mapping[str, Any], *, last: bool = False) -> np.ndarray:
        """An observation as a frame; all have the shape of the first, nothing is stretched to it.

        The last one of an episode is acted on no more: where its mask allows nothing, or is missing, it allows all.
        """
        if self._mask_of is None:
            frame = self._to_frame(observation)
        else:
            mask = np.ones(self.num_actions, np.uint8) if last else self._mask_of(env, info)
            frame = self._to_frame((observation, mask))
        if self._looked_at < LOOKED_AT and not self.doubts:
            self._looked_at += 1
            found = self._doubt(observation)
            self.doubts = (found,) if found else ()
        self.frame_shape = self.frame_shape or frame.shape
        if frame.shape != self.frame_shape:
            raise EnvironmentFailedError(f"an observation has the shape {frame.shape}, the first one had {self.frame_shape}")
        return frame

    def observe(self) -> np.ndarray:
        """See ``VectorEnv``."""
        return self._frames.copy()

    def send(self, actions: np.ndarray) -> None:
        """See ``VectorEnv``. The step itself is done by :meth:`receive`."""
        self._pending = actions

    def receive(self) -> Step:
        """See ``VectorEnv``."""
        discrete = self.action_box is None
        if discrete and not self.action_sizes:
            actions = (self._pending + self.first_action).tolist()
        else:
            actions = [row.copy() for row in self._pending]
        moved = self._move(self._envs, actions, self._frames)
        for recorded, action in zip(self._actions, actions, strict=True):
            recorded.append(action)
        for i in np.flatnonzero(moved.terminated | moved.truncated):
            self._episodes[i] += 1
            self._actions[i] = []
            self._frames[i] = self._reset(i)
        return Step(self._frames.copy(), moved.reward, moved.terminated, moved.truncated, moved.last_frames, moved.success)

    def _check_mask(self, info: Any) -> None:
        """Raise where a step's information has an action mask that no reset had: nothing would read it.

        Raises:
            EnvironmentFailedError: it has.
        """
        known = self._mask_of is not None or any(part.kind == "mask" for part in self.parts)
        if not known and isinstance(info, Mapping) and MASK in info:
            raise EnvironmentFailedError(
                f"the information of its step has an {MASK!r}, that of its reset has none: expected it from reset and from each "
                "step, or a method action_masks of the environment"
            )

    def _one_by_one(self, envs: Sequence[Any], actions: list[Any], frames: np.ndarray) -> Moved:
        n = len(envs)
        reward, terminated, truncated = np.zeros(n, np.float32), np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        last: dict[int, np.ndarray] = {}
        success: dict[int, bool] = {}
        for i, (env, action) in enumerate(zip(envs, actions, strict=True)):
            observation, paid, ended, cut, info = _five(env.step(action))
            self._check_mask(info)
            reward[i], terminated[i] = _number(paid, "reward"), _number(ended, "terminated")
            truncated[i] = _number(cut, "truncated") and not terminated[i]
            if truncated[i]:
                last[i] = self._frame(env, observation, info, last=True)
            elif not terminated[i]:
                frames[i] = self._frame(env, observation, info)
            if (terminated[i] or truncated[i]) and (said := _success(info)) is not None:
                success[i] = said
        return Moved(reward, terminated, truncated, last, success)

    def state(self) -> State:
        """See ``VectorEnv``."""
        return {
            "episodes": torch.from_numpy(self._episodes.copy()),
            "seed": self._seed,
            "frames": torch.from_numpy(self._frames.copy()),
            "actions": [torch.from_numpy(np.array(actions, dtype=self._action_dtype)) for actions in self._actions],
        }

    def restore(self, state: State) -> Sequence[int]:
        """See ``VectorEnv``: resets each environment to its episode's seed and replays its actions.

        Where that leads to other frames than were saved, the environment is not deterministic after ``reset(seed)``, or is
        another one now: its episode begins anew.
        """
        self._seed = read(state, "seed", int)
        self._episodes = read(state, "episodes", torch.Tensor).numpy().copy()
        recorded = [part.numpy().astype(self._action_dtype) for part in read_list(state, "actions", torch.Tensor)]
        plain = self.action_box is None and not self.action_sizes
        self._actions = [part.tolist() if plain else list(part) for part in recorded]
        anew, saved = [], read(state, "frames", torch.Tensor).numpy()
        for i in range(self.num_envs):
            if not self._replays(i, saved[i]):
                anew.append(i)
                self._episodes[i] += 1
                self._actions[i] = []
                self._frames[i] = self._reset(i)
        return anew

    def _replays(self, i: int, wanted: np.ndarray) -> bool:
        """Play the recorded actions of an environment's episode again; whether they lead to the frame that was saved."""
        self._frames[i] = self._reset(i)
        for action in self._actions[i]:
            observation, _, terminated, truncated, info = _five(self._envs[i].step(action))
            if terminated or truncated:
                return False  # the episode that was saved went on
            self._frames[i] = self._frame(self._envs[i], observation, info)
        return np.array_equal(self._frames[i], wanted)

    def close(self) -> None:
        """See ``VectorEnv``: all are closed before what one of them raises goes on."""
        with ExitStack() as stack:
            for env in reversed(self._envs):
                stack.callback(env.close)


def _is_endless(env: Any) -> bool:
    """Whether no limit of steps is known of an environment: neither from Gymnasium's register nor by a wrapper."""
    while env is not None:
        if type(env).__name__ == "TimeLimit" or getattr(getattr(env, "spec", None), "max_episode_steps", None):
            return False
        env = getattr(env, "env", None)
    return True


def _solved_at(env: Any) -> float | None:
    """The mean return that counts as solved, as Gymnasium's register has it; None where it has none."""
    threshold = getattr(getattr(env, "spec", None), "reward_threshold", None)
    return None if threshold is None else float(threshold)


SUCCESS = ("is_success", "success")  # of stable-baselines3 and Gymnasium-Robotics; of Meta-World, robosuite and ManiSkill


def _success(told: Any) -> bool | None:
    """Whether an episode succeeded, by the information of its last step; None where that does not say it.

    Raises:
        EnvironmentFailedError: what it says is no truth value or number.
    """
    for key in SUCCESS if isinstance(told, Mapping) else ():
        if key in told:
            return bool(_number(told[key], f"info[{key!r}]"))
    return None


def reset_of(env: Any, seed: int) -> tuple[Any, dict[str, Any]]:
    """The first observation of an episode, and its information.

    Raises:
        EnvironmentFailedError: the environment takes no seed, or does not return an observation and its information.
    """
    try:
        found = env.reset(seed=seed)
    except TypeError as error:
        if "seed" not in str(error):
            raise
        raise EnvironmentFailedError(f"its reset takes no seed: {OLD_STYLE}") from error
    if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[1], dict):
        raise EnvironmentFailedError(f"its reset returned no pair of an observation and a dictionary: {OLD_STYLE}")
    return found


def _five(found: Any) -> tuple[Any, Any, Any, Any, Any]:
    """What a step returned, if it has the five values that Gymnasium wants.

    Raises:
        EnvironmentFailedError: it has another number of them.
    """
    if not isinstance(found, tuple) or len(found) != 5:
        got = f"{len(found)} values" if isinstance(found, tuple) else type(found).__name__
        raise EnvironmentFailedError(
            f"its step returned {got}, expected observation, reward, terminated, truncated and information: {OLD_STYLE}"
        )
    return found


def actions_of(space: Any) -> tuple[int, Box | None, tuple[int, ...]]:
    """How many actions (of several factors all together), their box where they are vectors, and the sizes of their factors."""
    if type(space).__name__ == "Discrete":
        return int(space.n), None, ()
    if type(space).__name__ == "MultiDiscrete" and len(space.shape) == 1 and not np.any(getattr(space, "start", 0)):
        sizes = tuple(int(n) for n in space.nvec)
        return sum(sizes), None, sizes
    if type(space).__name__ == "Box" and len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating):
        return int(space.shape[0]), Box(tuple(map(float, space.low)), tuple(map(float, space.high))), ()
    raise EnvironmentFailedError(
        f"expected discrete actions or vectors of floats, or several discrete ones numbered from 0 (MultiDiscrete), got {space}"
    )


def _number(value: Any, what: str) -> Any:
    """What a step returned, if it is a number or a truth value, or an array of one: text would count as true.

    Raises:
        EnvironmentFailedError: it is something else.
    """
    if type(value) in (float, bool, int, np.float64, np.float32, np.bool_):
        return value
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise EnvironmentFailedError(f"its step returned a value for {what} that is no number: {shown(value)}")
    return array.reshape(-1)[0]


def _action_names(env: Any) -> tuple[str, ...]:
    """The words that Atari's environments, and MinAtar's here, have for their actions; empty for others."""
    meanings = getattr(getattr(env, "unwrapped", env), "get_action_meanings", tuple)
    return tuple(str(word).lower() for word in meanings())
