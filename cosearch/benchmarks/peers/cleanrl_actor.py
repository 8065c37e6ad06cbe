"""An actor in the form of CleanRL's SAC for continuous actions: what its users have beside a ``state_dict``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOG_STD = (-5.0, 2.0)


class Actor(nn.Module):
    """Two layers of 256, then means before the hyperbolic tangent and bounded log standard deviations; for Pendulum."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(3, 256), nn.Linear(256, 256)
        self.fc_mean, self.fc_logstd = nn.Linear(256, 1), nn.Linear(256, 1)

    def forward(self, observations: Tensor) -> dict[str, Tensor]:
        """``[batch, 3]`` -> ``mean`` and ``log_std``, ``[batch, 1]`` each."""
        x = F.relu(self.fc2(F.relu(self.fc1(observations))))
        low, high = LOG_STD
        return {"mean": self.fc_mean(x), "log_std": low + 0.5 * (high - low) * (torch.tanh(self.fc_logstd(x)) + 1.0)}
