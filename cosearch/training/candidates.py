"""The training of one candidate: with streams of its own, here or in a worker process, from its own weights or shared ones.

A candidate's random numbers depend on the run's seed and on its index alone. So with equal threads, which process trains it, and
beside which others, changes nothing in its result. A worker process has one thread; with more, sums are rounded otherwise.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cosearch.compute import compute_device
from cosearch.config.run import Config, config_from_dict, config_to_dict
from cosearch.fleet.work import Send
from cosearch.planning.budget import search_share
from cosearch.planning.builtins import load_builtins
from cosearch.planning.space import make_space
from cosearch.planning.teacher import load_teacher, named_teacher
from cosearch.rl.learning.subject import NetworkSubject
from cosearch.rl.teacher import Teacher
from cosearch.seeding import Streams, derived_seed
from cosearch.space.derivation.derive import derive
from cosearch.space.morphism import donor, inherit
from cosearch.space.network import AgentNetwork
from cosearch.space.space import Architecture
from cosearch.space.supernet import SuperNet
from cosearch.strategies.base import STRATEGIES, Inheritance
from cosearch.training.algorithms import as_trained, learning_rate, make_training
from cosearch.training.carried import NOTHING, Carried, with_files_here
from cosearch.training.stage import Training, not_replayed
from cosearch.training.threads import set_threads
from latency_tables.errors import ConfigError, NonFiniteError


def candidate_streams(seed: int, index: int) -> Streams:
    """The random streams of candidate ``index`` in the run with this seed."""
    return Streams(derived_seed(seed, f"candidate:{index}", 63))


def candidate_training(
    config: Config, network: AgentNetwork, streams: Streams, teacher: Teacher | None, steps: int, inherited: bool = False
) -> Training:
    """The training of one candidate, at a constant learning rate.

    Args:
        config: of the run.
        network: the candidate's.
        streams: see :func:`candidate_streams`.
        teacher: its labels are distilled; None for none.
        steps: the candidate's environment steps.
        inherited: it starts from weights that have learned, see :func:`make_training`.
    """
    device = compute_device(config.compute)
    lr = learning_rate(config)
    subject = NetworkSubject(network, lr=lr, bf16=config.rl.bf16, device=device)
    span = (0.0, search_share(config))
    return make_training(config, subject, streams, teacher, total_steps=steps, inherited=inherited, span=span, lr=(lr, lr))


class WeightBank:
    """A supernet whose weights are learned along the proposed paths: candidates start from it and give back what they learned.

    Args:
        supernet: the shared weights.
    """

    def __init__(self, supernet: SuperNet) -> None:
        self.supernet = supernet

    def weights(self, architecture: Architecture) -> dict[str, Tensor]:
        """The shared weights of an architecture's derived network, copied."""
        return derive(architecture, torch.Generator().manual_seed(0), self.supernet).state_dict()

    def keep(self, architecture: Architecture, weights: Mapping[str, Tensor]) -> None:
        """Take over a derived network's weights along its path."""
        network = derive(architecture, torch.Generator().manual_seed(0), self.supernet)
        network.load_state_dict(weights)
        self.supernet.copy_from(architecture, network.blocks, network.ends)


def inherited_weights(
    network: AgentNetwork,
    inheritance: Inheritance,
    trained: Callable[[int], tuple[Architecture, Mapping[str, Tensor]]],
) -> None:
    """Let a candidate start from weights of earlier ones, in place.

    Args:
        network: the candidate's, with its first weights.
        inheritance: where its weights come from.
        trained: index of an evaluation -> its architecture, and the weights that it ended with.
    """
    known = {index: trained(index) for index in inheritance.evaluations}
    ops = {index: architecture.ops() for index, (architecture, _) in known.items()}
    donors = [None if at is None else donor(ops[at[0]], known[at[0]][1], at[1]) for at in inheritance.blocks]
    inherit(network, donors, known[inheritance.parent][1])


@dataclass(frozen=True)
class Part:
    """A part of a candidate's training, between two rungs of successive halving.

    Attributes:
        until: environment steps of the candidate at its end.
        keep: whether the training may go on after it.
        begin: what the part before it ended with, see :func:`outcome_of`; None: it is the first.
    """

    until: int
    keep: bool
    begin: bytes | None = None


