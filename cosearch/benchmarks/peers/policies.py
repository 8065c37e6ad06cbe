"""Policies made by other packages, saved as each documents: what ``cosearch.benchmarks.compress`` gives to the command.

stable-baselines3 trains its own (PPO and DQN on CartPole, SAC on Pendulum). The networks of rsl_rl and skrl are the packages' own
and leave as these document, but learn here by regression on the actions of that SAC: their trainers are made for simulators with
thousands of environments. The convolutional one has the weights of the shipped teacher of MinAtar's Breakout.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cosearch.rl.teacher import find_teacher, load_network
from latency_tables.errors import MissingExtraError

CARTPOLE, PENDULUM, BREAKOUT = "gym:CartPole-v1", "gym:Pendulum-v1", "minatar:breakout"
REGRESSION_STEPS = 3_000
WIDE = {"net_arch": [256, 256]}


@dataclass(frozen=True)
class PolicyFile:
    """A policy as a user has it.

    Attributes:
        path: of its file.
        env: that it plays.
        words: further words of the command.
        about: network and origin of its weights, in words.
    """

    path: Path
    env: str
    words: tuple[str, ...]
    about: str


def module(name: str, package: str) -> Any:
    """A module of another package.

    Args:
        name: of the module.
        package: that it comes with, for the message.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"{package} cannot be imported ({error}): pip install {package}") from error


def write_onnx(path: Path, network: nn.Module, example: Any, inputs: list[str], outputs: list[str], **how: Any) -> Path:
    """A network as an ONNX file, by torch's own exporter; returns the path."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(), example, str(path), dynamo=False, opset_version=17, input_names=inputs, output_names=outputs, **how
        )
    return path


class _Documented(nn.Module):
    """``policy(observation, deterministic=True)``, as the export page of stable-baselines3 has it."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observation: Tensor) -> Any:
        return self.policy(observation, deterministic=True)


def _trained(folder: Path, algorithm: str, env: str, steps: int, seed: int, **how: Any) -> Any:
    """A model of stable-baselines3, trained once for each folder and seed."""
    path = folder / f"{algorithm.lower()}-s{seed}.zip"
    maker = getattr(module("stable_baselines3", "stable-baselines3"), algorithm)
    if path.is_file():
        return maker.load(path, device="cpu")
    torch.set_num_threads(1)
    model = maker("MlpPolicy", env.partition(":")[2], seed=seed, device="cpu", **how)
    model.learn(steps)
    model.save(path)
    return model


def _ppo(folder: Path, seed: int) -> Any:
    how = {"n_steps": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 10, "learning_rate": 1e-3, "policy_kwargs": WIDE}
    return _trained(folder, "PPO", CARTPOLE, 20_480, seed, **how)


def _sac(folder: Path, seed: int) -> Any:
    return _trained(folder, "SAC", PENDULUM, 5_000, seed, learning_rate=1e-3)


def sb3_ppo(folder: Path, seed: int) -> PolicyFile:
    """PPO's zip."""
    _ppo(folder, seed)
    return PolicyFile(folder / f"ppo-s{seed}.zip", CARTPOLE, (), "PPO's zip, 256-256 twice, 20,480 steps")


def sb3_onnx(folder: Path, seed: int) -> PolicyFile:
    """The same policy as the page of stable-baselines3 exports it: actions, a batch of 1."""
    path = folder / f"ppo-s{seed}.onnx"
    write_onnx(path, _Documented(_ppo(folder, seed).policy), (torch.randn(1, 4),), ["input"], ["actions", "values", "log_prob"])
    return PolicyFile(path, CARTPOLE, (), "the same policy, documented ONNX export: actions alone, batch 1")


def sb3_dqn(folder: Path, seed: int) -> PolicyFile:
    """DQN's zip."""
    how = {"learning_rate": 2.3e-3, "batch_size": 64, "buffer_size": 100_000, "learning_starts": 1000, "gamma": 0.99}
    more = {"target_update_interval": 10, "train_freq": 256, "gradient_steps": 128, "exploration_fraction": 0.16}
    _trained(folder, "DQN", CARTPOLE, 50_000, seed, **how, **more, exploration_final_eps=0.04, policy_kwargs=WIDE)
    return PolicyFile(folder / f"dqn-s{seed}.zip", CARTPOLE, (), "DQN's zip, 256-256, 50,000 steps")


def sb3_sac(folder: Path, seed: int) -> PolicyFile:
    """SAC's zip."""
    _sac(folder, seed)
    return PolicyFile(folder / f"sac-s{seed}.zip", PENDULUM, (), "SAC's zip, 256-256, 5,000 steps")


def _examples(folder: Path, seed: int) -> tuple[Tensor, Tensor]:
    """Observations of Pendulum that SAC meets, some random actions among its own; and its actions in the environment's units."""
    import gymnasium

    model, random = _sac(folder, seed), np.random.default_rng(seed)
    env = gymnasium.make("Pendulum-v1")
    seen = []
    for episode in range(20):
        observation, _ = env.reset(seed=episode)
        for _ in range(200):
            seen.append(observation)
            action = model.predict(observation, deterministic=True)[0]
            chosen = action if random.random() < 0.7 else env.action_space.sample()
            observation = env.step(chosen)[0]
    x = np.stack(seen).astype(np.float32)
    return torch.from_numpy(x), torch.from_numpy(model.predict(x, deterministic=True)[0])


