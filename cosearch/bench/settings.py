"""What the benchmark's table holds and how each of its networks was trained: fixed here, so that new defaults leave it as it is.

Another value anywhere in this file makes another benchmark: its digest is in every table, and a table of another is not extended.
Nor are a task's results that were distilled from another teacher: the SHA-256 of its weights stands beside the digest.
"""

from __future__ import annotations

import hashlib
import itertools
import json

from cosearch.config.run import Config, resolve
from cosearch.planning.builtins import load_builtins
from cosearch.registry import unknown_name
from cosearch.rl.envs import EnvOptions, make_env
from cosearch.rl.teacher import TeacherRecord, find_teacher
from cosearch.space.kinds.macro import MacroConfig, macro_space
from cosearch.space.space import Architecture, SearchSpace

TASKS = ("minatar:breakout", "minatar:asterix", "minatar:space_invaders")
SEEDS = (0, 1, 2)
SPACE = MacroConfig(
    resolutions=(1,),
    stems=("k3s1", "k3s2"),
    stem_widths=(4, 8, 16),
    stage_strides=(2,),
    stage_widths=((8, 16, 32),),
    cells=("none", "conv_k3", "conv_k5", "residual_k3", "mbconv_k3_e3"),
    heads=("pooled", "flat"),
    hidden=(0, 32, 128),
)
FIRST_BLOCKS = (
    "ad25fcea7a52caa65c9a9142e02597584df5b7864dce451cda5e97c5a3a52559"  # ``blocks_digest`` of tables and folders without one
)
TOTAL_STEPS = 24_576
EPISODES = 128  # of the final evaluation of each seed, actions sampled
TRAINING: dict[str, object] = {  # a retraining from scratch with the project's defaults of November 2026
    "threads": 1,
    "env.num_envs": 64,
    "rl.algorithm": "ppo",
    "rl.rollout_steps": 64,
    "rl.epochs": 3,
    "rl.minibatch": 128,
    "rl.lr": 2e-3,
    "rl.lr_end_fraction": 0.02,
    "rl.lr_hold_fraction": 0.0,
    "rl.gamma": 0.99,  # the teachers'
    "rl.lam": 0.95,
    "rl.clip": 0.2,
    "rl.value_clip": True,
    "rl.value_weight": 0.1,
    "rl.entropy_weight": 0.01,
    "rl.max_grad_norm": 10.0,
    "rl.bf16": True,
    "distill.actor": 30.0,
    "distill.critic": 0.5,
    "distill.end_fraction": 1.0,
}


def digest() -> str:
    """SHA-256 of all settings but the list of tasks and their teachers: what tables of the same benchmark share."""
    points = [[point.name, point.candidates] for point in macro_space(SPACE, (10, 10, 4), 3).points]
    everything = [SEEDS, points, TOTAL_STEPS, EPISODES, TRAINING]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def blocks_digest() -> str:
    """SHA-256 of the blocks that the choices stand for, at one size of frames: what is fixed in the space is in them too.

    The names of the choices, which :func:`digest` has, do not say it: ``stage_strides`` or ``resolutions`` with one candidate.
    """
    nodes = macro_space(SPACE, (10, 10, 4), 3).nodes
    keys = [[None if spec is None else spec.key for spec in node.specs] for node in nodes]
    return hashlib.sha256(json.dumps(keys).encode()).hexdigest()


def training_config(task: str) -> Config:
    """How the networks of a task are trained.

    Raises:
        UnknownNameError: it is no task of the benchmark.
    """
    load_builtins()
    if task not in TASKS:
        raise unknown_name("task of the benchmark", task, TASKS, f"There are {', '.join(TASKS)}")
    return resolve(options={**TRAINING, "env.name": task})


def teacher_of(task: str) -> TeacherRecord | None:
    """The shipped teacher that every training of a task distils from; None where there is none."""
    return find_teacher("auto", task)


def teacher_sha256(task: str) -> str | None:
    """SHA-256 of the weights of a task's teacher; None without one.

    Raises:
        ConfigError: its weights cannot be read.
    """
    record = teacher_of(task)
    return None if record is None else record.weights_sha256()


def rollouts() -> int:
    """Rollouts of one training: the points of its curve."""
    frames = int(str(TRAINING["env.num_envs"])) * int(str(TRAINING["rl.rollout_steps"]))
    return -(-TOTAL_STEPS // frames)


def space_for(frame_shape: tuple[int, ...], num_actions: int) -> SearchSpace:
    """The space of a task: its blocks differ with the frames ``(height, width, channels)`` and actions, its choices do not."""
    return macro_space(SPACE, frame_shape, num_actions)


def shape_of(task: str) -> tuple[tuple[int, ...], int]:
    """Frames ``(height, width, channels)`` and number of actions of a task.

    Raises:
        MissingExtraError: the environment's package is not installed.
    """
    load_builtins()
    probe = make_env(task, EnvOptions(1, 0))
    shape = probe.frame_shape, probe.num_actions
    probe.close()
    return shape


def make_space(task: str) -> SearchSpace:
    """The space of a task; errors as for :func:`shape_of`."""
    return space_for(*shape_of(task))


def architectures(space: SearchSpace) -> list[Architecture]:
    """All of a space in the order of the table: the last point's choice changes fastest."""
    return [space.architecture(choices) for choices in itertools.product(*(range(len(p.candidates)) for p in space.points))]
