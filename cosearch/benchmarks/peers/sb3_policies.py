"""Policies that stable-baselines3 trains and saves itself: PPO and DQN on CartPole, SAC on Pendulum; and its ONNX export."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import torch
from torch import Tensor, nn

from cosearch.benchmarks.peers.policy_files import CARTPOLE, PENDULUM, PolicyFile, module, once, write_onnx

WIDE = {"net_arch": [256, 256]}


class _Documented(nn.Module):
    """``policy(observation, deterministic=True)``, as the export page of stable-baselines3 has it."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observation: Tensor) -> Any:
        return self.policy(observation, deterministic=True)


def _trained(folder: Path, algorithm: str, env: str, steps: int, how: Mapping[str, Any], evaluated: int = 0) -> Path:
    """A zip; with ``evaluated`` the best of the evaluations that come after so many steps each."""

    def make(path: Path) -> None:
        maker = getattr(module("stable_baselines3", "stable-baselines3"), algorithm)
        game = env.partition(":")[2]
        model = maker("MlpPolicy", game, seed=0, device="cpu", **how)
        if not evaluated:
            model.learn(steps)
            model.save(path)
            return
        callbacks = module("stable_baselines3.common.callbacks", "stable-baselines3")
        monitor = module("stable_baselines3.common.monitor", "stable-baselines3").Monitor
        with tempfile.TemporaryDirectory(dir=folder) as best:
            played = monitor(gymnasium.make(game))
            model.learn(steps, callbacks.EvalCallback(played, best_model_save_path=best, eval_freq=evaluated, verbose=0))
            os.replace(Path(best) / "best_model.zip", path)

    return once(folder / f"{algorithm.lower()}.zip", make)


def _ppo(folder: Path) -> Path:
    how = {"n_steps": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 10, "learning_rate": 1e-3, "policy_kwargs": WIDE}
    return _trained(folder, "PPO", CARTPOLE, 20_480, how)


def ppo_zip(folder: Path) -> PolicyFile:
    """PPO's zip."""
    return PolicyFile(_ppo(folder), CARTPOLE, (), "PPO's zip, 256-256 twice, 20,480 steps")


def ppo_onnx(folder: Path) -> PolicyFile:
    """The same policy as the page of stable-baselines3 exports it: actions, a batch of 1."""
    weights = _ppo(folder)

    def make(path: Path) -> None:
        policy = module("stable_baselines3", "stable-baselines3").PPO.load(weights, device="cpu").policy
        write_onnx(path, _Documented(policy), (torch.randn(1, 4),), ["input"], ["actions", "values", "log_prob"])

    path = once(folder / "ppo.onnx", make)
    return PolicyFile(path, CARTPOLE, (), "the same policy, documented ONNX export: actions alone, batch 1")


def dqn_zip(folder: Path) -> PolicyFile:
    """DQN's zip."""
    how = {"learning_rate": 2.3e-3, "batch_size": 64, "buffer_size": 100_000, "learning_starts": 1000, "gamma": 0.99}
    more = {"target_update_interval": 10, "train_freq": 256, "gradient_steps": 128, "exploration_fraction": 0.16}
    last = {"exploration_final_eps": 0.04, "policy_kwargs": WIDE}
    path = _trained(folder, "DQN", CARTPOLE, 50_000, {**how, **more, **last}, evaluated=2_560)  # its last weights may play badly
    return PolicyFile(path, CARTPOLE, (), "DQN's zip, 256-256, the best of 50,000 steps")


def sac(folder: Path) -> Path:
    """The zip of a SAC that plays Pendulum, whose actions other networks are fitted to."""
    return _trained(folder, "SAC", PENDULUM, 10_000, {"learning_rate": 1e-3}, evaluated=1_000)  # 5,000 steps sometimes play badly


def sac_zip(folder: Path) -> PolicyFile:
    """SAC's zip."""
    return PolicyFile(sac(folder), PENDULUM, (), "SAC's zip, 256-256, the best of 10,000 steps")
