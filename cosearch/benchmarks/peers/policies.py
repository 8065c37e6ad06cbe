"""Policies made by other packages, saved as each documents: what ``cosearch.benchmarks.searches.compress`` gives to the command.

Each is made once, from the seed 0. Their sizes are those of the packages' documentation and examples. The convolutional one has
the weights of the shipped teacher of MinAtar's Breakout.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cosearch.benchmarks.peers import fitted_policies, sb3_policies
from cosearch.benchmarks.peers.policy_files import BREAKOUT, PolicyFile, once, write_onnx
from cosearch.benchmarks.peers.remembering_policy import rsl_rl_recurrent
from cosearch.rl.teacher import find_teacher, load_network
from latency_tables.errors import MissingExtraError


def cnn_float(folder: Path) -> PolicyFile:
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

    def make(path: Path) -> None:
        free = {name: {0: "batch"} for name in ("pictures", "logits", "value")}
        write_onnx(path, Pictures(), (torch.zeros(2, 4, 10, 10),), ["pictures"], ["logits", "value"], dynamic_axes=free)

    path = once(folder / "cnn_float.onnx", make)
    about = "MinAtar's network (conv 16, 128), float images, channels first; weights of the shipped teacher"
    return PolicyFile(
        path,
        BREAKOUT,
        ("--pixels", "1"),
        about,
        budget=("budget.search_steps=163840", "budget.retrain_steps=323584"),  # as whole searches on this game
    )


POLICIES: dict[str, Callable[[Path], PolicyFile]] = {
    "stable-baselines3 PPO": sb3_policies.ppo_zip,
    "stable-baselines3 PPO, ONNX": sb3_policies.ppo_onnx,
    "stable-baselines3 DQN": sb3_policies.dqn_zip,
    "stable-baselines3 SAC": sb3_policies.sac_zip,
    "CleanRL's form of SAC": fitted_policies.cleanrl,
    "rsl_rl": fitted_policies.rsl_rl,
    "skrl": fitted_policies.skrl,
    "MLP, normaliser beside it": fitted_policies.normalised_mlp,
    "CNN, float": cnn_float,
    "rsl_rl, recurrent": rsl_rl_recurrent,
}
