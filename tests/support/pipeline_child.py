"""What the forked server of ``pipeline_runs`` imports once, and how a child counts its events.

No network is computed here before a fork: threads of libraries would not survive it.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import torch._dynamo  # noqa: F401  the first optimiser of a process imports it: 1.8 s
from pipeline_faults import register

import cosearch.cli.app
import cosearch.cli.commands
import cosearch.cli.listing
import cosearch.cli.progress
import cosearch.deploy.evaluation
import cosearch.deploy.sampling
import cosearch.pipeline.forecast
import cosearch.pipeline.local_table  # noqa: F401
from cosearch.pipeline import run
from cosearch.pipeline.agent import finish
from cosearch.planning.builtins import load_builtins
from cosearch.rl.dqn.update import EpsilonGreedy, QLearner
from cosearch.rl.env_families import procgen as procgen_env
from cosearch.rl.envs import EnvOptions, make_env
from cosearch.rl.learning.learner import Learner
from cosearch.rl.rollout import Collector
from cosearch.rl.sac.play import SquashedPlayer
from cosearch.rl.sac.update import SacLearner
from cosearch.teachers import train as teacher_training

TEACHER = {"rl.rollout_steps": 8, "rl.epochs": 1, "rl.minibatch": 16, "rl.micro_batch": 16, "env.num_envs": 4}
load_builtins()
make_env("procgen:starpilot", EnvOptions(1, 0)).close()  # the engine reads its pictures once a process: 1.5 s


def arm(moment: Any) -> None:
    """Count events from now on, write the stage of each to the file ``events``, and act at the moment.

    Also shrinks the published sizes of the teacher's training to those of the tests.

    Args:
        moment: a ``Moment`` of ``pipeline_runs``, or None to count only.
    """
    register()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background begins with it ignored
    stage, counts = ["plan"], {}
    log = open("events", "w", buffering=1, encoding="ascii")  # noqa: SIM115  open as long as the process lives

    def event() -> None:
        counts[stage[0]] = counts.get(stage[0], 0) + 1
        log.write(f"{stage[0]}\n")
        if moment and moment.stage == stage[0] and moment.count == counts[stage[0]]:
            from pipeline_runs import act

            act(moment)

    def watched(owner: Any, name: str, enter: str | None = None) -> None:
        original = getattr(owner, name)

        def replacement(*args: Any, **kwargs: Any) -> Any:
            if enter is not None:
                stage[0] = enter
            event()
            return original(*args, **kwargs)

        setattr(owner, name, replacement)

    for owner, name in (
        (os, "fsync"),
        (os, "replace"),
        (Collector, "collect"),
        (Learner, "_minibatch"),
        (EpsilonGreedy, "play"),
        (QLearner, "update"),
        (SquashedPlayer, "play"),
        (SacLearner, "update"),
    ):
        watched(owner, name)
    watched(finish, "_evaluate")
    watched(finish, "_measure")
    watched(teacher_training, "_train", "teacher")
    for stages in (run.STAGES, run.FAMILY_STAGES):
        for name, function in stages.items():
            stages[name] = _entering(stage, name, function)
    procgen_env.TEACHER.update(TEACHER)


def _entering(stage: list[str], name: str, function: Any) -> Any:
    def enter(session: Any) -> None:
        stage[0] = name
        function(session)

    return enter
