"""The update: gradients of an independent implementation, micro-batches, each option on and off, and it learns."""

import dataclasses

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from cosearch.cli.app import main
from cosearch.rl.envs import CheckedEnv, EnvOptions
from cosearch.rl.evaluate import evaluate
from cosearch.rl.learning.learner import Distillation, Learner, LearnerOptions
from cosearch.rl.learning.minibatches import check_minibatches
from cosearch.rl.learning.subject import NetworkSubject, clip_and_check
from cosearch.rl.rollout import Collector, RewardScale, Rollout
from cosearch.space.network import AgentNetwork
from cosearch.testing.conformance import seeded
from cosearch.testing.toys import EPISODE_STEPS, SignalEnv
from latency_tables.errors import ConfigError, NonFiniteError
from latency_tables.opspec import OpSpec

CPU = torch.device("cpu")
OPS = (
    OpSpec("stem", 1, 6, 6, 4, kernel=3, padding=1),
    OpSpec("conv", 4, 6, 6, 4, kernel=3, stride=2, padding=1),
    OpSpec("head", 4, 3, 3, 4, hidden=16),
)
BASE = LearnerOptions("ppo", 1, 24, 24, 0.2, True, 0.5, 0.01, 1e9)


def network(seed=0):
    return AgentNetwork(OPS, seeded(seed))


def subject(lr=1e-2, seed=0, bf16=False):
    return NetworkSubject(network(seed), lr=lr, bf16=bf16, device=CPU)


def batch(time=6, envs=4, seed=0):
    """A rollout of random numbers: old probabilities and values differ from the network's, so that clipping happens."""
    g = seeded(seed)
    teacher = torch.log_softmax(torch.randn(time, envs, 3, generator=g), -1)
    value = torch.randn(time, envs, generator=g)
    return Rollout(
        torch.randint(0, 256, (time, envs, 6, 6, 1), generator=g).to(torch.uint8),
        torch.randint(0, 3, (time, envs), generator=g),
        -1.1 + 0.3 * torch.randn(time, envs, generator=g),
        value,
        torch.randn(time, envs, generator=g),
        value + torch.randn(time, envs, generator=g),
        teacher,
        torch.randn(time, envs, generator=g),
    )


def straightforward_loss(net, data, options, distillation=None):
    """PPO or A2C as one would write it from the papers with torch.distributions, sample by sample."""
    logits, value = net(data.frames.flatten(0, 1))
    new, actions = Categorical(logits=logits), data.actions.flatten()
    advantage = data.advantage.flatten()
    advantage = (advantage - advantage.mean()) / advantage.std()
    log_prob, total = new.log_prob(actions), 0.0
    old_value, target = data.value.flatten(), data.target.flatten()
    for n in range(len(actions)):
        if options.algorithm == "ppo":
            ratio = torch.exp(log_prob[n] - data.log_prob.flatten()[n])
            best = 1 + options.clip if advantage[n] > 0 else 1 - options.clip
            outside = ratio > best if advantage[n] > 0 else ratio < best
            total = total - (best if outside else ratio) * advantage[n]
        else:
            total = total - log_prob[n] * advantage[n]
        critic = (value[n] - target[n]) ** 2
        if options.value_clip:
            moved = min(max(float((value[n] - old_value[n]).detach()), -options.clip), options.clip)
            inside = abs(float((value[n] - old_value[n]).detach())) < options.clip
            held = (value[n] if inside else old_value[n] + moved) - target[n]
            critic = max(critic, held**2)
        total = total + options.value_weight * 0.5 * critic
    total = total / len(actions) - options.entropy_weight * new.entropy().mean()
    if distillation is not None:
        teacher = Categorical(logits=data.teacher_policy.flatten(0, 1))
        total = total + distillation.actor * kl_divergence(teacher, new).mean()
        total = total + distillation.critic * 0.5 * ((value - data.teacher_value.flatten()) ** 2).mean()
    return total


class Spy(NetworkSubject):
    """Keeps the gradients of each step and never moves."""

    def step(self, max_grad_norm, loss):
        self.gradients = [p.grad.clone() for p in self.network.parameters()]
        return 1.0


