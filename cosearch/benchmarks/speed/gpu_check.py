"""Whether training is right and fast on a GPU, in under five minutes: `python -m cosearch.benchmarks.speed.gpu_check --json`.

Nobody has run this on a GPU yet: no machine with one was at hand when it was written. On the CPU it runs and is tested.

1. Right: losses and gradients of three parts of a search (a supernet's forward and backward pass along two candidates a point,
   one PPO update, one DQN update), each on the same weights and data, beside those of the CPU in float32: on the CPU in
   bfloat16, and on the GPU in float32 (without TF32) and in bfloat16. Each has a tolerance, see :data:`TOLERANCES`.
2. Fast: environment steps per second, acting and learning together, of the three workloads of the throughput benchmark with
   rollouts of 32 steps, and the peak memory.

Exit code 1 where a difference is above its tolerance. Without a GPU the CPU's part is run, ``gpu`` is null, the exit code 0.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F

from cosearch.benchmarks.peers.own_ppo import OwnPpo
from cosearch.benchmarks.peers.workloads import WORKLOADS
from cosearch.benchmarks.results import program
from cosearch.benchmarks.speed.throughput import processor, shortened
from cosearch.planning.builtins import load_builtins
from cosearch.planning.space import default_space
from cosearch.rl.dqn.replay import Replay
from cosearch.rl.dqn.update import QLearner, QOptions
from cosearch.rl.envs import Step
from cosearch.rl.learning.learner import Learner, LearnerOptions
from cosearch.rl.learning.subject import NetworkSubject, mixed_precision, on_device
from cosearch.rl.rollout import Rollout
from cosearch.space.blocks.quantile_head import widen
from cosearch.space.network import AgentNetwork, nature_cnn
from cosearch.space.supernet import Path, SuperNet
from latency_tables.errors import MissingExtraError

FRAME, ACTIONS, BATCH = (64, 64, 3), 15, 64
ROLLOUT_STEPS = 32
NO_GPU = "torch sees no GPU here: only the CPU's part was run, and nothing is known about a GPU"
TOLERANCES = {  # relative: of a loss, and of the whole gradient (its distance over its length)
    "float32": (1e-4, 1e-3),  # sums of up to a hundred thousand float32 products in another order
    "bfloat16": (2e-2, 1.5e-1),  # eight bits of mantissa in every product of some ten layers
}


@dataclass(frozen=True)
class Outcome:
    """What one part computed.

    Attributes:
        losses: by name, each a mean over the batch.
        gradient: of all weights, ``[weights]``, float64, on the CPU.
    """

    losses: dict[str, float]
    gradient: Tensor


@dataclass(frozen=True)
class Check:
    """One part on one device in one number format, beside the CPU's float32.

    Attributes:
        part: ``supernet``, ``ppo`` or ``dqn``.
        compute: ``cpu`` or ``cuda``.
        dtype: ``float32`` or ``bfloat16``.
        losses: by name.
        loss_difference: largest difference of a loss over the size of the reference's (at least 0.1), a fraction.
        gradient_difference: distance of the gradients over the length of the reference's, a fraction.
        passed: whether both are within the tolerance.
    """

    part: str
    compute: str
    dtype: str
    losses: dict[str, float]
    loss_difference: float
    gradient_difference: float
    passed: bool


@dataclass(frozen=True)
class Speed:
    """One workload on one device.

    Attributes:
        workload: name of the throughput benchmark.
        compute: ``cpu`` or ``cuda``.
        steps_per_s: environment steps a second, acting and learning together; None where it could not be run.
        peak_memory_bytes: bytes of the GPU that tensors had at most; on the CPU the process's largest so far.
        note: why there is no figure.
    """

    workload: str
    compute: str
    steps_per_s: float | None
    peak_memory_bytes: int | None
    note: str = ""


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name, and the bytes of its memory."""

    name: str
    memory_bytes: int


@dataclass(frozen=True)
class Report:
    """Everything that was found.

    Attributes:
        gpu: None where there is none.
        note: what that means; empty with a GPU.
        cpu, torch: name of the processor, version of torch.
        passed: whether every check is within its tolerance.
        tolerances: :data:`TOLERANCES`.
        checks, speeds: in the order in which they were made.
        wall_s: time of the whole, seconds.
    """

    gpu: Gpu | None
    note: str
    cpu: str
    torch: str
    passed: bool
    tolerances: dict[str, tuple[float, float]]
    checks: list[Check]
    speeds: list[Speed]
    wall_s: float


