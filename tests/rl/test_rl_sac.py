"""SAC's terms against closed forms and oracles that share no code: densities, targets, gradients, memory, folded heads."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn
from torch.distributions import Normal, TanhTransform, TransformedDistribution
from torch.nn import functional as F

from cosearch.rl.action_box import Box
from cosearch.rl.dqn.replay import Replay
from cosearch.rl.envs import Step
from cosearch.rl.learning.subject import NetworkSubject
from cosearch.rl.sac import losses
from cosearch.rl.sac.critics import TwinCritics
from cosearch.rl.sac.update import SacLearner, SacOptions
from cosearch.space.blocks.squashed_head import squash, squashed_head, unsquash
from cosearch.space.network import AgentNetwork, mlp
from cosearch.testing.conformance import seeded
from latency_tables.errors import NonFiniteError, ShapeError

CPU = torch.device("cpu")


def network_of(features=3, actions=2, seed=1):
    network = AgentNetwork(mlp((features,), actions, (8, 8)), seeded(seed), policy="gaussian")
    squash(network, seeded(seed + 1))
    with torch.no_grad():
        squashed_head(network).outputs.weight.normal_(0.0, 0.5, generator=seeded(seed + 2))
    return network


def test_the_density_is_that_of_the_squashed_variable():
    """Oracle: the distribution function of tanh(u), by scipy, and its numerical derivative."""
    mean, std = torch.tensor([[0.3], [-1.0], [2.0]]), torch.tensor([[0.5], [1.2], [0.1]])
    noise = torch.tensor([[0.4], [-1.5], [0.9]])
    actions, log_prob = losses.squashed(torch.cat([mean, std.log()], -1), noise)
    for row in range(3):
        a, m, s = float(actions[row]), float(mean[row]), float(std[row])
        step = 1e-5 * (1 - a * a)
        above, below = (norm.cdf(math.atanh(a + d), m, s) for d in (step, -step))
        assert float(log_prob[row]) == pytest.approx(math.log((above - below) / (2 * step)), abs=2e-3)


def test_the_density_is_exact_where_the_tangent_is_one_and_sums_over_components():
    outputs = torch.tensor([[40.0, -30.0, 0.0, 0.0]])
    actions, log_prob = losses.squashed(outputs, torch.zeros(1, 2))
    # 1 - tanh(u)^2 = 4 e^(-2|u|) to within e^(-4|u|)
    wanted = -math.log(2 * math.pi) + sum(2 * u - math.log(4) for u in (40.0, 30.0))
    assert actions.tolist() == [[1.0, -1.0]] and float(log_prob) == pytest.approx(wanted, rel=1e-6)


def test_log_standard_deviations_are_held():
    outputs = torch.tensor([[0.0, 0.0, 9.0, -90.0]])
    assert losses.spread_of(outputs)[1].tolist() == [[2.0, -20.0]]


def test_the_target_takes_the_smaller_critic_and_adds_the_entropy_except_behind_a_termination():
    later = torch.tensor([[3.0, 5.0, 1.0], [4.0, 2.0, 7.0]])
    found = losses.soft_target(
        torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.9, 0.9, 0.0]), later, torch.tensor([-2.0, 1.0, 3.0]), 0.5
    )
    assert found.tolist() == pytest.approx([1 + 0.9 * (3 + 1), 1 + 0.9 * (2 - 0.5), 1.0])


def test_the_losses_are_their_formulas():
    q, target = torch.tensor([[1.0, 2.0], [3.0, -2.0]]), torch.tensor([0.0, 1.0])
    assert float(losses.critic_loss(q, target)) == pytest.approx(0.5 * ((1 + 1) / 2 + (9 + 9) / 2))
    log_prob = torch.tensor([0.5, -1.0])
    # of min Q = (1, -2): mean of 0.2 log pi - min Q is (0.1 - 1 - 0.2 + 2) / 2, over the mean size 1.5
    assert float(losses.actor_loss(q, log_prob, 0.2)) == pytest.approx((0.1 - 1 - 0.2 + 2) / 2 / 1.5)
    assert float(losses.actor_loss(torch.zeros(2, 2), torch.ones(2), 0.5)) == pytest.approx(0.5 / 1e-3)


def test_the_temperature_rises_below_the_target_entropy_and_falls_above_it():
    """Its gradient is that of the objective, by automatic differentiation of the formula."""
    log_prob, weight = torch.tensor([1.0, 3.0]), torch.tensor(0.7, requires_grad=True)
    for target in (-1.0, -3.0):
        (wanted,) = torch.autograd.grad(-(weight * (log_prob + target)).mean(), weight)
        assert float(losses.temperature_gradient(log_prob, target)) == pytest.approx(float(wanted))
    assert losses.temperature_gradient(log_prob, -1.0) < 0 < losses.temperature_gradient(log_prob, -3.0)  # entropy is -2


def test_both_critics_are_ordinary_networks_that_share_nothing():
    critics = TwinCritics(3, 2, seeded(0))
    seen, actions = torch.randn(5, 3, generator=seeded(1)), torch.randn(5, 2, generator=seeded(2))
    for which in (0, 1):
        layers = []
        for weight, bias in zip(critics.weights, critics.biases):
            layer = nn.Linear(*weight.shape[1:])
            layer.weight.data, layer.bias.data = weight[which].T.detach(), bias[which, 0].detach()
            layers += [layer, nn.ReLU()]
        plain = nn.Sequential(*layers[:-1])
        torch.testing.assert_close(critics(seen, actions)[which], plain(torch.cat([seen, actions], 1))[:, 0])
    first = critics.weights[0]
    assert first.shape == (2, 5, 256) and not torch.equal(first[0], first[1])
    assert float(first.detach().abs().max()) <= 1 / math.sqrt(5) and float(first.detach().std()) == pytest.approx(
        1 / math.sqrt(15), rel=0.05
    )


def test_targets_follow_by_a_share():
    target, live = [torch.tensor([1.0, 2.0])], [torch.tensor([3.0, 0.0])]
    losses.blend(target, live, 0.25)
    assert target[0].tolist() == [1.5, 1.5] and live[0].tolist() == [3.0, 0.0]


@pytest.mark.parametrize("low, high", [(-1, 1), (-2, 2), (-0.4, 0.4), (0, 1), (50, 100), (-0.01, 0.01), (0, 500), (-1, 3)])
def test_one_and_minus_one_are_the_bounds_in_every_box(low, high):
    box = Box((float(low),), (float(high),))
    ((half, middle),) = box.ranges
    units = np.array([[-1.0], [0.0], [1.0], [0.5]], np.float32)
    found = box.from_policy(middle + half * units)[:, 0]
    np.testing.assert_allclose(found, [low, (low + high) / 2, high, low + 0.75 * (high - low)], rtol=1e-5, atol=1e-6)
    assert box.is_finite and not Box((low, 0.0), (high, np.inf)).is_finite


def test_the_deployed_network_is_the_tangent_of_the_mean_between_the_bounds():
    network = network_of()
    seen = torch.randn(6, 3, generator=seeded(4))
    network.ends.see(5.0 + 2.0 * torch.randn(50, 3, generator=seeded(5)))
    squashed_head(network).deviation.copy_(torch.tensor([0.2, 1e-9]))
    plain = AgentNetwork(network.ops, seeded(0), policy="gaussian")
    deployed = unsquash(network, plain, ((2.0, 0.0), (0.5, 1.0)))
    with torch.no_grad():
        (outputs, nothing), (given, value) = network(seen), deployed(seen)
    assert outputs.shape == (6, 4) and not nothing.any() and not value.any()
    means = outputs[:, :2].tanh() * torch.tensor([2.0, 0.5]) + torch.tensor([0.0, 1.0])
    torch.testing.assert_close(given[:, :2], means)
    assert given[0, 2:].exp().tolist() == pytest.approx([0.4, 0.5e-3])
    assert sum(p.numel() for p in deployed.blocks.parameters()) == sum(op.params for op in deployed.ops)


def test_heads_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="one SquashedHead, got 0"):
        squashed_head(AgentNetwork(mlp((3,), 2), seeded(0), policy="gaussian"))
    with pytest.raises(ShapeError, match="one Head, got 0"):
        squash(network_of(), seeded(0))


def filled(labels=0, steps=40, envs=2, size=2):
    replay = Replay(64, envs, (3,), n_step=1, gamma=0.9, exponent=0.0, labels=labels, dtype=np.float32, action_size=size)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        frames, actions = rng.normal(size=(envs, 3)).astype(np.float32), rng.uniform(-1, 1, (envs, size)).astype(np.float32)
        ended = rng.random(envs) < 0.1
        step = Step(frames, rng.normal(size=envs).astype(np.float32), ended, np.zeros(envs, bool), {})
        replay.add(frames, actions, step, step.reward, np.full((envs, labels), 0.5, np.float32) if labels else None)
    return replay


def test_the_memory_is_bounded_and_keeps_vectors_of_actions():
    replay = filled(steps=100)
    batch = replay.draw(200, 1.0, np.random.default_rng(1))
    assert replay.actions.nbytes == 32 * 2 * 2 * 4 and replay.ready == 62
    assert batch.actions.dtype == torch.float32 and batch.actions.shape == (200, 2) and float(batch.weights.min()) == 1.0
    rows, envs = np.divmod(batch.positions, 2)
    assert np.array_equal(batch.actions.numpy(), replay.actions[rows, envs]) and np.abs(batch.actions.numpy()).max() <= 1
    other = Replay(64, 2, (3,), n_step=1, gamma=0.9, exponent=0.0, dtype=np.float32, action_size=2)
    other.restore(copy.deepcopy(replay.state()))
    again = other.draw(200, 1.0, np.random.default_rng(1))
    assert torch.equal(again.actions, batch.actions) and torch.equal(again.next_frames, batch.next_frames)


def learner_of(network, **options):
    critics = TwinCritics(3, 2, seeded(7))
    return SacLearner(
        SacOptions(16, **options),
        squashed_head(network),
        critics,
        network.ends.enter,
        lr=1e-2,
        rng=np.random.default_rng(3),
        generator=seeded(8),
    )


def test_an_update_moves_actor_critics_targets_and_temperature_each_by_its_own_loss():
    network = network_of()
    subject, learner = NetworkSubject(network, lr=1e-2, bf16=False, device=CPU), learner_of(network, tau=0.5)
    before = {name: copy.deepcopy(part.state_dict()) for name, part in {"net": network, "live": learner.critics}.items()}
    aims = copy.deepcopy(learner.targets.state_dict())
    found = learner.update(subject, subject.actors(), filled(), 0.0)
    assert {"loss_value", "loss_policy", "q_mean", "entropy", "entropy_weight", "grad_norm"} <= found.keys()
    moved = {key for key, value in network.state_dict().items() if not torch.equal(value, before["net"][key])}
    assert any("outputs.weight" in key for key in moved) and any("log_temperature" in key for key in moved)
    assert not any("log_std" in key for key in moved)  # of the ends: the head has its own
    for key, aim in learner.targets.state_dict().items():
        torch.testing.assert_close(aim, (aims[key] + learner.critics.state_dict()[key]) / 2)
    # by Adam's first step: down where the policy has more entropy than -2 nats, one a component of the action, else up
    change = -1e-2 if found["entropy"] > -2 else 1e-2
    assert learner.temperature == pytest.approx(math.exp(change), rel=1e-5)


def test_the_critics_may_learn_alone_at_first():
    network = network_of()
    subject, learner = NetworkSubject(network, lr=1e-2, bf16=False, device=CPU), learner_of(network, critics_alone=2)
    before, replay = copy.deepcopy(network.state_dict()), filled()
    lines = [learner.update(subject, subject.actors(), replay, 0.0) for _ in range(3)]
    assert ["loss_policy" in line for line in lines] == [False, False, True] and "loss_value" in lines[0]
    assert not all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    other = network_of()
    alone = learner_of(other, critics_alone=2)
    student = NetworkSubject(other, lr=1e-2, bf16=False, device=CPU)
    alone.update(student, student.actors(), replay, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), before.values()))


def test_a_teachers_action_is_imitated_in_units_of_the_bounds():
    network = network_of()
    learner, replay = learner_of(network), filled(labels=2)
    batch = replay.draw(16, 1.0, np.random.default_rng(0))
    actor, noise = network, torch.randn(16, 2, generator=seeded(2))
    plain, taught = (learner.loss(actor, batch, noise, weight) for weight in (0.0, 3.0))
    best = network(batch.frames)[0][:, :2].detach().tanh()
    wanted = 0.5 * ((best - 0.5) ** 2).sum(1).mean()
    assert float((taught.loss - plain.loss).detach()) == pytest.approx(3 * float(wanted), rel=1e-4)
    for found in (plain, taught):  # said also where nothing is learned from it
        assert float(found.terms["distill_actor"]) == pytest.approx(float(wanted), rel=1e-5)
    unlabelled = learner.loss(actor, dataclasses.replace(batch, teacher_policy=None), noise, 0.0)
    assert "distill_actor" not in unlabelled.terms and torch.equal(unlabelled.loss, plain.loss)
    alone = learner_of(network, critics_alone=1)
    subject = NetworkSubject(network, lr=1e-2, bf16=False, device=CPU)
    drawn = replay.draw(16, 1.0, np.random.default_rng(3))  # as the learner draws
    best = network(drawn.frames)[0][:, :2].detach().tanh()
    line = alone.update(subject, subject.actors(), replay, 0.0)
    assert line["distill_actor"] == pytest.approx(float(0.5 * ((best - 0.5) ** 2).sum(1).mean()), rel=1e-5)
    with pytest.raises(ShapeError, match="keeps the teacher's labels"):
        learner.loss(actor, filled().draw(16, 1.0, np.random.default_rng(0)), noise, 1.0)


def test_a_gradient_that_is_not_finite_names_sacs_learning_rate():
    class Sick(NetworkSubject):
        def step(self, max_grad_norm, found):
            next(p for p in self.network.parameters() if p.grad is not None).grad.fill_(float("inf"))
            return super().step(max_grad_norm, found)

    network = network_of()
    subject = Sick(network, lr=1e-2, bf16=False, device=CPU)
    with pytest.raises(NonFiniteError, match=r"gradient norm is .* smaller sac\.lr"):
        learner_of(network).update(subject, subject.actors(), filled(), 0.0)


def layers_of(critics):
    """Weights and biases of both critics in float64, as leaves: (one layer's pair, ...) of each."""
    return [
        [
            (weight[which].detach().double().clone().requires_grad_(), bias[which, 0].detach().double().clone().requires_grad_())
            for weight, bias in zip(critics.weights, critics.biases)
        ]
        for which in (0, 1)
    ]


def value_of(layers, seen, actions):
    x = torch.cat([seen, actions], 1)
    for weight, bias in layers[:-1]:
        x = F.relu(x @ weight + bias)
    weight, bias = layers[-1]
    return (x @ weight + bias)[:, 0]


def drawn_from(outputs, noise):
    """Actions and log-densities of the squashed Gaussian by torch.distributions, in float64."""
    mean, log_std = outputs.double().chunk(2, 1)
    before = mean + log_std.exp() * noise.double()
    spread = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform(cache_size=1)])
    actions = spread.transforms[0](before)
    return actions, spread.log_prob(actions).sum(1), mean.tanh()


