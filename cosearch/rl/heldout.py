"""Held-out levels played beside a training, as in the published Procgen curves: a running mean over the last episodes.

The spectator steps environments of its own with the policy of the moment, as many steps as the training makes, and learns
nothing. Its score has the same meaning and the same delay as the training score that it is compared with.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import torch

from cosearch.record.state import State, read, read_list, read_state
from cosearch.rl.envs import VectorEnv
from cosearch.rl.memory import Carried, cleared, recurrent
from cosearch.rl.policy import act, policy_of
from cosearch.rl.rollout import RECENT_EPISODES, Forward


class HeldOut:
    """Plays held-out levels with whatever policy it is given.

    Args:
        env: environments on the held-out levels.
        generator: CPU generator of the actions.
    """

    def __init__(self, env: VectorEnv, generator: torch.Generator) -> None:
        self.env, self.generator, self._policy = env, generator, policy_of(env)
        self._returns = np.zeros(env.num_envs)
        self._recent: deque[float] = deque(maxlen=RECENT_EPISODES)
        self._memory: torch.Tensor | None = None  # of a policy that has one, between two calls

    def play(self, forward: Forward, steps: int) -> None:
        """Step each environment ``steps`` times, actions sampled.

        Args:
            forward: frames ``[envs, *frame_shape]`` -> policy outputs ``[envs, outputs]``, values ``[envs]``.
            steps: steps of each environment.

        Raises:
            NonFiniteError: the policy returned NaN or infinity.
            EnvironmentFailedError: an environment failed.
        """
        frames, actor = self.env.observe(), Carried(forward, self.env.num_envs, self._memory)
        for _ in range(steps):
            self.env.send(act(actor, frames, self._policy, self.generator))
            step = self.env.receive()
            frames = step.frames
            self._returns += step.reward
            ended = step.terminated | step.truncated
            actor.forget(ended)
            for i in np.flatnonzero(ended):
                self._recent.append(float(self._returns[i]))
                self._returns[i] = 0.0
        self._memory = None if recurrent(forward) is None else actor.memory

    @property
    def score(self) -> float | None:
        """Mean return of the last episodes; None before the first one has ended."""
        return float(np.mean(self._recent)) if self._recent else None

    def state(self) -> State:
        """Plain values and tensors, the environment's state included; the generator is the run's."""
        memory = {} if self._memory is None else {"memory": self._memory}
        returns = torch.from_numpy(self._returns.copy())
        return {"env": self.env.state(), "returns": returns, "recent": list(self._recent), **memory}

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        anew = self.env.restore(read_state(state, "env")) or ()
        self._returns = read(state, "returns", torch.Tensor).numpy().copy()
        self._returns[list(anew)] = 0.0
        self._recent = deque(read_list(state, "recent", float), maxlen=RECENT_EPISODES)
        self._memory = cleared(read(state, "memory", torch.Tensor), anew) if "memory" in state else None

    def close(self) -> None:
        """Release the environments."""
        self.env.close()