def gradient_of(network: nn.Module) -> Tensor:
    """All gradients in a row, zeros where a weight took no part: ``[weights]``, float64, on the CPU."""
    parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in network.parameters()]
    return torch.cat([part.detach().double().cpu().flatten() for part in parts])


def frames_of(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Random frames ``[*shape, height, width, channels]``, uint8."""
    return rng.integers(0, 256, (*shape, *FRAME), np.uint8)


def supernet_part(device: torch.device, bf16: bool) -> Outcome:
    """Forward and backward pass of the default space's supernet along one path with two candidates a point."""
    rng = np.random.default_rng(0)
    space = default_space("frames").build({}, FRAME, ACTIONS, "categorical")
    network = on_device(SuperNet(space, torch.Generator().manual_seed(0)), device)
    active = tuple((i % len(p.candidates), (i + 3) % len(p.candidates)) for i, p in enumerate(space.points))
    weights = tuple(torch.tensor([0.6, 0.4], requires_grad=True) for _ in space.points)
    outputs, value = mixed_precision(network, device, bf16)(torch.from_numpy(frames_of(rng, BATCH)), Path(active, weights))
    taken = torch.from_numpy(rng.integers(0, ACTIONS, BATCH))
    policy = F.cross_entropy(outputs.float(), taken)
    critic = F.mse_loss(value.float(), torch.from_numpy(rng.normal(0, 1, BATCH).astype(np.float32)))
    (policy + critic).backward()
    gates = torch.stack([weight.grad for weight in weights if weight.grad is not None]).double().flatten()
    return Outcome({"policy": float(policy.detach()), "value": float(critic.detach())}, torch.cat([gradient_of(network), gates]))


def ppo_part(device: torch.device, bf16: bool) -> Outcome:
    """One update of PPO on one minibatch of a made-up rollout, with the Nature-CNN."""
    rng = np.random.default_rng(1)
    network = AgentNetwork(nature_cnn(FRAME, ACTIONS), torch.Generator().manual_seed(1))
    subject = NetworkSubject(network, lr=1e-4, bf16=bf16, device=device)

    def normal() -> Tensor:
        return torch.from_numpy(rng.normal(0, 1, (8, BATCH // 8)).astype(np.float32))

    rollout = Rollout(
        torch.from_numpy(frames_of(rng, 8, BATCH // 8)),
        torch.from_numpy(rng.integers(0, ACTIONS, (8, BATCH // 8))),
        -2.5 + 0.1 * normal(),
        normal(),
        normal(),
        normal(),
    )
    options = LearnerOptions(epochs=1, minibatch=BATCH, micro_batch=BATCH // 2, max_grad_norm=1e9)
    terms = Learner(options, torch.Generator().manual_seed(1)).update(subject, subject.actors(), rollout, None)
    return Outcome({name: terms[name] for name in ("loss_policy", "loss_value", "entropy", "kl_policy")}, gradient_of(network))


def dqn_part(device: torch.device, bf16: bool) -> Outcome:
    """One update of the DQN on one minibatch of a made-up replay, with the Nature-CNN."""
    rng = np.random.default_rng(2)
    network = AgentNetwork(nature_cnn(FRAME, ACTIONS), torch.Generator().manual_seed(2))
    widen(network, 16, True, torch.Generator().manual_seed(3))
    subject = NetworkSubject(network, lr=1e-4, bf16=bf16, device=device)
    replay = Replay(20 * 8, 8, FRAME, n_step=3, gamma=0.99, exponent=0.5)
    for _ in range(20):
        ended = rng.random(8) < 0.1
        step = Step(frames_of(rng, 8), rng.normal(0, 1, 8).astype(np.float32), ended, np.zeros(8, np.bool_), {})
        replay.add(frames_of(rng, 8), rng.integers(0, ACTIONS, 8), step, step.reward)
    options = QOptions(minibatch=BATCH, micro_batch=BATCH // 2, max_grad_norm=1e9)
    learner = QLearner(options, network, np.random.default_rng(3))
    terms = learner.update(subject, subject.actors(), replay, 0.5, 0.0)
    return Outcome({name: float(terms[name]) for name in ("loss_value", "q_mean")}, gradient_of(network))


PARTS: dict[str, Callable[[torch.device, bool], Outcome]] = {"supernet": supernet_part, "ppo": ppo_part, "dqn": dqn_part}


def compared(part: str, compute: str, dtype: str, found: Outcome, reference: Outcome) -> Check:
    """One outcome beside the reference.

    Args:
        part, compute, dtype: what was computed, see :class:`Check`.
        found: what it gave.
        reference: what the CPU gave in float32.
    """
    loss = max(abs(found.losses[name] - value) / max(0.1, abs(value)) for name, value in reference.losses.items())
    gradient = float((found.gradient - reference.gradient).norm() / reference.gradient.norm())
    of_loss, of_gradient = TOLERANCES[dtype]
    return Check(part, compute, dtype, found.losses, loss, gradient, loss <= of_loss and gradient <= of_gradient)


def all_checks(gpu: bool) -> list[Check]:
    """Every part on every device and in every number format; the CPU's float32 is the reference.

    Args:
        gpu: whether there is one.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    checks = []
    for name, part in PARTS.items():
        reference = part(torch.device("cpu"), False)
        for compute in ("cpu", "cuda") if gpu else ("cpu",):
            for dtype in TOLERANCES:
                if (compute, dtype) != ("cpu", "float32"):
                    found = part(torch.device(compute), dtype == "bfloat16")
                    checks.append(compared(name, compute, dtype, found, reference))
    return checks


def speed(name: str, compute: str, seconds: float) -> Speed:
    """Environment steps per second of a workload: one update to warm up, then updates for a while.

    Args:
        name: of the workload.
        compute: ``cpu`` or ``cuda``.
        seconds: after which no new update begins, in seconds.
    """
    try:
        contestant = OwnPpo(shortened(WORKLOADS[name], ROLLOUT_STEPS), 0, 0, compute=compute)
    except MissingExtraError as error:
        return Speed(name, compute, None, None, str(error))
    try:
        contestant.advance()
        if compute == "cuda":
            torch.cuda.reset_peak_memory_stats()
        began, updates = time.perf_counter(), 0
        while updates == 0 or time.perf_counter() - began < seconds:
            contestant.advance()
            updates += 1
        passed_s = time.perf_counter() - began
    finally:
        contestant.close()
    peak = torch.cuda.max_memory_allocated() if compute == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Speed(name, compute, updates * WORKLOADS[name].num_envs * ROLLOUT_STEPS / passed_s, peak)


def report(workloads: list[str], seconds: float) -> Report:
    """Check, then time.

    Args:
        workloads: names of those to time.
        seconds: for each workload on each device, in seconds.
    """
    began = time.perf_counter()
    load_builtins()
    gpu = torch.cuda.is_available()
    checks = all_checks(gpu)
    torch.backends.cudnn.allow_tf32 = True  # torch's default, with which training runs
    speeds = [speed(name, compute, seconds) for compute in (("cuda", "cpu") if gpu else ("cpu",)) for name in workloads]
    card = torch.cuda.get_device_properties(0) if gpu else None
    return Report(
        None if card is None else Gpu(card.name, card.total_memory),
        "" if gpu else NO_GPU,
        processor(),
        torch.__version__,
        all(check.passed for check in checks),
        TOLERANCES,
        checks,
        speeds,
        time.perf_counter() - began,
    )


def lines_of(found: Report) -> list[str]:
    """The report for people.

    Args:
        found: what :func:`report` returned.
    """
    lines = [found.note if found.gpu is None else f"{found.gpu.name}, {found.gpu.memory_bytes / 2**30:.0f} GiB"]
    lines += [
        f"{check.part:<9} {check.compute:<5} {check.dtype:<9} losses {check.loss_difference:.1e}, "
        f"gradient {check.gradient_difference:.1e}: {'within' if check.passed else 'ABOVE'} the tolerance"
        for check in found.checks
    ]
    for one in found.speeds:
        peak = "" if one.peak_memory_bytes is None else f", peak memory {one.peak_memory_bytes / 2**20:,.0f} MiB"
        said = one.note if one.steps_per_s is None else f"{one.steps_per_s:,.0f} environment steps/s{peak}"
        lines.append(f"{one.workload:<15} {one.compute:<5} {said}")
    return lines


def main(
    only: Annotated[list[str] | None, typer.Option(help="Workload to time; repeatable. [all three]")] = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="Seconds for each workload on each device.")] = 15.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Check a GPU's losses against the CPU's, time three workloads; exit code 1 where a difference is above its tolerance."""
    unknown = [name for name in only or () if name not in WORKLOADS]
    if unknown:
        raise typer.BadParameter(f"expected workloads of {', '.join(WORKLOADS)}, got {', '.join(unknown)}")
    found = report(only or list(WORKLOADS), seconds)
    typer.echo(json.dumps(asdict(found), indent=1, allow_nan=False) if as_json else "\n".join(lines_of(found)))
    raise typer.Exit(0 if found.passed else 1)


if __name__ == "__main__":
    program(main)
