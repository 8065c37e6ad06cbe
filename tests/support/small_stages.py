"""One stage of learning on small networks, as a new process would make it, for the tests that stop, resume or compare stages."""

import pytest
import torch

import cosearch.rl.env_families.gym
import cosearch.rl.env_families.minatar
import cosearch.rl.env_families.procgen  # noqa: F401  registers its family
from cosearch.config.run import config_from_dict
from cosearch.cost.constraint import Constraint
from cosearch.cost.objective import DualPenalty
from cosearch.cost.table_cost import TableCost
from cosearch.planning.builtins import load_builtins
from cosearch.rl.envs import ENVIRONMENTS
from cosearch.rl.learning.subject import NetworkSubject
from cosearch.rl.teacher import Teacher, save_teacher
from cosearch.seeding import Streams
from cosearch.space.kinds.chain import ChainConfig, chain_space
from cosearch.space.kinds.mlp import MlpConfig, mlp_space
from cosearch.space.network import AgentNetwork
from cosearch.space.supernet import SuperNet
from cosearch.strategies.gradient.one_level import OneLevelOptions, OneLevelStrategy
from cosearch.testing.conformance import seeded
from cosearch.testing.toys import TOYS
from cosearch.training.algorithms import make_training
from cosearch.training.supernet_subject import SuperNetSubject
from latency_tables.devices import find_table

CPU = torch.device("cpu")
TMAZE = "gym:cosearch.testing.tmaze:TMaze-v0"
SHAPES = {
    "procgen:starpilot": ((64, 64, 3), 15),
    "minatar:breakout": ((10, 10, 4), 3),
    "toy:limit": ((6, 6, 1), 3),
    TMAZE: ((2,), 3),
}
SMALL = ChainConfig(
    stem_channels=4,
    stem_kernel=3,
    stem_stride=2,
    stage_channels=(4, 4),
    stage_repeats=(1, 1),
    stage_strides=(2, 1),
    candidates=("conv_k3", "mbconv_k3_e3", "skip"),
    hidden=8,
)


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    load_builtins()  # before the registry is put aside: a module registers itself once a process
    monkeypatch.setattr(ENVIRONMENTS, "_entries", {**ENVIRONMENTS._entries, "toy": TOYS})


def config_of(env, **rl):
    return config_from_dict(
        {
            "env": {"name": env, "num_envs": 4},
            "seed": 3,
            "distill": {"end_fraction": 0.0},
            "rl": {"rollout_steps": 8, "minibatch": 16, "micro_batch": 8, "epochs": 2, "bf16": False, **rl},
        }
    )


def space_of(env):
    """Two points on images; on vectors one for a layer and one for a memory."""
    if env == TMAZE:
        return mlp_space(MlpConfig(8, "tanh", (8,), (1,), memory=("gru_w16", "lstm_w16", "none")), *SHAPES[env])
    return chain_space(SMALL, *SHAPES[env])


def teacher_for(env, folder):
    """A random teacher file of the right shape: what it knows does not matter here."""
    ops = space_of(env).architecture([0, 0]).ops()
    record = save_teacher(
        folder / "t.json", AgentNetwork(ops, seeded(5)), env=env, description="random", gamma=0.999, reward_std=2.0, provenance={}
    )
    return Teacher(record, device=CPU, bf16=False)


def make(env, kind, teacher=None, config=None, steps=320, fast=False):
    """A stage with streams of its own, as a new process would make it. Returns (training, streams)."""
    streams, config = Streams(3), config or config_of(env)
    space = space_of(env)
    if kind == "network":
        subject = NetworkSubject(
            AgentNetwork(space.architecture([1, 2]).ops(), streams.torch("weights")), lr=1e-3, bf16=config.rl.bf16, device=CPU
        )
    else:
        cost = TableCost(space, find_table("jetson"))
        penalty = DualPenalty(Constraint(cost, cost.base * (1.01 if fast else 1.5)), dual_lr=0.1, quadratic=1.0)
        strategy = OneLevelStrategy(space, OneLevelOptions(active_paths=2, lr=0.05), streams.torch("arch"))
        subject = SuperNetSubject(
            SuperNet(space, streams.torch("weights")),
            strategy,
            [penalty],
            paths=2,
            fresh=True,
            lr=1e-3,
            bf16=config.rl.bf16,
            device=CPU,
            warmup=0.0,
        )
    return make_training(config, subject, streams, teacher, total_steps=steps, span=(0.0, 0.5)), streams


def go(training, updates):
    """Advance; the log without its clock."""
    log = []
    for _ in range(updates):
        if isinstance(training.stage.subject, SuperNetSubject):
            training.stage.subject.set_progress(training.progress)
        line = training.advance()
        assert line.pop("steps_per_s") > 0
        log.append(line)
    return log


def flat(value):
    """Every tensor of a nested state, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for key in sorted(value, key=str) for t in flat(value[key])]
    return [t for part in value for t in flat(part)] if isinstance(value, (list, tuple)) else []