def _regress(network: Callable[[Tensor], Tensor], weights: Any, x: Tensor, wanted: Tensor, seed: int) -> None:
    """Fit a network to the actions."""
    optimiser, generator = torch.optim.Adam(weights, 1e-3), torch.Generator().manual_seed(seed)
    for _ in range(REGRESSION_STEPS):
        index = torch.randint(len(x), (128,), generator=generator)
        optimiser.zero_grad()
        (network(x[index]) - wanted[index]).square().mean().backward()
        optimiser.step()


def rsl_rl(folder: Path, seed: int) -> PolicyFile:
    """The actor of rsl_rl, as its runner exports it: the normaliser inside, a batch of 1, means named ``actions``."""
    models, tensordict = module("rsl_rl.models", "rsl-rl-lib"), module("tensordict", "tensordict")
    x, wanted = _examples(folder, seed)
    torch.manual_seed(seed)
    seen = tensordict.TensorDict({"policy": x}, batch_size=[len(x)])
    gaussian = {"class_name": "GaussianDistribution", "init_std": 0.5}
    actor = models.MLPModel(
        seen, {"actor": ["policy"]}, "actor", 1, hidden_dims=[512, 256, 128], obs_normalization=True, distribution_cfg=gaussian
    )
    actor.obs_normalizer.train()
    actor.update_normalization(seen)
    actor.eval()
    _regress(lambda rows: actor.mlp(actor.obs_normalizer(rows)), actor.mlp.parameters(), x, wanted, seed)
    made = actor.as_onnx(verbose=False)
    path = folder / f"rsl_rl-s{seed}.onnx"
    write_onnx(path, made, made.get_dummy_inputs(), made.input_names, made.output_names)
    return PolicyFile(path, PENDULUM, (), "its actor and exporter, 512-256-128, regression on SAC")


def skrl(folder: Path, seed: int) -> PolicyFile:
    """A Gaussian model of skrl; its scaler lies beside it."""
    models, scalers = module("skrl.models.torch", "skrl"), module("skrl.resources.preprocessors.torch", "skrl")
    from gymnasium.spaces import Box

    x, wanted = _examples(folder, seed)
    torch.manual_seed(seed)
    scaler = scalers.RunningStandardScaler(size=3, device="cpu")
    scaler(x, train=True)
    save_file(scaler.state_dict(), folder / f"skrl-s{seed}.safetensors")

    class Model(models.GaussianMixin, models.Model):  # type: ignore[name-defined]  # skrl is imported on use
        def __init__(self) -> None:
            models.Model.__init__(self, observation_space=Box(-8, 8, (3,)), action_space=Box(-2, 2, (1,)), device="cpu")
            models.GaussianMixin.__init__(self)
            self.net = nn.Sequential(nn.Linear(3, 256), nn.ELU(), nn.Linear(256, 128), nn.ELU(), nn.Linear(128, 1))
            self.log_std = nn.Parameter(torch.full((1,), -1.0))

        def compute(self, inputs: Any, role: str = "") -> Any:
            return self.net(inputs["observations"]), {"log_std": self.log_std}

        def forward(self, observations: Tensor) -> Any:
            mean, others = self.compute({"observations": observations})
            return mean, others["log_std"] + 0.0 * mean

    model = Model()
    with torch.no_grad():
        scaled = scaler(x).float()
    _regress(model.net, model.net.parameters(), scaled, wanted, seed)
    path = folder / f"skrl-s{seed}.onnx"
    free = {"observations": {0: "batch"}}
    write_onnx(path, model, (torch.zeros(2, 3),), ["observations"], ["mean", "log_std"], dynamic_axes=free)
    words = ("--normaliser", str(folder / f"skrl-s{seed}.safetensors"))
    return PolicyFile(path, PENDULUM, words, "its Gaussian model, 256-128, scaler beside the file, regression on SAC")


def cnn_float(folder: Path, seed: int) -> PolicyFile:
    """A convolutional network that takes float images from 0 to 1, channels first, and gives logits and a value."""
    record = find_teacher("minatar-breakout", BREAKOUT)
    if record is None:
        raise MissingExtraError("the shipped teacher of minatar:breakout is not there: install the package again")
    network = load_network(record)

    class Pictures(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pictures: Tensor) -> Any:
            return self.network((255.0 * pictures).permute(0, 2, 3, 1))

    path = folder / "cnn_float.onnx"
    free = {name: {0: "batch"} for name in ("pictures", "logits", "value")}
    write_onnx(path, Pictures(), (torch.zeros(2, 4, 10, 10),), ["pictures"], ["logits", "value"], dynamic_axes=free)
    return PolicyFile(path, BREAKOUT, ("--pixels", "1"), "float images, channels first; weights of the shipped teacher")


POLICIES: dict[str, Callable[[Path, int], PolicyFile]] = {
    "stable-baselines3 PPO": sb3_ppo,
    "stable-baselines3 PPO, ONNX": sb3_onnx,
    "stable-baselines3 DQN": sb3_dqn,
    "stable-baselines3 SAC": sb3_sac,
    "rsl_rl": rsl_rl,
    "skrl": skrl,
    "CNN, float": cnn_float,
}
