"""This package's own training loop on the benchmark's workloads, with a clock on each part of an update."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from cosearch.benchmarks.peers.workloads import Workload
from cosearch.compute import compute_device
from cosearch.config.run import Config, resolve
from cosearch.planning.builtins import load_builtins
from cosearch.rl.learning.subject import NetworkSubject
from cosearch.seeding import Streams
from cosearch.space.network import AgentNetwork
from cosearch.training.algorithms import make_training
from cosearch.training.on_policy import OnPolicy

PARTS = ("environment", "inference", "learning, forward", "optimiser")


class Clock:
    """Seconds by part; parts that run in several threads at once count as their mean."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, int], float] = {}

    def timed(self, part: str | Callable[[], str], function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, its seconds added to ``part``."""

        def run(*args: Any) -> Any:
            name = part if isinstance(part, str) else part()
            began = time.perf_counter()
            try:
                return function(*args)
            finally:
                key = (name, threading.get_ident())
                self.seconds[key] = self.seconds.get(key, 0.0) + time.perf_counter() - began

        return run

    def of(self, part: str) -> float:
        """Mean seconds of the threads that ran ``part``."""
        found = [seconds for (name, _), seconds in self.seconds.items() if name == part]
        return sum(found) / max(1, len(found))


class OwnPpo:
    """The loop of every stage of a run, on a fixed network.

    Args:
        workload: what to train.
        seed: of everything.
        threads: CPU threads; 0: all cores.
        compute: ``cpu`` or ``cuda``.

    Raises:
        ConfigError: ``cuda`` without a GPU.
        MissingExtraError: the environment's package is not installed.
    """

    def __init__(self, workload: Workload, seed: int, threads: int, *, compute: str = "cpu") -> None:
        load_builtins()
        config = config_of(workload, seed, threads, compute)
        streams = Streams(seed)
        network = AgentNetwork(workload.ops(), streams.torch("weights"))
        subject = NetworkSubject(network, lr=config.rl.lr, bf16=config.rl.bf16, device=compute_device(compute))
        self.training = make_training(config, subject, streams, None, total_steps=10**12)
        self.network, self.clock = network, Clock()
        self._watch()

    def _watch(self) -> None:
        clock, training, rounds = self.clock, self.training, self.training.rounds
        assert isinstance(rounds, OnPolicy)  # that is what PPO makes
        env, subject = training.stage.env, training.stage.subject
        for name in ("send", "receive"):
            setattr(env, name, clock.timed("environment", getattr(env, name)))
        for name in ("step", "zero_grad"):
            setattr(subject, name, clock.timed("optimiser", getattr(subject, name)))
        actors = subject.actors

        def part() -> str:
            return "learning, forward" if torch.is_grad_enabled() else "inference"

        for owner, name, replacement in (
            (subject, "actors", lambda: [clock.timed(part, actor) for actor in actors()]),
            (rounds.learner, "update", clock.timed("update", rounds.learner.update)),
            (rounds.collector, "collect", clock.timed("collect", rounds.collector.collect)),
            (training, "advance", clock.timed("all", training.advance)),
        ):
            setattr(owner, name, replacement)

    def advance(self) -> None:
        """One rollout and its update."""
        self.training.advance()

    def score(self) -> float | None:
        """See ``Contestant``."""
        return self.training.score

    def shares(self) -> dict[str, float]:
        """See ``Contestant``."""
        whole = self.clock.of("all")
        found = {part: self.clock.of(part) for part in PARTS}
        update = self.clock.of("update") - found["learning, forward"] - found["optimiser"]
        collect = self.clock.of("collect") - found["environment"] - found["inference"]
        found = {**found, "learning, losses and backward": update, "sampling, storing and advantages": collect}
        return {**{part: seconds / whole for part, seconds in found.items()}, "other": 1.0 - sum(found.values()) / whole}

    def parameters(self) -> int:
        """See ``Contestant``."""
        return sum(p.numel() for p in self.network.parameters())

    def close(self) -> None:
        """See ``Contestant``."""
        self.training.close()


def config_of(workload: Workload, seed: int, threads: int, compute: str = "cpu") -> Config:
    """A workload as a configuration; what only sets the speed is this package's default."""
    w = workload
    return resolve(
        options={
            "env.name": w.env,
            "env.num_envs": w.num_envs,
            "seed": seed,
            "threads": threads,
            "compute": compute,
            "distill.teacher": "none",
            "rl.rollout_steps": w.rollout_steps,
            "rl.epochs": w.epochs,
            "rl.minibatch": w.minibatch,
            "rl.lr": w.lr,
            "rl.lr_end_fraction": 1.0,
            "rl.gamma": w.gamma,
            "rl.lam": w.lam,
            "rl.clip": w.clip,
            "rl.value_weight": w.value_weight,
            "rl.entropy_weight": w.entropy_weight,
            "rl.max_grad_norm": w.max_grad_norm,
        }
    )
