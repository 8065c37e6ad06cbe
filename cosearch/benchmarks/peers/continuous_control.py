"""PPO and SAC of this package and of stable-baselines3 on continuous actions, with one set of values and one evaluation.

Both packages normalise observations by running statistics, PPO rewards too. The values of PPO are those of its authors' MuJoCo
experiments and of the reference implementations since (Huang et al. 2022, The 37 Implementation Details of Proximal Policy
Optimization): 2,048 steps a rollout, 10 epochs of minibatches of 64, Adam 3e-4 falling linearly to 0, gamma 0.99, lambda 0.95,
clip 0.2 and none of the value. Those of SAC are stable-baselines3's defaults. An agent here has actor and critic on one trunk;
for PPO stable-baselines3 is given the same network (``sb3-ppo``), and its own, two networks of that size (``sb3-ppo-apart``).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from cosearch.config.run import Config, resolve
from cosearch.rl.evaluate import evaluate, play_episodes
from cosearch.rl.learning.subject import NetworkSubject
from cosearch.rl.task import make_task
from cosearch.seeding import Streams
from cosearch.space.network import AgentNetwork
from cosearch.training.algorithms import as_deployed, as_trained, learning_rate, make_training
from latency_tables.errors import MissingExtraError
from latency_tables.opspec import OpSpec

EPISODES = 5  # of each evaluation, side by side
CPU = torch.device("cpu")
PPO_ENVS, PPO_STEPS, SAC_ENVS = 4, 512, 1
PPO = {
    "rl.algorithm": "ppo",
    "env.num_envs": PPO_ENVS,
    "rl.rollout_steps": PPO_STEPS,
    "rl.epochs": 10,
    "rl.minibatch": 64,
    "rl.micro_batch": 64,
    "rl.lr": 3e-4,
    "rl.lr_end_fraction": 0.0,
    "rl.gamma": 0.99,
    "rl.lam": 0.95,
    "rl.clip": 0.2,
    "rl.value_clip": False,
    "rl.value_weight": 1.0,  # of half the squared error: 0.5 of the whole one, which stable-baselines3 has
    "rl.entropy_weight": 0.0,
    "rl.max_grad_norm": 0.5,
}
SAC = {"rl.algorithm": "sac", "env.num_envs": SAC_ENVS, "rl.rollout_steps": 250}
WAYS = {"ppo": (True, False), "sac": (True,)}  # PPO raises the return of drawn actions, SAC is judged by the most likely ones
WIDTHS = {"ppo": (64, "tanh"), "sac": (256, "relu")}


@dataclass
class Curve:
    """A training as it was measured.

    Attributes:
        points: environment steps, and the mean returns of the evaluations after them, one a way of acting.
        cpu_s: processor seconds of the training alone.
        steps: environment steps.
    """

    points: list[tuple[int, *tuple[float, ...]]] = field(default_factory=list)
    cpu_s: float = 0.0
    steps: int = 0


class Watch:
    """Evaluates a training at equal distances, and counts the processor seconds between.

    Args:
        every: environment steps between two evaluations.
        ways: of acting in the evaluations: whether the most likely actions are taken, or drawn ones.
        score: one of the ways -> mean return.
    """

    def __init__(self, every: int, ways: Sequence[bool], score: Callable[[bool], float]) -> None:
        self.curve, self._every, self._ways, self._score = Curve(), every, ways, score
        self._began = time.process_time()

    def look(self, step: int, *, last: bool = False) -> None:
        """Evaluate where one is due.

        Args:
            step: environment steps so far.
            last: the training has ended.
        """
        due = step // self._every > (self.curve.points[-1][0] // self._every if self.curve.points else 0)
        if due or (last and (not self.curve.points or self.curve.points[-1][0] < step)):
            self.curve.cpu_s += time.process_time() - self._began
            self.curve.points.append((step, *(self._score(way) for way in self._ways)))
            self._began = time.process_time()
        if last:
            self.curve.cpu_s += time.process_time() - self._began
            self.curve.steps = step


def config_of(algorithm: str, task: str, seed: int) -> Config:
    """The configuration of this package's training.

    Args:
        algorithm: ``ppo`` or ``sac``.
        task: a Gymnasium id.
        seed: of everything.
    """
    values = {**(PPO if algorithm == "ppo" else SAC), "rl.bf16": False, "distill.teacher": "none", "threads": 1, "seed": seed}
    return resolve(overrides=[f"{key}={json.dumps(value)}" for key, value in values.items()], options={"env.name": f"gym:{task}"})


def blocks(algorithm: str, features: int, actions: int) -> list[OpSpec]:
    """Two layers, 64 wide with tanh for PPO and 256 wide with ReLU for SAC, and the head."""
    width, activation = WIDTHS[algorithm]
    first = OpSpec("linear", features, 1, 1, width, activation=activation)
    second = OpSpec("linear", width, 1, 1, width, activation=activation)
    return [first, second, OpSpec("head", width, 1, 1, actions + 1, activation="none")]


def ours(algorithm: str, task: str, seed: int, steps: int, every: int) -> Curve:
    """Train this package's agent.

    Args:
        algorithm, task, seed: see :func:`config_of`.
        steps: environment steps.
        every: between two evaluations.
    """
    config = config_of(algorithm, task, seed)
    streams, probe = Streams(seed), make_task(config.env, 1, 0)
    ops = blocks(algorithm, probe.frame_shape[0], probe.num_actions)
    probe.close()
    network = as_trained(AgentNetwork(ops, streams.torch("weights"), policy="gaussian"), config, streams)
    subject = NetworkSubject(network, lr=learning_rate(config), bf16=False, device=CPU)
    training = make_training(config, subject, streams, None, total_steps=steps)

    def score(greedy: bool) -> float:
        env = make_task(config.env, EPISODES, seed, test=True)
        try:
            return evaluate(as_deployed(network, config).eval(), env, EPISODES, streams.torch("eval"), greedy=greedy).mean
        finally:
            env.close()

    watch = Watch(every, WAYS[algorithm], score)
    try:
        while not training.finished:
            training.advance()
            watch.look(training.step, last=training.finished)
    finally:
        training.close()
    return watch.curve


def theirs(algorithm: str, task: str, seed: int, steps: int, every: int, *, apart: bool = False) -> Curve:
    """Train the agent of stable-baselines3.

    Args:
        algorithm, task, seed, steps, every: see :func:`ours`.
        apart: PPO with two networks, as it has by itself.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import stable_baselines3 as sb3
        from stable_baselines3.common.callbacks import BaseCallback
        from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
    except ImportError as error:
        raise MissingExtraError(f"the benchmark's peer cannot be imported ({error}): pip install 'cosearch[bench]'") from error

    count = PPO_ENVS if algorithm == "ppo" else SAC_ENVS
    plain = DummyVecEnv([lambda: gymnasium.make(task)] * count)
    envs = VecNormalize(plain, norm_obs=True, norm_reward=algorithm == "ppo", gamma=0.99)
    config = config_of(algorithm, task, seed)
    if algorithm == "ppo":
        policy: dict[str, Any] = {"optimizer_kwargs": {"eps": 1e-5}}
        if not apart:
            policy |= {"features_extractor_class": trunk_class(), "net_arch": []}
        model: Any = sb3.PPO(
            "MlpPolicy",
            envs,
            lambda left: left * 3e-4,
            n_steps=PPO_STEPS,
            batch_size=64,
            n_epochs=10,
            gamma=0.99,
            policy_kwargs=policy,
            seed=seed,
            device=CPU,
        )
    else:
        model = sb3.SAC("MlpPolicy", envs, seed=seed, device=CPU)

    def score(greedy: bool) -> float:
        def choose(frames: np.ndarray) -> np.ndarray:
            return model.predict(envs.normalize_obs(frames), deterministic=greedy)[0]

        env = make_task(config.env, EPISODES, seed, test=True)
        try:
            with torch.random.fork_rng(devices=[]):  # which the training draws from
                return play_episodes(choose, env, EPISODES).mean
        finally:
            env.close()

    watch = Watch(every, WAYS[algorithm], score)

    class Looking(BaseCallback):
        """Looks after each update."""

        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            watch.look(self.num_timesteps)

    model.learn(steps, callback=Looking())
    watch.look(model.num_timesteps, last=True)
    envs.close()
    return watch.curve


def trunk_class() -> type:
    """Two layers of 64 as the part of stable-baselines3's policy that actor and critic share."""
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

    class Trunk(BaseFeaturesExtractor):
        """Two layers of 64 with tanh."""

        def __init__(self, observation_space: gymnasium.spaces.Box) -> None:
            super().__init__(observation_space, 64)
            self.layers = nn.Sequential(nn.Linear(observation_space.shape[0], 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())

        def forward(self, observations: Tensor) -> Tensor:
            """``[batch, features]`` -> ``[batch, 64]``."""
            return self.layers(observations)

    return Trunk
