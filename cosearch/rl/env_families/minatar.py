"""MinAtar (Young & Tian 2019, arXiv 1903.03176), its games stepped directly, without a stack of wrappers around each.

The games are used as the ``minatar`` package's Gymnasium entries ``-v1`` use them: the minimal set of actions, sticky actions
with probability 0.1, the difficulty ramp on. Trajectories equal those entries' (a test plays both).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cosearch.rl.env_families.replayed import Moved, ReplayedEnvs
from cosearch.rl.envs import ENVIRONMENTS, EnvFamily, EnvOptions
from latency_tables.errors import MissingExtraError

MINATAR_GAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")


WORDS = {"n": "noop", "l": "left", "u": "up", "r": "right", "d": "down", "f": "fire"}


class Discrete:
    """Actions ``0 .. n - 1``.

    Args:
        n: how many.
    """

    def __init__(self, n: int) -> None:
        self.n = n


class Game:
    """One game, with the methods of a Gymnasium environment that resetting and replaying use.

    Args:
        environment: ``minatar.Environment``.
        name: of the game.
    """

    def __init__(self, environment: Any, name: str) -> None:
        self.game = environment(name)
        self.actions = self.game.minimal_action_set()
        self.action_space = Discrete(len(self.actions))

    def reset(self, seed: int) -> tuple[np.ndarray, dict[str, object]]:
        """The first state of the episode that ``seed`` begins."""
        self.game.last_action = 0  # sticky actions repeat it, across episodes too
        self.game.random.seed(seed)  # as ``game.seed``, which makes a new generator: 70 % of the time of short episodes
        self.game.env.random = self.game.random
        self.game.reset()
        return self.game.state(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, object]]:
        """One step, as Gymnasium returns it; there is no time limit."""
        reward, ended = self.game.act(self.actions[action])
        return self.game.state(), reward, ended, False, {}

    def get_action_meanings(self) -> list[str]:
        """A word for each action, as Atari's environments have them."""
        return [WORDS[self.game.env.action_map[action]] for action in self.actions]

    def close(self) -> None:
        """Nothing is held."""
        self.game.closed = True


def _frame(state: np.ndarray) -> np.ndarray:
    return np.asarray(state, dtype=np.uint8) * np.uint8(255)


def _move(games: Sequence[Game], actions: list[int], frames: np.ndarray) -> Moved:
    """One step of each game: no episode is truncated, and all frames are scaled at once."""
    rewards, ended = [], []
    states = np.empty(frames.shape, dtype=np.bool_)
    for i, (game, action) in enumerate(zip(games, actions, strict=True)):
        reward, over = game.game.act(game.actions[action])
        rewards.append(reward)
        ended.append(over)
        if not over:
            states[i] = game.game.state()
    np.multiply(states.view(np.uint8), 255, out=frames)
    terminated = np.array(ended, dtype=np.bool_)
    return Moved(np.array(rewards, dtype=np.float32), terminated, np.zeros_like(terminated), {})


def minatar_envs(name: str, options: EnvOptions) -> ReplayedEnvs:
    """``options.num_envs`` games.

    Args:
        name: one of :data:`MINATAR_GAMES`.
        options: number and seed.

    Raises:
        MissingExtraError: the package is not installed.
    """
    try:
        from minatar import Environment
    except ImportError as error:
        raise MissingExtraError(f"MinAtar cannot be imported ({error}): pip install 'cosearch[minatar]'") from error
    return ReplayedEnvs(lambda: Game(Environment, name), _frame, options, move=_move)


TEACHER = {  # tiny frames, dense rewards: shorter rollouts, more epochs, a higher learning rate that falls
    "network": "minatar-cnn",
    "rl.rollout_steps": 128,
    "rl.epochs": 4,
    "rl.minibatch": 1024,
    "rl.lr": 2.5e-3,
    "rl.lr_end_fraction": 0.02,
    "rl.gamma": 0.99,
}
RUN = {
    "objective.latency_ratio": 0.4,  # of the IMPALA-CNN's: on the Jetson Orin Nano no network of so small frames is below 0.38
    "distill.temperature": 0.5,  # a surer teacher scores more, and so does its student: docs/evidence/distillation.md
}
ENVIRONMENTS.register(
    EnvFamily(
        "minatar",
        "five miniature Atari games, 10x10 boolean planes (Young & Tian 2019)",
        MINATAR_GAMES,
        minatar_envs,
        teacher=TEACHER,
        run=RUN,
    )
)
