"""Acting while an agent learns by soft actor-critic: sampled from its squashed Gaussian, at first uniformly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cosearch.record.state import State
from cosearch.rl.envs import Box, Step, VectorEnv
from cosearch.rl.rollout import Episodes, Forward, RewardScale, restore_played
from cosearch.rl.sac.losses import squashed
from latency_tables.errors import NonFiniteError


class SquashedPlayer:
    """Steps the environments with actions in (-1, 1), which stand for the bounds, and counts their episodes.

    Args:
        env: the vector environment.
        box: the bounds of its actions, all finite.
        generator: CPU generator of the actions.
    """

    def __init__(self, env: VectorEnv, box: Box, generator: torch.Generator) -> None:
        self.env, self.generator, self.counted = env, generator, Episodes(env.num_envs)
        self.scale = RewardScale(env.num_envs, 1.0, 1.0)  # rewards stay as they are; saved like any collector's
        self._half, self._middle = np.array(box.ranges, np.float32).T

    def play(self, actors: Sequence[Forward], frames: np.ndarray, *, uniform: bool) -> tuple[np.ndarray, Step]:
        """One step of all environments, which the actors share evenly, in order.

        Args:
            actors: observations ``[batch, features]`` -> outputs ``[batch, 2 size]``, and anything.
            frames: ``[num_envs, features]``, the present ones.
            uniform: actions do not ask the actors.

        Returns:
            The actions ``[num_envs, size]`` in (-1, 1) and what followed.

        Raises:
            NonFiniteError: an actor returned NaN.
            EnvironmentFailedError: an environment failed.
        """
        n, size = self.env.num_envs, self.env.num_actions
        if uniform:
            actions = torch.empty(n, size).uniform_(-1.0, 1.0, generator=self.generator).numpy()
        else:
            share = n // len(actors)
            with torch.inference_mode():
                parts = [actor(torch.from_numpy(frames[i * share : (i + 1) * share]))[0] for i, actor in enumerate(actors)]
                drawn, _ = squashed(torch.cat(parts), torch.randn(n, size, generator=self.generator))
            actions = drawn.numpy()
            if not np.isfinite(actions).all():
                raise NonFiniteError("the actions are NaN or infinite while playing")
        self.env.send(self._middle + self._half * actions)
        step = self.env.receive()
        self.counted.count(step.reward, step.terminated | step.truncated)
        return actions, step

    @property
    def episodes(self) -> int:
        """Episodes that have ended."""
        return self.counted.ended

    @property
    def score(self) -> float | None:
        """Mean return of the last episodes; None before the first one has ended."""
        return self.counted.score

    def state(self) -> State:
        """Plain values and tensors, the environment's state included."""
        return {"env": self.env.state(), "scale": self.scale.state(), **self.counted.state()}

    def restore(self, state: State) -> Sequence[int]:
        """Go back to a :meth:`state`; returns the environments whose episode begins anew, see ``VectorEnv.restore``."""
        return restore_played(self.env, self.scale, self.counted, state)
