"""Task-aware start: a search begins with the shared weights of the earlier run whose task is nearest.

Papers: Le, Soltani, Ravier & Tarokh, Task-Aware Neural Architecture Search (2020, arXiv 2010.13962); the distance: Le, Soltani,
Dong & Tarokh, Fisher Task Distance and Its Application in Neural Architecture Search (2021, arXiv 2103.12827).
Equations, with theta the weights that run a of the store ended with and b the task at hand:
  F_{a,t} = mean over states s that theta meets on task t, and actions drawn there, of (d log pi_theta(action | s) / dtheta)^2,
            divided by its sum: a diagonal matrix of trace 1
  d[a, b] = || F_{a,a}^(1/2) - F_{a,b}^(1/2) ||_F / sqrt 2            0 for the same task, at most 1, not symmetric
  start   : the supernet of the run of least d[a, b], as its search left it
Both matrices come from the same random numbers, so the distance of a task to itself is exactly 0.
Differs from the papers in:
1. The tasks are of reinforcement learning: states that the source's policy meets, and its log-probability, where the papers have
   labelled images and their loss. Rewards enter through the weights alone: tasks that differ in rewards only are at distance 0.
2. What is taken from the nearest task is the weights of its supernet; the papers take its search space. Here the spaces must be
   the same, so only runs on the same space and observations are compared.
3. The papers then fuse candidate networks; here any gradient strategy searches (``strategy.name``), its logits begun anew.
4. Weights on the source's path alone are compared, of its derived architecture, in float32.
5. A source that has another number of discrete actions gives the weights that fit, so the last layer begins anew. Then both
   matrices are those of the weights that fit, with a last layer of new weights for each task: what is compared is what the
   states of the two tasks ask of the shared layers, and the source's own actions have no part in it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from cosearch.config.env import EnvConfig
from cosearch.planning.plan import Plan
from cosearch.planning.space import make_space
from cosearch.planning.store import Source, load_weights, sources
from cosearch.record.json_record import to_json
from cosearch.record.run_record import BegunFrom, RunRecord, StoredRun
from cosearch.record.rundir import RunDir
from cosearch.rl.policy import Policy, act, policy_of
from cosearch.rl.task import make_task
from cosearch.seeding import derived_seed
from cosearch.space.derivation.derive import derive
from cosearch.space.network import AgentNetwork
from cosearch.space.space import SearchSpace
from cosearch.space.supernet import SuperNet
from latency_tables.errors import ConfigError

ENVS, STEPS, EVERY = 8, 128, 4  # environments and their steps, of which one in EVERY is looked at


def met(network: nn.Module, task: EnvConfig, seed: int) -> tuple[Tensor, Tensor, Policy]:
    """States that a policy meets on a task, and the actions that it draws there.

    Args:
        network: frames ``[batch, *frame_shape]`` -> policy outputs and values.
        task: the environments.
        seed: of environments and actions.

    Returns:
        Frames ``[states, *frame_shape]``, actions ``[states, ...]``, and what policy outputs mean.
    """
    env, generator = make_task(task, ENVS, seed), torch.Generator().manual_seed(seed)
    policy, frames, kept = policy_of(env), env.observe(), []
    try:
        for step in range(STEPS):
            actions = act(network, frames, policy, generator)
            if step % EVERY == 0:
                kept.append((torch.from_numpy(frames.copy()), torch.from_numpy(actions.copy())))
            env.send(actions)
            frames = env.receive().frames
    finally:
        env.close()
    return torch.cat([frame for frame, _ in kept]), torch.cat([action for _, action in kept]), policy


def fisher(network: nn.Module, frames: Tensor, actions: Tensor, policy: Policy, only: Collection[str] | None = None) -> Tensor:
    """Diagonal of the Fisher information of a policy, divided by its sum.

    Args:
        network: frames -> policy outputs and values.
        frames: ``[states, *frame_shape]``.
        actions: ``[states, ...]``.
        policy: what policy outputs mean.
        only: names of the weights that are looked at; None: all.

    Returns:
        ``[weights]``, float64, at least 0, of sum 1; all zeros where no weight matters.
    """
    named = network.named_parameters()
    weights = [weight for name, weight in named if weight.requires_grad and (only is None or name in only)]
    total = torch.zeros(sum(weight.numel() for weight in weights), dtype=torch.float64)
    for frame, action in zip(frames, actions):
        outputs, _ = network(frame[None])
        score = policy.log_prob(policy.read(outputs), action[None]).sum()
        gradients = torch.autograd.grad(score, weights, allow_unused=True)
        rows = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, gradients)]
        total += torch.cat([row.flatten() for row in rows]).double().square()
    trace = float(total.sum())
    return total / trace if trace > 0 else total


def distance(one: Tensor, other: Tensor) -> float:
    """Fisher distance of two tasks from the diagonals ``[weights]`` and ``[weights]`` of one network, 0..1."""
    return float((one.sqrt() - other.sqrt()).norm()) / math.sqrt(2)


def task_distance(network: nn.Module, source: EnvConfig, task: EnvConfig, seed: int) -> float:
    """How far a task is from the one that a network was trained on.

    Args:
        network: of the source.
        source, task: the two tasks.
        seed: of the states that are compared.
    """
    one, other = (fisher(network, *met(network, each, seed)) for each in (source, task))
    return distance(one, other)


def begin_from_store(plan: Plan, run: RunDir, supernet: SuperNet) -> str | None:
    """Load the shared weights of the nearest earlier run into a supernet that has learned nothing yet, and record it.

    A run that has recorded its choice keeps it, whatever the store holds by then.

    Args:
        plan: the resolved run.
        run: gets ``begun_from`` in ``run.json``.
        supernet: of the search.

    Returns:
        One line about it; None where the run names no store.

    Raises:
        ConfigError: no run of the store fits, or the one that this run began from is another one now.
        RunFolderError: shared weights cannot be read.
    """
    if not plan.config.strategy.store or not plan.config.rl.on_policy:  # which a request is refused for
        return None
    store, before = Path(plan.config.strategy.store), run.read(RunRecord).begun_from
    found = sources(store, plan.record("").space, run.path)
    if before is None:
        seed = derived_seed(plan.config.seed, "task distance", 31)
        rows = [_compared(plan, source, seed) for source in found]
        nearest = min(rows, key=lambda row: row.distance)
        content = hashlib.sha256("\n".join(f"{row.name} {row.digest}" for row in rows).encode()).hexdigest()
        before = BegunFrom(store=str(store), digest=content, name=nearest.name, runs=tuple(rows))
        run.change_record(begun_from=to_json(before))
    taken = next(row for row in before.runs if row.name == before.name)
    same = [source for source in found if (source.path.name, source.digest) == (taken.name, taken.digest)]
    if not same:
        raise ConfigError(
            f"{store / taken.name} had the shared weights {taken.digest[:12]} when this run began from them, which are not there "
            "now: give them back, or start a new run"
        )
    load_weights(supernet, same[0])
    return f"begins from {taken.name}, the nearest of {len(before.runs)} runs (Fisher distance {taken.distance:.4f})"


def _compared(plan: Plan, source: Source, seed: int) -> StoredRun:
    tasks, network = (source.config.env, plan.config.env), _on_path(plan.space, source)
    if source.same_actions:
        far = task_distance(network, *tasks, seed)
    else:
        networks = _on_path(make_space(source.config), source, plan.space), network
        shapes = [{name: weight.shape for name, weight in each.named_parameters()} for each in networks]
        common = {name for name, shape in shapes[0].items() if shapes[1].get(name) == shape}
        one, other = (fisher(each, *met(each, task, seed), common) for each, task in zip(networks, tasks))
        far = distance(one, other)
    return StoredRun(name=source.path.name, task=source.config.env.name, digest=source.digest, distance=far)


def _on_path(space: SearchSpace, source: Source, other: SearchSpace | None = None) -> AgentNetwork:
    """A source's network in a space; what does not fit ``space``, or the space of another task, begins anew."""
    supernet = SuperNet(space, torch.Generator().manual_seed(0))
    load_weights(supernet, source, None if other is None else SuperNet(other, torch.Generator().manual_seed(0)))
    return derive(space.architecture(source.choices), torch.Generator().manual_seed(0), supernet).float().eval()
