"""A plain PPO in the style of the field's single-file scripts, to compare with: float32, eager, NCHW, Gymnasium's wrappers.

Written for this benchmark from the paper (Schulman et al. 2017, arXiv 1707.06347) and from the list of details in Huang et al.
2022, "The 37 implementation details of PPO": orthogonal weights, one Adam with eps 1e-5, advantages normalised in each minibatch,
clipped values, global gradient clipping, rewards divided by the running deviation of the return. Nothing is tuned for speed and
nothing is slowed down: whole minibatches, one forward pass for actor and critic, buffers allocated once.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from cosearch.benchmarks.peers.workloads import Workload


def orthogonal(layer: nn.Linear | nn.Conv2d, gain: float = 2.0**0.5) -> nn.Module:
    """``layer`` with orthogonal weights and no bias."""
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class ResidualPair(nn.Module):
    """x + conv(relu(conv(relu(x)))), 3x3, of the IMPALA-CNN (Espeholt et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, width, height, width']``, shape kept."""
        return x + self.second(torch.relu(self.first(torch.relu(x))))


def body(network: str, channels: int) -> nn.Sequential:
    """The layers before the two output layers, for ``[batch, channels, height, width]`` in 0..1.

    Args:
        network: ``impala``, ``nature`` (both for 64x64) or ``small`` (for 10x10).
        channels: of the frames.

    Returns:
        Features of 256, 512 or 128 numbers.
    """
    if network == "impala":
        layers: list[nn.Module] = []
        for width in (16, 32, 32):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.MaxPool2d(3, 2, 1), ResidualPair(width), ResidualPair(width)]
            channels = width
        return nn.Sequential(*layers, nn.Flatten(), nn.ReLU(), orthogonal(nn.Linear(2048, 256)), nn.ReLU())
    if network == "nature":
        sizes = ((channels, 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1))
        convolutions = [part for size in sizes for part in (orthogonal(nn.Conv2d(*size)), nn.ReLU())]
        return nn.Sequential(*convolutions, nn.Flatten(), orthogonal(nn.Linear(1024, 512)), nn.ReLU())
    return nn.Sequential(
        orthogonal(nn.Conv2d(channels, 16, 3)), nn.ReLU(), nn.Flatten(), orthogonal(nn.Linear(1024, 128)), nn.ReLU()
    )


