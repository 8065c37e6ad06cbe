"""A recurrent policy of rsl_rl for the T-maze: network and export are the package's own, the weights learn the shortest way by
supervision, since its trainer is made for action vectors in simulators with thousands of environments."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cosearch.benchmarks.peers.policy_files import TMAZE, PolicyFile, module, once, write_onnx
from cosearch.testing.tmaze import FORWARD, LEFT, RIGHT
from latency_tables.errors import RunFailedError

LENGTH, STEPS, BATCH = 8, 36, 32  # an episode is cut after that many steps
LEARNED, UPDATES = 0.01, 1_000  # nats a step at the junction, and the most updates


def walks(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Walks along the corridor, some with turns on the way, and the right action at each step.

    Args:
        generator: of cues and turns; who turns often comes late to the junction.

    Returns:
        Observations ``[steps, walks, 2]``, and actions ``[steps, walks]``.
    """
    right = torch.rand(BATCH, generator=generator) < 0.5
    turns = torch.rand(STEPS, BATCH, generator=generator) < 0.7 * torch.rand(BATCH, generator=generator)
    place = torch.zeros(STEPS, BATCH, dtype=torch.int64)
    place[1:] = (~turns[:-1]).cumsum(0).clamp(max=LENGTH)
    seen = torch.zeros(STEPS, BATCH, 2)
    seen[0, :, 0] = torch.where(right, 1.0, -1.0)
    seen[..., 1] = (place == LENGTH).float()
    actions = torch.where(place == LENGTH, torch.where(right, RIGHT, LEFT), FORWARD)
    return seen, actions


def begin_remembering(cell: nn.LSTM) -> None:
    """First weights with which an LSTM keeps its state over a whole episode: orthogonal gates, and 1 for the gate that keeps it.

    From torch's own it has not learned the cue's way through 36 steps after 300 updates; from these it has after about 40.

    Args:
        cell: of one layer.
    """
    with torch.no_grad():
        for name, weights in cell.named_parameters():
            if name.startswith("weight"):
                for gate in weights.split(cell.hidden_size):
                    nn.init.orthogonal_(gate)
            else:
                weights.zero_()
                if name.startswith("bias_hh"):  # the second gate is the one that keeps the state
                    weights[cell.hidden_size : 2 * cell.hidden_size] = 1.0


def rsl_rl_recurrent(folder: Path) -> PolicyFile:
    """The recurrent actor of rsl_rl with its default sizes, as its runner exports it: its state goes in and out."""

    def make(path: Path) -> None:
        models, tensordict = module("rsl_rl.models", "rsl-rl-lib"), module("tensordict", "tensordict")
        torch.manual_seed(0)
        seen = tensordict.TensorDict({"policy": torch.zeros(1, 2)}, batch_size=[1])
        actor = models.RNNModel(seen, {"actor": ["policy"]}, "actor", 3)
        begin_remembering(actor.rnn.rnn)
        optimiser, generator = torch.optim.Adam(actor.parameters(), 1e-3), torch.Generator().manual_seed(0)
        for _ in range(UPDATES):
            x, wanted = walks(generator)
            losses = F.cross_entropy(actor.mlp(actor.rnn.rnn(x)[0]).flatten(0, 1), wanted.flatten(), reduction="none")
            junction = x[..., 1].flatten() > 0
            choosing = losses[junction].mean()
            optimiser.zero_grad()
            (choosing + losses[~junction].mean()).backward()
            optimiser.step()
            if float(choosing.detach()) < LEARNED:
                break
        else:
            raise RunFailedError(f"the recurrent policy has not learned the way in {UPDATES} updates; use another seed")
        made = actor.as_onnx(verbose=False)
        write_onnx(path, made, made.get_dummy_inputs(), made.input_names, made.output_names)

    path = once(folder / "rsl_rl_recurrent.onnx", make)
    about = "its recurrent actor and exporter, LSTM 256 and 256-256-256, learned the shortest way by supervision"
    return PolicyFile(path, TMAZE, ("--outputs", "logits:actions", "--acting", "greedy"), about)