def candidate_job(
    config: Config,
    index: int,
    choices: list[int],
    steps: int,
    weights: bytes | None,
    brought: Carried = NOTHING,
    teacher_sha256: str | None = None,
    part: Part | None = None,
    replays: str | None = None,
    inherited: bool = False,
) -> dict[str, Any]:
    """What a worker process needs to train a candidate.

    Args:
        config: of the run.
        index, choices, steps: of the candidate.
        weights: to start from, packed; None: its own.
        brought: what a machine of a cluster is brought along.
        teacher_sha256: of the teacher's weights, which each machine compares with what it has; None: not compared.
        part: of its training; None: all of it.
        replays: folder of the run where its running episodes must be continued; None: they may begin anew.
        inherited: its first weights have learned.
    """
    return {
        "config": config_to_dict(config),
        "index": index,
        "choices": choices,
        "steps": steps,
        "weights": weights,
        "files": dict(brought.by_path),
        "teacher_sha256": teacher_sha256,
        "part": None if part is None else asdict(part),
        "replays": replays,
        "inherited": inherited,
    }


def train_candidate(job: dict[str, Any], send: Send) -> dict[str, Any]:
    """Train one candidate in a worker process, with one thread.

    Args:
        job: see :func:`candidate_job`.
        send: gets the metrics of each update.

    Returns:
        See :func:`outcome_of`; with ``anew``, the environments whose episode could not be continued, where there are some.

    Raises:
        EnvironmentFailedError: an episode that must be continued could not be.
    """
    set_threads(1)
    load_builtins()
    config = replace(config_from_dict(job["config"], "the candidate's configuration"), threads=1)
    config = with_files_here(config, job["files"])
    space = make_space(config)
    architecture = space.architecture(job["choices"])
    taught = STRATEGIES.get(config.strategy.name).uses_teacher
    named = named_teacher(config) if taught else None
    if named is not None and job["teacher_sha256"] not in (None, named.weights_sha256()):
        raise ConfigError(
            f"{named.path} on this node is another teacher than the one of the search: give it the same file, or none"
        )
    teacher = load_teacher(named, config, space, compute_device(config.compute))
    streams = candidate_streams(config.seed, job["index"])
    network = as_trained(derive(architecture, streams.torch("weights")), config, streams)
    if job["weights"] is not None:
        network.load_state_dict(unpacked(job["weights"]))
    training = candidate_training(config, network, streams, teacher, job["steps"], job["inherited"])
    if job["part"] is None:
        return outcome_of(training, network, lambda: training.run(send))
    part = Part(**job["part"])
    anew: list[int] = []

    def run() -> None:
        if part.begin is not None:
            begin = unpacked(part.begin)
            anew.extend(int(i) for i in training.restore(begin["training"]))
            if anew and job["replays"] is not None:
                raise not_replayed(anew[0], config, job["replays"])
            streams.load_state_dict(begin["streams"])
        training.run(send, part.until)

    outcome = outcome_of(training, network, run, streams if part.keep else None)
    return {**outcome, "anew": anew} if anew else outcome


def outcome_of(training: Training, network: nn.Module, run: Callable[[], None], streams: Streams | None = None) -> dict[str, Any]:
    """Train a candidate to its end and say how it did; a loss that is not finite ends its training alone.

    Args:
        training: of the candidate; closed afterwards.
        network: the candidate's.
        run: does the training.
        streams: of the candidate, where it may train on later.

    Returns:
        ``score``, ``divergence`` from the teacher, ``env_steps`` that it took, and ``weights``, packed; with the streams also
        ``paused``, all that the training needs to go on, packed. A candidate that failed has None for score and weights, no
        divergence, and ``failure``, the reason.
    """
    paused = {}
    try:
        run()
        if streams is not None:
            paused = {"paused": packed({"training": training.state(), "streams": streams.state_dict()})}
    except NonFiniteError as error:
        return {"score": None, "env_steps": training.step, "weights": None, "failure": str(error)}
    finally:
        training.close()
    return {
        "score": training.score,
        "divergence": training.divergence,
        "env_steps": training.step,
        "weights": packed(network.cpu().state_dict()),
        **paused,
    }


def packed(weights: Mapping[str, Any]) -> bytes:
    """Weights, or a state, as bytes: tensors themselves would go through memory that is shared with a process that may die."""
    buffer = io.BytesIO()
    torch.save(dict(weights), buffer)
    return buffer.getvalue()


def unpacked(content: bytes) -> dict[str, Any]:
    """The weights, or the state, that :func:`packed` packed."""
    return torch.load(io.BytesIO(content), weights_only=True)