class Agent(nn.Module):
    """Actor and critic on one body.

    Args:
        workload: names the network.
    """

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.body = body(workload.network, workload.frame_shape[2])
        width = {"impala": 256, "nature": 512, "small": 128}[workload.network]
        self.actor = orthogonal(nn.Linear(width, workload.num_actions), 0.01)
        self.critic = orthogonal(nn.Linear(width, 1), 1.0)

    def forward(self, frames: Tensor, actions: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Actions, their log-probabilities, entropies and values, each ``[batch]``.

        Args:
            frames: ``[batch, height, width, channels]``, 0..255.
            actions: ``[batch]``; None to sample.
        """
        hidden = self.body(frames.permute(0, 3, 1, 2) / 255.0)
        policy = Categorical(logits=self.actor(hidden))
        actions = policy.sample() if actions is None else actions
        return actions, policy.log_prob(actions), policy.entropy(), self.critic(hidden).flatten()


class GymProcgen(gymnasium.vector.VectorEnv):
    """Procgen's engine as a Gymnasium vector environment.

    Args:
        game, num_envs, seed, threads: of the engine.
    """

    def __init__(self, game: str, num_envs: int, seed: int, threads: int) -> None:
        from cosearch.rl.env_families.procgen import ProcgenEnv
        from cosearch.rl.envs import EnvOptions

        self.metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}
        self._engine = ProcgenEnv(game, EnvOptions(num_envs, seed, threads))
        self.num_envs = num_envs
        self.single_observation_space = gymnasium.spaces.Box(0, 255, self._engine.frame_shape, np.uint8)
        self.single_action_space = gymnasium.spaces.Discrete(self._engine.num_actions)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, object]]:
        """The current frames: the engine resets itself."""
        return self._engine.observe(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, object]]:
        """One step of all games."""
        self._engine.send(actions)
        step = self._engine.receive()
        return step.frames, step.reward, step.terminated, step.truncated, {}


def gymnasium_env(workload: Workload, seed: int, threads: int) -> gymnasium.vector.VectorEnv:
    """The workload's environments with the usual wrappers: episode statistics, normalised rewards."""
    family, game = workload.env.split(":")
    if family == "procgen":
        envs: Any = GymProcgen(game, workload.num_envs, seed, threads)
    else:
        import minatar.gym

        name = f"MinAtar/{game.title().replace('_', '')}-v1"
        if name not in gymnasium.registry:
            minatar.gym.register_envs()
        envs = gymnasium.vector.SyncVectorEnv(
            [lambda: gymnasium.make(name)] * workload.num_envs, autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP
        )
    envs = gymnasium.wrappers.vector.RecordEpisodeStatistics(envs, buffer_length=100)
    return gymnasium.wrappers.vector.NormalizeReward(envs, gamma=workload.gamma)


class PlainPpo:
    """The script's loop, one update at a time.

    Args:
        workload: what to train.
        seed: of everything.
        threads: of the engine that steps the games.
    """

    def __init__(self, workload: Workload, seed: int, threads: int) -> None:
        w = self.workload = workload
        torch.manual_seed(seed)
        self.order = np.random.default_rng(seed)
        self.envs = gymnasium_env(w, seed, threads)
        self.agent = Agent(w)
        self.optimiser = torch.optim.Adam(self.agent.parameters(), lr=w.lr, eps=1e-5)
        shape = (w.rollout_steps, w.num_envs)
        self.frames, self.actions = torch.zeros(*shape, *w.frame_shape), torch.zeros(shape, dtype=torch.int64)
        self.log_probs, self.rewards, self.values, self.first = (torch.zeros(shape) for _ in range(4))
        self.now, self.begins = self._tensor(self.envs.reset(seed=seed)[0]), torch.zeros(w.num_envs)
        self.returns: deque[float] = deque(maxlen=100)

    def _tensor(self, frames: np.ndarray) -> Tensor:
        scale = 255.0 if frames.dtype == np.bool_ else 1.0
        return torch.as_tensor(frames, dtype=torch.float32) * scale

    def advance(self) -> None:
        """One rollout and its update."""
        w = self.workload
        for t in range(w.rollout_steps):
            self.frames[t], self.first[t] = self.now, self.begins
            with torch.no_grad():
                action, log_prob, _, value = self.agent(self.now)
            self.actions[t], self.log_probs[t], self.values[t] = action, log_prob, value
            now, reward, terminated, truncated, info = self.envs.step(action.numpy())
            self.rewards[t] = torch.as_tensor(np.clip(reward, -10.0, 10.0))
            done = np.logical_or(terminated, truncated)
            self.now, self.begins = self._tensor(now), torch.as_tensor(done, dtype=torch.float32)
            if "episode" in info:
                self.returns.extend(info["episode"]["r"][info["_episode"]].tolist())
        self._learn(self._advantages())

    def _advantages(self) -> Tensor:
        w = self.workload
        with torch.no_grad():
            after = self.agent(self.now)[3]
        found, trace = torch.zeros_like(self.rewards), torch.zeros(w.num_envs)
        for t in reversed(range(w.rollout_steps)):
            goes_on = 1.0 - (self.begins if t == w.rollout_steps - 1 else self.first[t + 1])
            delta = self.rewards[t] + w.gamma * after * goes_on - self.values[t]
            trace = delta + w.gamma * w.lam * goes_on * trace
            found[t], after = trace, self.values[t]
        return found

    def _learn(self, advantages: Tensor) -> None:
        w = self.workload
        frames, actions, old = self.frames.flatten(0, 1), self.actions.flatten(), self.log_probs.flatten()
        advantages, values = advantages.flatten(), self.values.flatten()
        targets = advantages + values
        for _ in range(w.epochs):
            for index in np.split(self.order.permutation(w.steps_per_update), w.minibatches):
                _, log_prob, entropy, value = self.agent(frames[index], actions[index])
                ratio = (log_prob - old[index]).exp()
                advantage = advantages[index]
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                gain = torch.min(ratio * advantage, ratio.clamp(1.0 - w.clip, 1.0 + w.clip) * advantage)
                near = values[index] + (value - values[index]).clamp(-w.clip, w.clip)
                miss = torch.max((value - targets[index]) ** 2, (near - targets[index]) ** 2)
                loss = -gain.mean() + w.value_weight * 0.5 * miss.mean() - w.entropy_weight * entropy.mean()
                self.optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.agent.parameters(), w.max_grad_norm)
                self.optimiser.step()

    def score(self) -> float | None:
        """See ``Contestant``."""
        return float(np.mean(self.returns)) if self.returns else None

    def shares(self) -> None:
        """See ``Contestant``: not known."""
        return

    def parameters(self) -> int:
        """See ``Contestant``."""
        return sum(p.numel() for p in self.agent.parameters())

    def close(self) -> None:
        """See ``Contestant``."""
        self.envs.close()