def test_an_update_is_that_of_a_plain_reimplementation():
    """The second of two actors, an entropy of about -1, observations far from 0, targets that are not the critics."""

    class Spy(NetworkSubject):
        def step(self, max_grad_norm, found):
            self.gradients = {name: p.grad.clone() for name, p in self.network.named_parameters() if p.grad is not None}
            return 1.0

    tau, lr, share = 0.25, 1e-2, 0.01
    network, other, frames = network_of(), network_of(seed=31), 5.0 + 2.0 * torch.randn(50, 3, generator=seeded(5))
    head, plain = squashed_head(network), copy.deepcopy(network)
    for one in (network, plain):
        one.ends.see(frames)
        own = squashed_head(one)
        with torch.no_grad():
            own.log_temperature.fill_(math.log(0.3))
            own.outputs.weight.mul_(0.5)
            own.outputs.bias.copy_(torch.tensor([0.1, -0.2, -1.8, -1.6]))
            own.deviation.copy_(torch.tensor([0.9, 0.4]))
    replay = filled()
    replay.frames += 5.0  # as what was seen
    learner, subject = learner_of(network, tau=tau), Spy(network, lr=lr, bf16=False, device=CPU)
    learner.updates = 1
    with torch.no_grad():
        for target in learner.targets.parameters():
            target.add_(0.1 * torch.randn(target.shape, generator=seeded(41)))
    critics, targets = layers_of(learner.critics), layers_of(learner.targets)
    found = learner.update(subject, [other, *subject.actors()], replay, 0.0)

    batch = replay.draw(16, 1.0, np.random.default_rng(3))
    draws, temperature = seeded(8), 0.3
    first, second = (torch.randn(16, 2, generator=draws) for _ in range(2))
    mean, deviation = frames.double().mean(0), frames.double().std(0, unbiased=False)
    seen, after = ((part.double() - mean) / deviation for part in (batch.frames, batch.next_frames))
    with torch.no_grad():
        later, log_prob, _ = drawn_from(plain(batch.next_frames)[0], first)
        worst = torch.minimum(*(value_of(one, after, later) for one in targets))
        wanted = batch.returns.double() + batch.discounts.double() * (worst - temperature * log_prob)
    loss = sum(((value_of(one, seen, batch.actions.double()) - wanted) ** 2).mean() / 2 for one in critics)
    loss.backward()
    assert found["loss_value"] == pytest.approx(float(loss.detach()), rel=1e-4)

    moved = layers_of(learner.critics)
    for before, now, aim, old in zip(critics, moved, layers_of(learner.targets), targets):
        for (a, b), (c, d), (e, f), (g, h) in zip(before, now, aim, old):
            for start, end, target, was in ((a, c, e, g), (b, d, f, h)):
                clear = start.grad.abs() > 1e-5  # else rounding decides where Adam's first step goes
                step = start - lr * start.grad / (start.grad.abs() + 1e-8)
                torch.testing.assert_close(end[clear].detach(), step[clear].detach(), rtol=0, atol=2e-5)
                torch.testing.assert_close(target.detach(), (was + tau * (end - was)).detach(), rtol=0, atol=1e-6)
                assert clear.any()

    plain.zero_grad()
    actions, log_prob, best = drawn_from(plain(batch.frames)[0], second)
    worst = torch.minimum(*(value_of(one, seen, actions) for one in moved))
    actor = (temperature * log_prob - worst).mean() / worst.detach().abs().mean()
    actor.backward()
    gradients = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    assert gradients.keys() == subject.gradients.keys() and found["loss_policy"] == pytest.approx(float(actor.detach()), rel=1e-4)
    for name, gradient in gradients.items():
        torch.testing.assert_close(subject.gradients[name], gradient, rtol=1e-3, atol=1e-5)
    entropy = -float(log_prob.detach().mean())
    assert -2.0 < entropy < -0.1 and found["entropy"] == pytest.approx(entropy, rel=1e-4)
    # of the temperature's logarithm: entropy above -2, one nat a component, lets it fall
    (moments,) = learner._temperature_adam.state.values()
    assert float(moments["exp_avg"]) / 0.1 == pytest.approx(entropy + 2.0, rel=1e-4)
    assert float(head.log_temperature) == pytest.approx(math.log(0.3) - lr, abs=1e-5)
    root = (actions - best).detach().square().mean(0).sqrt().float()
    torch.testing.assert_close(head.deviation, (1 - share) * torch.tensor([0.9, 0.4]) + share * root, rtol=1e-4, atol=1e-6)
