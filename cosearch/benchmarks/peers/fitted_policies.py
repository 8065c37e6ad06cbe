"""Policies of packages whose trainers are made for simulators with thousands of environments: networks and export are the
packages' own, the weights are fitted to the actions that a SAC of stable-baselines3 takes in Pendulum."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cosearch.benchmarks.peers.cleanrl_actor import Actor
from cosearch.benchmarks.peers.policy_files import PENDULUM, PolicyFile, module, once, write_onnx
from cosearch.benchmarks.peers.sb3_policies import sac

REGRESSION_STEPS = 3_000
LARGEST = 2.0  # of an action of Pendulum


def _examples(folder: Path) -> tuple[Tensor, Tensor]:
    """Observations of Pendulum that SAC meets, some random actions among its own; and its actions in the environment's units."""
    import gymnasium

    model, random = module("stable_baselines3", "stable-baselines3").SAC.load(sac(folder), device="cpu"), np.random.default_rng(0)
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


def _regress(network: Callable[[Tensor], Tensor], weights: Iterable[nn.Parameter], x: Tensor, wanted: Tensor) -> None:
    """Fit a network to the actions."""
    optimiser, generator = torch.optim.Adam(weights, 1e-3), torch.Generator().manual_seed(0)
    for _ in range(REGRESSION_STEPS):
        index = torch.randint(len(x), (128,), generator=generator)
        optimiser.zero_grad()
        (network(x[index]) - wanted[index]).square().mean().backward()
        optimiser.step()


def cleanrl(folder: Path) -> PolicyFile:
    """An actor as CleanRL's SAC has it: its ``state_dict``, and the class."""

    def make(path: Path) -> None:
        torch.manual_seed(0)
        actor = Actor()
        _regress(lambda rows: LARGEST * torch.tanh(actor(rows)["mean"]), actor.parameters(), *_examples(folder))
        save_file(actor.state_dict(), path)

    path = once(folder / "cleanrl.safetensors", make)
    words = ("--module", f"{Actor.__module__}:Actor", "--action-scale", "tanh")
    return PolicyFile(path, PENDULUM, words, "state_dict of an actor in CleanRL's form, 256-256, regression on SAC")


def rsl_rl(folder: Path) -> PolicyFile:
    """The actor of rsl_rl, as its runner exports it: the normaliser inside, a batch of 1, means named ``actions``."""

    def make(path: Path) -> None:
        models, tensordict = module("rsl_rl.models", "rsl-rl-lib"), module("tensordict", "tensordict")
        x, wanted = _examples(folder)
        torch.manual_seed(0)
        seen = tensordict.TensorDict({"policy": x}, batch_size=[len(x)])
        gaussian = {"class_name": "GaussianDistribution", "init_std": 0.5}
        actor = models.MLPModel(
            seen,
            {"actor": ["policy"]},
            "actor",
            1,
            hidden_dims=[512, 256, 128],
            obs_normalization=True,
            distribution_cfg=gaussian,
        )
        actor.obs_normalizer.train()
        actor.update_normalization(seen)
        actor.eval()
        _regress(lambda rows: actor.mlp(actor.obs_normalizer(rows)), actor.mlp.parameters(), x, wanted)
        made = actor.as_onnx(verbose=False)
        write_onnx(path, made, made.get_dummy_inputs(), made.input_names, made.output_names)

    path = once(folder / "rsl_rl.onnx", make)
    return PolicyFile(path, PENDULUM, (), "its actor and exporter, 512-256-128, regression on SAC")


def skrl(folder: Path) -> PolicyFile:
    """A Gaussian model of skrl; its scaler lies beside it."""
    statistics = folder / "skrl.safetensors"

    def make(path: Path) -> None:
        models, scalers = module("skrl.models.torch", "skrl"), module("skrl.resources.preprocessors.torch", "skrl")
        from gymnasium.spaces import Box

        x, wanted = _examples(folder)
        torch.manual_seed(0)
        scaler = scalers.RunningStandardScaler(size=3, device="cpu")
        scaler(x, train=True)
        save_file(scaler.state_dict(), statistics)

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
        _regress(model.net, model.net.parameters(), scaled, wanted)
        free = {"observations": {0: "batch"}}
        write_onnx(path, model, (torch.zeros(2, 3),), ["observations"], ["mean", "log_std"], dynamic_axes=free)

    path = once(folder / "skrl.onnx", make)
    about = "its Gaussian model, 256-128, scaler beside the file, regression on SAC"
    return PolicyFile(path, PENDULUM, ("--normaliser", str(statistics)), about)


def normalised_mlp(folder: Path) -> PolicyFile:
    """A multilayer perceptron of TD3's size; the statistics of a ``VecNormalize`` lie beside it."""
    statistics = folder / "mlp.npz"

    def make(path: Path) -> None:
        x, wanted = _examples(folder)
        mean, var = x.mean(0), x.var(0)
        np.savez(statistics, mean=mean.numpy(), var=var.numpy(), clip=np.float32(10.0), epsilon=np.float32(1e-8))
        torch.manual_seed(0)
        layers = [nn.Linear(3, 400), nn.ReLU(), nn.Linear(400, 300), nn.ReLU(), nn.Linear(300, 1), nn.Tanh()]
        network = nn.Sequential(*layers)
        _regress(network, network.parameters(), ((x - mean) / (var + 1e-8).sqrt()).clamp(-10.0, 10.0), wanted / LARGEST)
        free = {name: {0: "batch"} for name in ("observation", "action")}
        write_onnx(path, network, (torch.zeros(2, 3),), ["observation"], ["action"], dynamic_axes=free)

    path = once(folder / "mlp.onnx", make)
    about = "torch, 400-300 and the tangent, VecNormalize's statistics beside the file, regression on SAC"
    return PolicyFile(path, PENDULUM, ("--normaliser", str(statistics), "--action-scale", "unit"), about)
