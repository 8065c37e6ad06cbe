"""ALE and any Gymnasium id with images or vectors as observations, and discrete actions or vectors in a box.

Resume: such environments cannot save their state, but they are deterministic after ``reset(seed)``. Each episode has a seed of
its own; the actions of the running episode are recorded, and a restore plays them again.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cosearch.record.state import State, read, read_list
from cosearch.rl.envs import ENVIRONMENTS, Box, EnvFamily, EnvOptions, Step
from latency_tables.errors import ConfigError, EnvironmentFailedError, MissingExtraError, ShapeError, UnknownNameError
from latency_tables.reading import shown

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


@dataclass(frozen=True)
class Moved:
    """What one step of each of several environments gave, before any is reset.

    Attributes:
        reward: ``[envs]``, float32.
        terminated, truncated: ``[envs]``, bool; never both.
        last_frames: the last frame of each environment whose episode was truncated.
    """

    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    last_frames: dict[int, np.ndarray]


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
    ) -> None:
        self._envs = [make() for _ in range(options.num_envs)]
        self.num_envs, self.num_actions, self.action_box = options.num_envs, *_actions_of(self._envs[0].action_space)
        self.first_action = int(getattr(self._envs[0].action_space, "start", 0))
        self.action_names = _action_names(self._envs[0])
        self._action_dtype = np.int64 if self.action_box is None else np.float32
        self._on_reset, self._move = on_reset, move or self._one_by_one
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
        return self._frame(self._envs[i].reset(seed=int(seed) & 0x7FFFFFFF)[0])

    def _frame(self, observation: Any) -> np.ndarray:
        """An observation as a frame; all have the shape of the first, nothing is stretched to it."""
        frame = self._to_frame(observation)
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
        actions = (self._pending + self.first_action).tolist() if discrete else [row.copy() for row in self._pending]
        moved = self._move(self._envs, actions, self._frames)
        for recorded, action in zip(self._actions, actions, strict=True):
            recorded.append(action)
        for i in np.flatnonzero(moved.terminated | moved.truncated):
            self._episodes[i] += 1
            self._actions[i] = []
            self._frames[i] = self._reset(i)
        return Step(self._frames.copy(), moved.reward, moved.terminated, moved.truncated, moved.last_frames)

    def _one_by_one(self, envs: Sequence[Any], actions: list[Any], frames: np.ndarray) -> Moved:
        n = len(envs)
        reward, terminated, truncated = np.zeros(n, np.float32), np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        last: dict[int, np.ndarray] = {}
        for i, (env, action) in enumerate(zip(envs, actions, strict=True)):
            observation, paid, ended, cut, _ = env.step(action)
            reward[i], terminated[i] = _number(paid, "reward"), _number(ended, "terminated")
            truncated[i] = _number(cut, "truncated") and not terminated[i]
            if truncated[i]:
                last[i] = self._frame(observation)
            elif not terminated[i]:
                frames[i] = self._frame(observation)
        return Moved(reward, terminated, truncated, last)

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
        self._actions = [part.tolist() if self.action_box is None else list(part) for part in recorded]
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
            observation, _, terminated, truncated, _ = self._envs[i].step(action)
            if terminated or truncated:
                return False  # the episode that was saved went on
            self._frames[i] = self._frame(observation)
        return np.array_equal(self._frames[i], wanted)

    def close(self) -> None:
        """See ``VectorEnv``."""
        for env in self._envs:
            env.close()


def _actions_of(space: Any) -> tuple[int, Box | None]:
    """How many actions, and their box where they are vectors."""
    if type(space).__name__ == "Discrete":
        return int(space.n), None
    if type(space).__name__ == "Box" and len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating):
        return int(space.shape[0]), Box(tuple(map(float, space.low)), tuple(map(float, space.high)))
    raise EnvironmentFailedError(f"expected discrete actions or vectors of floats, got {space}")


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


def _gymnasium_maker(name: str, **kwargs: Any) -> Callable[[], Any]:
    import gymnasium

    def make() -> Any:
        try:
            return gymnasium.make(name, **kwargs)
        except gymnasium.error.DependencyNotInstalled as error:
            raise MissingExtraError(
                f"environment {name!r} needs a package that is not installed: {error}. LunarLander and its "
                "kind: pip install '.[box2d]' (needs no compiler)"
            ) from error
        except gymnasium.error.Error as error:
            raise UnknownNameError(f"Gymnasium has no environment {name!r}: {error}") from error
        except ModuleNotFoundError as error:
            module = name.partition(":")[0]
            if ":" not in name or importlib.util.find_spec(module) is not None:  # a module that is missing inside it
                raise
            raise UnknownNameError(
                f"environment {name!r}: there is no module {module!r} in {Path.cwd()} or among the installed packages. Go to the "
                f"folder of {module}.py, or name that folder: PYTHONPATH=FOLDER before the command"
            ) from error
        except TypeError as error:
            if not kwargs:
                raise
            raise ConfigError(f"environment {name!r} cannot be made with env.kwargs {shown(dict(kwargs))}: {error}") from error

    return make


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


def _layout_of(shape: tuple[int, ...], said: str | None, game: str) -> str:
    """The order of an image's dimensions, of three; no shape is guessed that looks like channels first.

    Raises:
        ConfigError: the first dimension is the smallest, and nobody said whether that is the height or the channels.
    """
    if said is None and shape[0] < min(shape[1:]):
        raise ConfigError(
            f"gym:{game} has images of the shape {shape}: {shape[0]} channels first, or a height of {shape[0]}? Say "
            "env.layout=channels_first or env.layout=channels_last"
        )
    return said or "channels_last"


def _check_brightness(space: Any, game: str) -> None:
    """Raise where an image space ends far below 255, by which networks here divide: its agent would see almost nothing.

    Raises:
        ConfigError: the largest value that the space declares is below a quarter of 255.
    """
    brightest = int(np.max(space.high))
    if brightest < 64:
        raise ConfigError(
            f"gym:{game} declares images of 0 to {brightest}, and images are divided by 255 here: they would be nearly black. "
            f"Register a wrapper of yours that multiplies them by {255 // max(brightest, 1)}"
        )


def _vector(observation: object) -> np.ndarray:
    return np.array(observation, dtype=np.float32)


def _make_ale(game: str, options: EnvOptions) -> ReplayedEnvs:
    try:
        import ale_py
    except ImportError as error:
        raise MissingExtraError(f"ALE cannot be imported ({error}): pip install 'cosearch[atari]'") from error
    import gymnasium

    gymnasium.register_envs(ale_py)
    from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

    raw = _gymnasium_maker(f"ALE/{game}-v5", **{"frameskip": 1, **options.kwargs})
    return ReplayedEnvs(
        lambda: FrameStackObservation(AtariPreprocessing(raw()), 4),
        lambda o: np.ascontiguousarray(np.asarray(o).transpose(1, 2, 0)),
        options,
    )


def _as_declared(envs: ReplayedEnvs, shape: tuple[int, ...], game: str) -> ReplayedEnvs:
    """The environments, if their frames have the shape that the observation space declares."""
    if envs.frame_shape != shape:
        envs.close()
        raise EnvironmentFailedError(f"gym:{game} declares observations of the shape {shape}, but gives {envs.frame_shape}")
    return envs


def _make_gym(game: str, options: EnvOptions) -> ReplayedEnvs:
    make = _gymnasium_maker(game, **options.kwargs)
    probe = make()
    frames, actions = probe.observation_space, probe.action_space
    probe.close()
    try:
        _actions_of(actions)
    except (EnvironmentFailedError, ShapeError) as error:
        raise ConfigError(f"gym:{game}: {error}") from error
    dimensions = len(getattr(frames, "shape", None) or ())
    if dimensions and 0 in frames.shape:
        raise ConfigError(f"gym:{game} has observations of the shape {frames.shape}: there is nothing to learn from")
    if getattr(frames, "dtype", None) == np.uint8 and dimensions in (2, 3):
        _check_brightness(frames, game)
        declared = (*frames.shape, 1) if dimensions == 2 else tuple(frames.shape)
        if dimensions == 3 and _layout_of(declared, options.layout, game) == "channels_first":
            return _as_declared(ReplayedEnvs(make, _channels_last, options), (*declared[1:], declared[0]), game)
        return _as_declared(ReplayedEnvs(make, _image, options), declared, game)
    if type(frames).__name__ == "Box" and dimensions == 1:
        return _as_declared(ReplayedEnvs(make, _vector, options), frames.shape, game)
    raise ConfigError(
        f"gym:{game} has observations {frames}, expected uint8 images [height, width, channels] or a Box of one "
        "dimension; a wrapper of yours, registered under an id of its own, can make it such"
    )


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
        "any Gymnasium id: images or vectors, discrete or continuous actions",
        GYM_EXAMPLES,
        _make_gym,
        True,
        teacher=GYM_RUN,
        run=GYM_RUN,
        takes_kwargs=True,
        takes_layout=True,
    )
)