def gradients(options, distillation=None, data=None, order=0):
    spy = Spy(network(), lr=1e-3, bf16=False, device=CPU)
    report = Learner(options, seeded(order)).update(spy, spy.actors(), data or batch(), distillation)
    return spy.gradients, report


@pytest.mark.parametrize("distillation", [None, Distillation(0.7, 0.3)], ids=["alone", "distilled"])
@pytest.mark.parametrize(
    "change", [{}, {"algorithm": "a2c"}, {"value_clip": False}, {"clip": 0.05}, {"entropy_weight": 0.3}], ids=str
)
def test_gradients_equal_those_of_a_straightforward_implementation(change, distillation):
    options = dataclasses.replace(BASE, **change)
    found, _ = gradients(options, distillation)
    net = network()
    straightforward_loss(net, batch(), options, distillation).backward()
    for a, p in zip(found, net.parameters()):
        torch.testing.assert_close(a, p.grad, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("micro_batch", [1, 5, 7, 24, 100])
def test_micro_batches_add_up_to_the_whole_minibatch(micro_batch):
    whole, report = gradients(BASE, Distillation(0.7, 0.3))
    parts, other = gradients(dataclasses.replace(BASE, micro_batch=micro_batch), Distillation(0.7, 0.3))
    for a, b in zip(whole, parts):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert other == pytest.approx(report, rel=1e-4, abs=1e-6)


def test_reported_terms_are_those_of_the_rollout():
    data, net = batch(), network()
    _, report = gradients(BASE, Distillation(0.0, 0.0))
    with torch.no_grad():
        logits, _ = net(data.frames.flatten(0, 1))
    new, teacher = Categorical(logits=logits), Categorical(logits=data.teacher_policy.flatten(0, 1))
    ratio = (new.log_prob(data.actions.flatten()) - data.log_prob.flatten()).exp()
    assert report["entropy"] == pytest.approx(float(new.entropy().mean()), rel=1e-5)
    assert report["clip_fraction"] == pytest.approx(float(((ratio < 0.8) | (ratio > 1.2)).float().mean()), abs=1e-6)
    assert report["kl_policy"] == pytest.approx(float((ratio - 1 - ratio.log()).mean()), rel=1e-4)
    assert report["distill_actor"] == pytest.approx(float(kl_divergence(teacher, new).mean()), rel=1e-4)
    assert report["teacher_agreement"] == pytest.approx(float((logits.argmax(1) == teacher.probs.argmax(1)).float().mean()))
    explained = 1 - float((data.target - data.value).var() / data.target.var())
    assert report["explained_variance"] == pytest.approx(explained, rel=1e-5)


def test_returns_that_are_all_equal_leave_nothing_to_explain():
    data = batch()
    assert "explained_variance" in gradients(BASE, data=data)[1]
    data.target[:] = 0.5
    assert "explained_variance" not in gradients(BASE, data=data)[1]


def weights_after(options, distillation=None, updates=2, lr=1e-2):
    mine, learner = subject(lr), Learner(options, seeded(0))
    for n in range(updates):
        learner.update(mine, mine.actors(), batch(seed=n), distillation)
    return torch.cat([p.detach().flatten() for p in mine.network.parameters()])


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": "a2c"},
        {"epochs": 2},
        {"minibatch": 12},
        {"clip": 0.01},
        {"value_clip": False},
        {"value_weight": 0.1},
        {"entropy_weight": 0.5},
        {"max_grad_norm": 1e-6},
    ],
    ids=str,
)
def test_each_option_changes_the_update(change):
    assert not torch.allclose(weights_after(BASE), weights_after(dataclasses.replace(BASE, **change)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("on", [Distillation(0.5, 0.0), Distillation(0.0, 0.5)])
def test_each_distillation_weight_changes_the_update(on):
    off = weights_after(BASE, Distillation(0.0, 0.0))
    assert torch.equal(off, weights_after(BASE)) and not torch.allclose(off, weights_after(BASE, on), rtol=0, atol=1e-5)


def test_every_option_of_the_learner_is_tested_above():
    tested = {
        "algorithm",
        "epochs",
        "minibatch",
        "micro_batch",
        "clip",
        "value_clip",
        "value_weight",
        "entropy_weight",
        "max_grad_norm",
    }
    assert {field.name for field in dataclasses.fields(LearnerOptions)} == tested
    with pytest.raises(ConfigError, match="ppo, a2c"):
        LearnerOptions("pppo")


def test_minibatches_see_every_frame_once_an_epoch_and_stay_with_their_actor():
    data, seen = batch(time=6, envs=4), []
    mine = subject()

    def actor(name):
        def forward(frames):
            seen.append((name, frames.clone()))
            return mine.network(frames)

        return forward

    Learner(dataclasses.replace(BASE, epochs=2, minibatch=4, micro_batch=2), seeded(0)).update(
        mine, [actor("a"), actor("b")], data, None
    )
    for name, envs in (("a", slice(0, 2)), ("b", slice(2, 4))):
        shown = torch.cat([frames for who, frames in seen if who == name]).flatten(1).sum(1)
        wanted = data.frames[:, envs].flatten(0, 1).flatten(1).sum(1)
        assert torch.equal(shown.sort().values, torch.cat([wanted, wanted]).sort().values)
    assert [len(frames) for _, frames in seen] == [2] * 24 and len({who for who, _ in seen[:8]}) == 2


@pytest.mark.parametrize(
    "time, envs, minibatch, sizes",
    [
        (25, 4, 60, [50, 50]),
        (25, 4, 51, [50, 50]),
        (25, 4, 50, [50, 50]),
        (5, 5, 10, [9, 8, 8]),
        (6, 4, 7, [6, 6, 6, 6]),
        (6, 4, 100, [24]),
    ],
)
def test_every_frame_is_learned_from_also_where_minibatches_do_not_divide_them(time, envs, minibatch, sizes):
    numbers = torch.arange(time * envs, dtype=torch.uint8).view(time, envs, 1, 1, 1).expand(time, envs, 6, 6, 1)
    data, mine, seen = dataclasses.replace(batch(time, envs), frames=numbers.contiguous()), subject(), []

    def forward(frames):
        seen.append(frames[:, 0, 0, 0].tolist())
        return mine.network(frames)

    Learner(dataclasses.replace(BASE, minibatch=minibatch, micro_batch=1000), seeded(0)).update(mine, [forward], data, None)
    assert sorted(map(len, seen), reverse=True) == sizes
    assert sorted(frame for part in seen for frame in part) == list(range(time * envs))


def test_a_minibatch_of_one_frame_is_refused_with_what_to_set(capsys):
    for time, envs, minibatch, instead in (
        (6, 4, 1, "rl.minibatch=2"),
        (5, 5, 2, "rl.minibatch=3"),
        (1, 1, 8, "rl.rollout_steps=2"),
    ):
        mine = subject()
        with pytest.raises(ConfigError, match=f"a single frame.* set {instead}$"):
            Learner(dataclasses.replace(BASE, minibatch=minibatch), seeded(0)).update(
                mine, mine.actors(), batch(time, envs), None
            )
    check_minibatches(1, 4, 2, whole=True)
    check_minibatches(2, 3, 1, whole=True)  # one environment of two steps
    with pytest.raises(ConfigError, match=r"rl\.minibatch=2$"):
        check_minibatches(1, 4, 1, whole=True)
    words = ("--env", "minatar:breakout", "distill.teacher=none")
    alike = ("env.num_envs=6", "strategy.paths_per_rollout=2", "rl.rollout_steps=1", "rl.minibatch=2")  # three frames of a path
    for said in (("rl.minibatch=1",), ("rl.minibatch=1", "rl.algorithm=a2c"), alike):
        assert main(["search", "--dry-run", *words, *said]) == 2
        assert "a single frame" in " ".join(capsys.readouterr().err.split())


def test_the_order_follows_the_generator():
    options = dataclasses.replace(BASE, minibatch=6)

    def after(seed):
        mine = subject()
        Learner(options, seeded(seed)).update(mine, mine.actors(), batch(), None)
        return torch.cat([p.detach().flatten() for p in mine.network.parameters()])

    assert torch.equal(after(0), after(0)) and not torch.equal(after(0), after(1))


@pytest.mark.parametrize("field", ["target", "log_prob", "advantage"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_raises_and_changes_no_weight(field, bad):
    mine, data = subject(), batch()
    getattr(data, field)[2, 1] = bad if field != "log_prob" else -bad
    before = [p.detach().clone() for p in mine.network.parameters()]
    with pytest.raises(NonFiniteError, match=r"a loss is not finite.* smaller rl\.lr"):
        Learner(BASE, seeded(0)).update(mine, mine.actors(), data, None)
    assert all(torch.equal(a, b) for a, b in zip(before, mine.network.parameters())) and not mine.optimiser.state


def test_a_gradient_that_is_not_finite_raises_and_clipping_is_by_the_global_norm():
    parameters = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(3))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert clip_and_check(parameters, 1.0) == pytest.approx(5.0)
    assert parameters[0].grad.tolist() == pytest.approx([0.6, 0.0], rel=1e-5) and parameters[1].grad.item() == pytest.approx(
        0.8, rel=1e-5
    )
    assert clip_and_check(parameters, 9.0) == pytest.approx(1.0, rel=1e-5) and parameters[2].grad is None
    parameters[0].grad[0] = float("nan")
    with pytest.raises(NonFiniteError, match="gradient norm"):
        clip_and_check(parameters, 1.0)


def test_extra_loss_is_added_once_a_minibatch():
    class Priced(Spy):
        """Asks for the first weight to fall, besides the task."""

        calls = 0

        def extra_loss(self):
            self.calls += 1
            return next(self.network.parameters()).flatten()[0] * 5.0

    plain, _ = gradients(BASE)
    spy = Priced(network(), lr=1e-3, bf16=False, device=CPU)
    report = Learner(dataclasses.replace(BASE, micro_batch=5), seeded(0)).update(spy, spy.actors(), batch(), None)
    difference = spy.gradients[0].flatten() - plain[0].flatten()
    assert float(difference[0]) == pytest.approx(5.0, rel=1e-5) and float(difference[1:].abs().max()) < 1e-5
    assert spy.calls == 1 and "loss_cost" in report


def test_half_precision_is_near_and_not_equal():
    data = batch().frames.flatten(0, 1)
    exact, half = (subject(bf16=on).actors()[0](data)[1].detach().float() for on in (False, True))
    assert not torch.equal(exact, half) and float((exact - half).abs().max()) < 0.05 * float(exact.abs().max()) + 0.02


def train(lr, algorithm="ppo", game="signal", updates=30):
    env = CheckedEnv(SignalEnv(game, EnvOptions(16, 0)), "toy")
    mine, generator = subject(lr), seeded(0)
    collector = Collector(env, 16, gamma=0.9, lam=0.95, scale=RewardScale(16, 0.9), generator=generator)
    options = LearnerOptions(algorithm, 1 if algorithm == "a2c" else 3, 64, 64)
    learner = Learner(options, generator)
    for _ in range(updates):
        actors = mine.actors()
        learner.update(mine, actors, collector.collect(actors), None)
    test = CheckedEnv(SignalEnv(game, EnvOptions(16, 5, test=True)), "toy")
    return evaluate(mine.actors()[0], test, 64, seeded(3)).mean


def test_it_learns_a_game_with_a_known_best_score_and_without_learning_rate_it_does_not():
    # the first episodes of the environments are shorter, so the best mean lies a little below the length
    assert train(1e-2) > 0.9 * (EPISODE_STEPS - 1) > 0.6 * EPISODE_STEPS > train(0.0, updates=3)


@pytest.mark.parametrize("algorithm, game", [("a2c", "signal"), pytest.param("ppo", "limit", marks=pytest.mark.slow)])
def test_it_learns_with_the_other_algorithm_and_through_time_limits(algorithm, game):
    assert train(1e-2, algorithm, game, updates=60 if algorithm == "a2c" else 30) > 0.85 * (EPISODE_STEPS - 1)
