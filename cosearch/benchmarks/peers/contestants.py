"""Three implementations of PPO behind one interface, for the throughput benchmark and the learning curves."""

from __future__ import annotations

from typing import Any, Protocol

from cosearch.benchmarks.peers.workloads import Workload


class Contestant(Protocol):
    """An implementation of PPO on a workload."""

    def advance(self) -> None:
        """One rollout and its update."""

    def score(self) -> float | None:
        """Mean unscaled return of the last 100 training episodes; None before the first has ended."""

    def shares(self) -> dict[str, float] | None:
        """Where the time went, as fractions that sum to 1; None where it is not known."""

    def parameters(self) -> int:
        """Trained numbers of the network."""

    def close(self) -> None:
        """Release the environments."""


CONTESTANTS = ("cosearch", "stable-baselines3", "cleanrl-style")


def make_contestant(name: str, workload: Workload, seed: int, threads: int) -> Contestant:
    """One of :data:`CONTESTANTS`, ready to advance.

    Args:
        name: which.
        workload: what to train.
        seed: of weights, environments and actions.
        threads: CPU threads of the networks, and of the engine that steps the environments where it has threads.

    Raises:
        MissingExtraError: stable-baselines3 is not installed.
    """
    import torch

    from cosearch.benchmarks.peers.own_ppo import OwnPpo
    from cosearch.benchmarks.peers.plain_ppo import PlainPpo
    from cosearch.benchmarks.peers.sb3_ppo import Sb3Ppo

    torch.set_num_threads(threads)
    makers: dict[str, Any] = dict(zip(CONTESTANTS, (OwnPpo, Sb3Ppo, PlainPpo)))
    return makers[name](workload, seed, threads)
