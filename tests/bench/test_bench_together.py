"""Seeds trained together against the project's own training of one seed; evaluations; stacked networks and their optimiser."""

import numpy as np
import pytest
import torch

from cosearch.bench import settings
from cosearch.bench.stacked import StackedAdam, StackedNetwork
from cosearch.bench.together import TogetherTraining
from cosearch.config.run import resolve
from cosearch.planning.builtins import load_builtins
from cosearch.rl.envs import EnvOptions, make_env
from cosearch.rl.evaluate import evaluate
from cosearch.rl.learning.subject import NetworkSubject
from cosearch.rl.teacher import Teacher, find_teacher
from cosearch.seeding import Streams
from cosearch.space.network import AgentNetwork
from cosearch.training.algorithms import make_training
from latency_tables.errors import ConfigError, NonFiniteError, ShapeError

TASK = "minatar:breakout"
SMALL = {
    "threads": 1,
    "env.name": TASK,
    "env.num_envs": 16,
    "rl.rollout_steps": 24,
    "rl.minibatch": 96,
    "rl.epochs": 2,
    "rl.bf16": False,
    "rl.gamma": 0.99,
    "distill.end_fraction": 0.5,
}
STEPS = 4 * 16 * 24


def small_config(**changes):
    load_builtins()
    return resolve(options={**SMALL, **changes})


def network_ops(number):
    return settings.architectures(settings.space_for((10, 10, 4), 3))[number].ops()


def one_of_each():
    """Networks with every cell and head: the last two points alternate while the cells go on."""
    space = settings.space_for((10, 10, 4), 3)
    return [space.architecture((i % 2, i % 3, i % 3, i % 5, (i // 3) % 2, i % 3)) for i in range(12)]


def alone(config, ops, seed, teacher, updates):
    streams = Streams(seed)
    network = AgentNetwork(ops, streams.torch("weights"))
    subject = NetworkSubject(network, lr=config.rl.lr, bf16=config.rl.bf16, device=torch.device("cpu"))
    training = make_training(config, subject, streams, teacher, total_steps=STEPS, env_index=1)
    for _ in range(updates):
        training.advance()
    training.close()
    return network, training


@pytest.mark.parametrize("number", [100, 530])  # flat behind a 5x5, pooled behind an inverted residual
def test_seeds_trained_together_are_those_trained_alone(number):
    config, ops = small_config(), network_ops(number)
    teacher = Teacher(find_teacher("auto", TASK), device=torch.device("cpu"), bf16=False)
    together = TogetherTraining(config, ops, (3, 5), teacher, STEPS)
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (2, 32, 10, 10, 4), dtype=np.uint8) * 255)
    for _ in range(2):
        together.advance()
    with torch.no_grad():
        outputs = together.network(frames)
    for place, seed in enumerate((3, 5)):
        network, training = alone(config, ops, seed, teacher, 2)
        with torch.no_grad():
            logits, value = network(frames[place])
        torch.testing.assert_close(outputs[place], torch.cat([logits, value[:, None]], 1), rtol=1e-3, atol=1e-3)
        assert together.scores()[place] == training.score and training.score is not None
    together.close()


def test_a_seed_does_not_depend_on_those_beside_it_and_another_seed_differs():
    config, ops = small_config(), network_ops(300)
    frames = torch.randint(0, 2, (32, 10, 10, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8) * 255

    def outputs(seeds):
        training = TogetherTraining(config, ops, seeds, None, STEPS)
        training.advance()
        with torch.no_grad():
            return training.network(frames.expand(len(seeds), *frames.shape)), training.evaluate(16)

    (pair, played), (single, played_alone) = outputs((1, 2)), outputs((1,))
    torch.testing.assert_close(pair[:1], single, rtol=1e-4, atol=1e-4)
    assert (pair[0] - pair[1]).abs().max() > 0.01
    assert played[0] == played_alone[0] and played[0] != played[1]


def test_the_evaluation_is_the_projects_own_of_one_seed():
    config, ops = small_config(), network_ops(7)
    training = TogetherTraining(config, ops, (4, 9), None, STEPS)
    found = training.evaluate(20)
    for place, seed in enumerate((4, 9)):
        streams = Streams(seed)
        network = AgentNetwork(ops, streams.torch("weights"))
        env = make_env(TASK, EnvOptions(16, streams.derive("eval")))
        assert found[place] == evaluate(network, env, 20, streams.torch("eval")).returns and len(found[place]) == 32


def test_stacked_outputs_are_those_of_each_network():
    frames = torch.randint(0, 2, (3, 8, 10, 10, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8) * 255
    for architecture in one_of_each():
        networks = [AgentNetwork(architecture.ops(), torch.Generator().manual_seed(seed)) for seed in range(3)]
        outputs = StackedNetwork(networks)(frames)
        for network, own, made in zip(networks, frames, outputs):
            logits, value = network(own)
            torch.testing.assert_close(made, torch.cat([logits, value[:, None]], 1), rtol=1e-5, atol=1e-5)


def test_the_optimiser_clips_each_network_by_its_own_norm():
    networks = [AgentNetwork(network_ops(100), torch.Generator().manual_seed(seed)) for seed in range(2)]
    stacked = StackedNetwork(networks)
    frames = torch.randint(0, 2, (2, 16, 10, 10, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8) * 255
    factors = torch.tensor([1.0, 1e-4])  # the second network's gradient is far below the bound, the first one's above
    seen = []
    optimiser = StackedAdam(stacked, 1e-3)
    adam_step = optimiser.adam.step
    optimiser.adam.step = lambda: (
        seen.extend([p.grad.reshape(2, -1).clone() for p in stacked.parameters()]),
        adam_step(),
    )
    (stacked(frames).square().mean((1, 2)) * factors).sum().backward()
    optimiser.step(0.05)
    for place, (network, factor) in enumerate(zip(networks, factors)):
        logits, value = network(frames[place])
        (factor * torch.cat([logits, value[:, None]], 1).square().mean()).backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 0.05)
        assert (norm > 0.05) == (place == 0)
        ours = torch.cat([part[place] for part in seen]).norm()
        theirs = torch.cat([p.grad.flatten() for p in network.parameters()]).norm()
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)
    assert all(p.grad is None for p in stacked.parameters())


def test_a_gradient_that_is_not_finite_changes_no_weight():
    stacked = StackedNetwork([AgentNetwork(network_ops(0), torch.Generator().manual_seed(0))])
    optimiser, before = StackedAdam(stacked, 1e-3), [p.detach().clone() for p in stacked.parameters()]
    for parameter in stacked.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    with pytest.raises(NonFiniteError):
        optimiser.step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, stacked.parameters()))


def test_what_cannot_be_trained_together_is_refused():
    with pytest.raises(ConfigError, match="a2c"):
        TogetherTraining(small_config(**{"rl.algorithm": "a2c"}), network_ops(0), (0,), None, STEPS)
    two = [AgentNetwork(network_ops(number), torch.Generator().manual_seed(0)) for number in (0, 1)]
    with pytest.raises(ShapeError, match="same chain"):
        StackedNetwork(two)


def test_minibatches_that_do_not_divide_a_rollout_are_refused():
    with pytest.raises(ConfigError, match=r"rl\.minibatch=90 does not divide the 384 frames"):
        TogetherTraining(small_config(**{"rl.minibatch": 90}), network_ops(0), (0, 1), None, STEPS)
