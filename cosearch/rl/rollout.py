"""Collecting on-policy experience: one rollout of all environments, with truncation, normalised rewards and teacher labels.

The environments are split evenly over the given actors: one for a plain network, several sampled paths for a supernet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cosearch.record.state import State, read, read_list, read_state
from cosearch.rl.envs import VectorEnv, frame_dtype
from cosearch.rl.learning.losses import gae
from cosearch.rl.memory import Carried, Segments, cleared, recurrent
from cosearch.rl.memory import Forward as Forward
from cosearch.rl.policy import Categorical, Policy, policy_of
from latency_tables.errors import NonFiniteError, ShapeError

RECENT_EPISODES = 100


@dataclass
class Rollout:
    """Experience of ``time`` steps in ``envs`` environments; all tensors on the CPU.

    Attributes:
        frames: ``[time, envs, *frame_shape]``, uint8 images or float32 vectors.
        actions: ``[time, envs]``, int64, or ``[time, envs, size]``, float32, not clipped.
        log_prob, value, advantage, target: ``[time, envs]``, float32; value and target in normalised reward units.
        teacher_policy: ``[time, envs, outputs]`` or None: parameters of the teacher's policy, log-probabilities if discrete; of a
            teacher that gives actions alone these, ``[time, envs, 1]``, int64, or ``[time, envs, size]``.
        teacher_value: ``[time, envs]``; None without a teacher, and of one that gives no values.
        policy: the distribution that drew the actions.
        segments: how its steps follow each other; None: in no order.
    """

    frames: Tensor
    actions: Tensor
    log_prob: Tensor
    value: Tensor
    advantage: Tensor
    target: Tensor
    teacher_policy: Tensor | None = None
    teacher_value: Tensor | None = None
    policy: Policy = Categorical()
    segments: Segments | None = None


class RewardScale:
    """Divides rewards by the running deviation of the discounted return, clipped to +-10 (as stable-baselines3's VecNormalize).

    Args:
        num_envs: environments.
        gamma: discount of the return, the learner's own.
        fixed_std: a scale that never changes, e.g. the teacher's, so that values mean the same to both; None to estimate.
    """

    def __init__(self, num_envs: int, gamma: float, fixed_std: float | None = None) -> None:
        self.gamma, self.fixed_std = gamma, fixed_std
        self._return = np.zeros(num_envs, dtype=np.float64)
        self._mean, self._var, self._count = 0.0, 1.0, 1e-4

    @property
    def std(self) -> float:
        """Current divisor, in units of reward."""
        return self.fixed_std if self.fixed_std is not None else float(np.sqrt(self._var + 1e-8))

    def __call__(self, reward: np.ndarray, done: np.ndarray) -> np.ndarray:
        """Scale ``reward`` ``[envs]``; ``done`` ``[envs]`` restarts the returns."""
        self._return = self._return * self.gamma + reward
        if self.fixed_std is None:
            mean, var, n = self._return.mean(), self._return.var(), self._return.size
            delta, total = mean - self._mean, self._count + n
            self._var = (self._var * self._count + var * n + delta**2 * self._count * n / total) / total
            self._mean += delta * n / total
            self._count = total
        self._return[done] = 0.0
        return np.clip(reward / self.std, -10.0, 10.0).astype(np.float32)

    def begin_anew(self, environments: Sequence[int]) -> None:
        """Forget the running returns of environments whose episode was given up."""
        self._return[list(environments)] = 0.0

    def state(self) -> State:
        """Plain values and tensors."""
        return {
            "return": torch.from_numpy(self._return.copy()),
            "mean": float(self._mean),
            "var": float(self._var),
            "count": float(self._count),
        }

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self._return = read(state, "return", Tensor).numpy().copy()
        self._mean, self._var, self._count = read(state, "mean", float), read(state, "var", float), read(state, "count", float)


class Episodes:
    """Counts the episodes of all environments and their returns.

    Args:
        num_envs: environments.
    """

    def __init__(self, num_envs: int) -> None:
        self.returns = np.zeros(num_envs, dtype=np.float64)
        self.recent: deque[float] = deque(maxlen=RECENT_EPISODES)
        self.ended = 0

    def count(self, reward: np.ndarray, done: np.ndarray) -> None:
        """One step of all environments: rewards and ends ``[envs]``."""
        self.returns += reward
        for i in np.flatnonzero(done):
            self.recent.append(float(self.returns[i]))
            self.returns[i] = 0.0
            self.ended += 1

    @property
    def score(self) -> float | None:
        """Mean return of the last episodes; None before the first one has ended."""
        return float(np.mean(self.recent)) if self.recent else None

    def begin_anew(self, environments: Sequence[int]) -> None:
        """Forget the running returns of environments whose episode was given up."""
        self.returns[list(environments)] = 0.0

    def state(self) -> State:
        """Plain values and tensors."""
        return {"returns": torch.from_numpy(self.returns.copy()), "recent": list(self.recent), "episodes": self.ended}

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.returns = read(state, "returns", Tensor).numpy().copy()
        self.recent = deque(read_list(state, "recent", float), maxlen=RECENT_EPISODES)
        self.ended = read(state, "episodes", int)


class Collector:
    """Steps the environments with the student's sampled actions.

    Args:
        env: the vector environment.
        num_steps: steps of one rollout.
        gamma, lam: discount and trace decay.
        scale: reward normaliser.
        generator: CPU generator of the actions.
    """

    def __init__(
        self, env: VectorEnv, num_steps: int, *, gamma: float, lam: float, scale: RewardScale, generator: torch.Generator
    ) -> None:
        self.env, self.num_steps, self.gamma, self.lam, self.scale, self.generator = env, num_steps, gamma, lam, scale, generator
        self.policy = policy_of(env)
        self.counted = Episodes(env.num_envs)
        self.memory: Tensor | None = None  # ``[envs, memory_size]`` between two rollouts, of actors that have one

    def collect(self, actors: Sequence[Forward], watch: Callable[[Tensor, int], None] | None = None) -> Rollout:
        """One rollout; the environments are shared evenly among the actors, in order.

        Args:
            actors: frames ``[batch, *frame_shape]`` -> policy outputs ``[batch, outputs]``, values ``[batch]``, or recurrent.
            watch: told at each step all frames of the rollout ``[time * envs, *frame_shape]`` and how many are known.

        Raises:
            ShapeError: the number of environments is no multiple of the number of actors.
            NonFiniteError: an actor returned NaN.
            EnvironmentFailedError: an environment failed.
        """
        steps, n, env = self.num_steps, self.env.num_envs, self.env
        if n % len(actors):
            raise ShapeError(
                f"{n} environments cannot be shared evenly by {len(actors)} paths: "
                "set env.num_envs to a multiple of strategy.paths_per_rollout"
            )
        share = n // len(actors)
        frames = np.empty((steps, n, *env.frame_shape), dtype=frame_dtype(env.frame_shape))
        actions, log_prob = self.policy.empty_actions(steps, n), torch.empty(steps, n)
        value = np.empty((steps + 1, n), dtype=np.float32)
        reward, done = np.empty((steps, n), dtype=np.float32), np.empty((steps, n), dtype=np.bool_)
        flat = torch.from_numpy(frames).flatten(0, 1)
        now = env.observe()
        kept = None if self.memory is None else self.memory.split(share)
        cast = [Carried(actor, share, None if kept is None else kept[i]) for i, actor in enumerate(actors)]
        begun = torch.cat([actor.memory for actor in cast]) if recurrent(actors[0]) is not None else None
        with torch.inference_mode():
            for t in range(steps):
                frames[t] = now
                if watch is not None:
                    watch(flat, (t + 1) * n)
                parts = [actor(torch.from_numpy(frames[t, i * share : (i + 1) * share])) for i, actor in enumerate(cast)]
                parameters = self.policy.read(torch.cat([outputs for outputs, _ in parts]))
                if not torch.isfinite(parameters).all():
                    raise NonFiniteError(f"the policy returned NaN or infinite action probabilities at step {t} of a rollout")
                actions[t] = self.policy.sample(parameters, self.generator)
                env.send(actions[t].numpy())
                log_prob[t] = self.policy.log_prob(parameters, actions[t])  # while the environments step
                value[t] = torch.cat([v for _, v in parts]).float().numpy()
                step = env.receive()
                now, done[t] = step.frames, step.terminated | step.truncated
                reward[t] = self.scale(step.reward, done[t])
                for i, last in step.last_frames.items():
                    reward[t, i] += self.gamma * float(cast[i // share].value(torch.from_numpy(last[None]), i % share))
                for i, actor in enumerate(cast):
                    actor.forget(done[t, i * share : (i + 1) * share])
                self.counted.count(step.reward, done[t])
            value[steps] = (
                torch.cat([actor.value(torch.from_numpy(now[i * share : (i + 1) * share])) for i, actor in enumerate(cast)])
                .float()
                .numpy()
            )
        self.memory = None if begun is None else torch.cat([actor.memory for actor in cast])
        begins = torch.zeros(steps + 1, n, dtype=torch.bool)
        begins[1:] = torch.from_numpy(done)
        advantage = gae(reward, value, done, gamma=self.gamma, lam=self.lam)
        return Rollout(
            torch.from_numpy(frames),
            actions,
            log_prob,
            torch.from_numpy(value[:-1].copy()),
            torch.from_numpy(advantage),
            torch.from_numpy(advantage + value[:-1]),
            policy=self.policy,
            segments=Segments(begins, begun),
        )

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
        memory = {} if self.memory is None else {"memory": self.memory}
        return {"env": self.env.state(), "scale": self.scale.state(), **self.counted.state(), **memory}

    def restore(self, state: State) -> Sequence[int]:
        """Go back to a :meth:`state`; returns the environments whose episode begins anew, see ``VectorEnv.restore``."""
        anew = restore_played(self.env, self.scale, self.counted, state)
        self.memory = cleared(read(state, "memory", Tensor), anew) if "memory" in state else None
        return anew


def restore_played(env: VectorEnv, scale: RewardScale, counted: Episodes, state: State) -> Sequence[int]:
    """Go back to the state of what steps environments: they themselves, the reward's scale and the counted episodes.

    Returns:
        The environments whose episode could not be continued and begins anew; its return is not counted.
    """
    anew = env.restore(read_state(state, "env")) or ()
    scale.restore(read_state(state, "scale"))
    counted.restore(state)
    scale.begin_anew(anew)
    counted.begin_anew(anew)
    return anew
