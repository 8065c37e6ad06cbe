"""Procgen (Cobbe et al. 2020) through its C++ batch interface, with exact save and restore.

Easy distribution. Training levels are ``0 .. train_levels - 1``; the test levels are all later ones, so the two never
overlap. Validation levels are training levels that a search keeps from its weights (``cosearch.rl.validation``). The engine
counts a time-out as an ordinary end of the episode and never shows the last frame.
"""

from __future__ import annotations

import sys
import types

import numpy as np
import torch

from cosearch.record.state import State, read_list
from cosearch.rl.envs import ENVIRONMENTS, Box, EnvFamily, EnvOptions, Step
from latency_tables.errors import MissingExtraError

GAMES = (
    "bigfish",
    "bossfight",
    "caveflyer",
    "chaser",
    "climber",
    "coinrun",
    "dodgeball",
    "fruitbot",
    "heist",
    "jumper",
    "leaper",
    "maze",
    "miner",
    "ninja",
    "plunder",
    "starpilot",
)
LAST_LEVEL = 2**31 - 1


def _import_procgen() -> types.ModuleType:
    """Import Procgen without its registration in the retired ``gym`` package, which prints advertisements on stderr."""
    if "procgen" in sys.modules:
        return sys.modules["procgen"]
    names = ("gym", "gym.envs", "gym.envs.registration")
    saved = {name: sys.modules.get(name) for name in names}
    for name in names:
        sys.modules[name] = types.ModuleType(name)
    vars(sys.modules["gym.envs.registration"])["register"] = lambda *args, **kwargs: None
    try:
        import procgen
    except ImportError as error:
        raise MissingExtraError(
            f"Procgen cannot be imported ({error}). On Linux with Python 3.11 or 3.12: pip install procgen-mirror==0.10.7"
        ) from error
    finally:
        for name, module in saved.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    return procgen


class ProcgenEnv:
    """``options.num_envs`` Procgen games stepped by the engine's own threads.

    Args:
        game: one of :data:`GAMES`.
        options: number, seed, levels.
    """

    frame_shape = (64, 64, 3)
    num_actions = 15
    action_box: Box | None = None
    exact_resume = True

    def __init__(self, game: str, options: EnvOptions) -> None:
        levels = (
            {"start_level": options.train_levels, "num_levels": LAST_LEVEL - options.train_levels}
            if options.test
            else {"start_level": options.first_level, "num_levels": options.train_levels}
        )
        self.num_envs = options.num_envs
        self._env = _import_procgen().ProcgenGym3Env(
            num=options.num_envs,
            env_name=game,
            distribution_mode="easy",
            rand_seed=options.seed,
            num_threads=options.threads,
            **levels,
        )
        self.action_names = tuple("+".join(buttons).lower() or "noop" for buttons in self._env.combos)
        self._none_truncated = np.zeros(options.num_envs, dtype=np.bool_)

    def observe(self) -> np.ndarray:
        """See ``VectorEnv``."""
        return self._env.observe()[1]["rgb"]

    def send(self, actions: np.ndarray) -> None:
        """See ``VectorEnv``. Returns at once where the engine has threads."""
        self._env.act(np.ascontiguousarray(actions, dtype=np.int32))

    def receive(self) -> Step:
        """See ``VectorEnv``."""
        reward, frames, first = self._env.observe()
        return Step(
            frames["rgb"], np.asarray(reward, dtype=np.float32), np.asarray(first, dtype=np.bool_), self._none_truncated, {}
        )

    def state(self) -> State:
        """See ``VectorEnv``: the engine's own bytes, one array an environment."""
        raw = self._env.callmethod("get_state")
        return {"engine": [torch.frombuffer(bytearray(state), dtype=torch.uint8) for state in raw]}

    def restore(self, state: State) -> None:
        """See ``VectorEnv``."""
        self._env.callmethod("set_state", [part.numpy().tobytes() for part in read_list(state, "engine", torch.Tensor)])

    def close(self) -> None:
        """See ``VectorEnv``."""
        self._env.close()


# Each frame is learned from once, in small minibatches: 2.7 times the published optimiser steps for a third of the passes.
TEACHER = {"rl.rollout_steps": 128, "rl.minibatch": 256, "rl.epochs": 1, "rl.lr_hold_fraction": 0.25}
RUN = {"distill.temperature": 0.5}  # a surer teacher scores more, and so does its student: docs/evidence/distillation.md
ENVIRONMENTS.register(
    EnvFamily(
        "procgen",
        "16 procedurally generated games, easy levels, 64x64x3 (Cobbe et al. 2020)",
        GAMES,
        ProcgenEnv,
        teacher=TEACHER,
        run=RUN,
        has_levels=True,
    )
)
