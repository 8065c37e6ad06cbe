"""ALE and any Gymnasium id with image observations and discrete actions.

Resume: such environments cannot save their state, but they are deterministic after ``reset(seed)``. Each episode has a seed of
its own; the actions of the running episode are recorded, and a restore plays them again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from cosearch.rl.envs import ENVIRONMENTS, EnvFamily, EnvOptions, Step
from latency_tables.errors import ConfigError, EnvironmentFailedError, MissingExtraError, UnknownNameError

ALE_EXAMPLES = ("Breakout", "Pong", "SpaceInvaders", "Qbert", "Seaquest", "BeamRider")


class ReplayedEnvs:
    """Single Gymnasium environments stepped in turn, restored by replaying the running episodes.

    Args:
        make: () -> one Gymnasium environment.
        to_frame: observation -> uint8 ``[height, width, channels]``.
        options: number and seed.
        on_reset: (one environment) -> None, called before each reset, for what a reset with a seed leaves as it was.

    Raises:
        EnvironmentFailedError: actions that are not discrete.
    """

    exact_resume = True

    def __init__(
        self,
        make: Callable[[], Any],
        to_frame: Callable[[Any], np.ndarray],
        options: EnvOptions,
        *,
        on_reset: Callable[[Any], None] = lambda env: None,
    ) -> None:
        self._envs = [make() for _ in range(options.num_envs)]
        space = self._envs[0].action_space
        if type(space).__name__ != "Discrete":
            raise EnvironmentFailedError(f"expected discrete actions, got {space}")
        self.num_envs, self.num_actions = options.num_envs, int(space.n)
        self._on_reset = on_reset
        self._to_frame, self._seed = to_frame, options.seed + (1_000_003 if options.test else 0)
        self._episodes = np.zeros(self.num_envs, dtype=np.int64)
        self._actions: list[list[int]] = [[] for _ in self._envs]
        frames = [self._reset(i) for i in range(self.num_envs)]
        self.frame_shape = tuple(frames[0].shape)
        self._frames = np.stack(frames)
        self._pending: np.ndarray | None = None

    def _reset(self, i: int) -> np.ndarray:
        self._on_reset(self._envs[i])
        seed = np.random.SeedSequence([self._seed, i, int(self._episodes[i])]).generate_state(1)[0]
        return self._to_frame(self._envs[i].reset(seed=int(seed) & 0x7FFFFFFF)[0])

    def observe(self) -> np.ndarray:
        """See ``VectorEnv``."""
        return self._frames.copy()

    def send(self, actions: np.ndarray) -> None:
        """See ``VectorEnv``. The step itself is done by :meth:`receive`."""
        self._pending = actions

    def receive(self) -> Step:
        """See ``VectorEnv``."""
        n = self.num_envs
        reward, terminated, truncated = np.zeros(n, np.float32), np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        last: dict[int, np.ndarray] = {}
        for i, env in enumerate(self._envs):
            action = int(self._pending[i])
            observation, reward[i], terminated[i], cut, _ = env.step(action)
            truncated[i] = cut and not terminated[i]
            self._actions[i].append(action)
            if truncated[i]:
                last[i] = self._to_frame(observation)
            if terminated[i] or truncated[i]:
                self._episodes[i] += 1
                self._actions[i] = []
                self._frames[i] = self._reset(i)
            else:
                self._frames[i] = self._to_frame(observation)
        return Step(self._frames.copy(), reward, terminated, truncated, last)

    def state(self) -> dict[str, Any]:
        """See ``VectorEnv``."""
        return {
            "episodes": torch.from_numpy(self._episodes.copy()),
            "seed": self._seed,
            "frames": torch.from_numpy(self._frames.copy()),
            "actions": [torch.tensor(actions, dtype=torch.int32) for actions in self._actions],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """See ``VectorEnv``: resets each environment to its episode's seed and replays its actions.

        Raises:
            EnvironmentFailedError: the replay ends at other frames than were saved.
        """
        self._seed = state["seed"]
        self._episodes = state["episodes"].numpy().copy()
        self._actions = [part.tolist() for part in state["actions"]]
        for i, env in enumerate(self._envs):
            self._frames[i] = self._reset(i)
            for action in self._actions[i]:
                self._frames[i] = self._to_frame(env.step(action)[0])
            if not np.array_equal(self._frames[i], state["frames"][i].numpy()):
                raise EnvironmentFailedError(
                    f"environment {i} does not replay: the {len(self._actions[i])} recorded actions after its "
                    "seed lead to other frames. It is not deterministic after reset(seed), or its "
                    "version differs"
                )

    def close(self) -> None:
        """See ``VectorEnv``."""
        for env in self._envs:
            env.close()


def _gymnasium_maker(name: str, **kwargs: Any) -> Callable[[], Any]:
    import gymnasium

    def make() -> Any:
        try:
            return gymnasium.make(name, **kwargs)
        except gymnasium.error.DependencyNotInstalled as error:
            raise MissingExtraError(f"environment {name!r} needs a package that is not installed: {error}") from error
        except gymnasium.error.Error as error:
            raise UnknownNameError(f"Gymnasium has no environment {name!r}: {error}") from error

    return make


def _image(observation: Any) -> np.ndarray:
    array = np.asarray(observation)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.dtype != np.uint8:
        raise EnvironmentFailedError(
            f"expected uint8 images [height, width, channels], got {array.dtype} {array.shape}: "
            "vector observations need a space for vectors, which this version does not have"
        )
    return array


def _make_ale(game: str, options: EnvOptions) -> ReplayedEnvs:
    try:
        import ale_py
    except ImportError as error:
        raise MissingExtraError(f"ALE cannot be imported ({error}): pip install 'cosearch[atari]'") from error
    import gymnasium

    gymnasium.register_envs(ale_py)
    from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

    raw = _gymnasium_maker(f"ALE/{game}-v5", frameskip=1)
    return ReplayedEnvs(
        lambda: FrameStackObservation(AtariPreprocessing(raw()), 4),
        lambda o: np.ascontiguousarray(np.asarray(o).transpose(1, 2, 0)),
        options,
    )


def _make_gym(game: str, options: EnvOptions) -> ReplayedEnvs:
    make = _gymnasium_maker(game)
    probe = make()
    frames, actions = probe.observation_space, probe.action_space
    probe.close()
    if type(actions).__name__ != "Discrete":
        raise ConfigError(f"gym:{game} has actions {actions}, expected discrete ones: continuous actions are not supported")
    if frames.dtype != np.uint8 or len(frames.shape or ()) not in (2, 3):
        raise ConfigError(f"gym:{game} has observations {frames}, expected uint8 images [height, width, channels]: "
                          "vector observations need a space for vectors, which this version does not have")
    return ReplayedEnvs(make, _image, options)


ENVIRONMENTS.register(
    EnvFamily("ale", "Atari 2600, 84x84 grey, four frames stacked (Bellemare et al. 2013)", ALE_EXAMPLES, _make_ale, True)
)
ENVIRONMENTS.register(
    EnvFamily("gym", "any Gymnasium id with image observations and discrete actions", ("CarRacing-v3",), _make_gym, True)
)
