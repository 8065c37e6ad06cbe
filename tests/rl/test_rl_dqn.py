"""The DQN against sums written out, known distributions, and a small problem that value iteration solves."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from cosearch.config.run import resolve
from cosearch.rl.dqn.quantiles import bellman_target, midpoints, q_distillation, quantile_huber
from cosearch.rl.dqn.replay import Replay
from cosearch.rl.dqn.update import EpsilonGreedy, QLearner, QOptions, TargetWeights
from cosearch.rl.envs import EnvOptions, Step
from cosearch.rl.learning.subject import NetworkSubject
from cosearch.space.blocks.quantile_head import fold, widen
from cosearch.space.ends import FORBIDDEN
from cosearch.space.network import AgentNetwork
from cosearch.space.parts import Part, pack
from cosearch.testing.conformance import seeded
from cosearch.testing.toys import SignalEnv
from cosearch.training.algorithms import as_deployed, as_policy
from latency_tables.errors import NonFiniteError, ShapeError
from latency_tables.opspec import OpSpec

CPU = torch.device("cpu")


@pytest.mark.parametrize("kappa", [0.5, 1.0, 2.0])
def test_quantile_huber_is_the_double_sum(kappa):
    theta, y = torch.randn(3, 5, generator=seeded(0)) * 2, torch.randn(3, 4, generator=seeded(1)) * 2
    found = quantile_huber(theta, y, kappa)
    for b in range(3):
        total = 0.0
        for i in range(5):
            tau = (2 * i + 1) / 10
            for j in range(4):
                u = float(y[b, j] - theta[b, i])
                huber = u * u / 2 if abs(u) <= kappa else kappa * (abs(u) - kappa / 2)
                total += abs(tau - (1.0 if u < 0 else 0.0)) * huber / kappa / 4
        assert float(found[b]) == pytest.approx(total, rel=1e-5)


def test_its_minimiser_is_the_quantile_function_and_one_quantile_is_half_of_hubers_loss():
    samples = torch.distributions.Exponential(1.0).icdf((torch.arange(4000) + 0.5) / 4000)[None]
    theta = torch.zeros(1, 5, requires_grad=True)
    optimiser = torch.optim.Adam([theta], lr=0.05)
    for step in range(400):
        for group in optimiser.param_groups:
            group["lr"] = 0.05 * (1 - step / 400)
        optimiser.zero_grad()
        quantile_huber(theta, samples, kappa=0.01).sum().backward()
        optimiser.step()
    assert theta.detach()[0].tolist() == pytest.approx((-torch.log1p(-midpoints(5))).tolist(), abs=0.03)
    one, target = torch.tensor([[0.3], [4.0]]), torch.tensor([[0.8], [1.0]])
    wanted = 0.5 * nn.functional.huber_loss(one, target, reduction="none")[:, 0]
    torch.testing.assert_close(quantile_huber(one, target), wanted)


def test_the_loss_is_linear_from_one_on_in_the_dtype_of_the_quantiles():
    theta, target = torch.tensor([[0.0, 0.0]], dtype=torch.float64), torch.tensor([[3.0]], dtype=torch.float64)
    found = quantile_huber(theta, target)
    assert found.dtype == torch.float64 and found.tolist() == [(0.25 + 0.75) * (3.0 - 0.5)]


def test_targets_by_hand_double_and_plain():
    later = torch.tensor([[[1.0, 3.0], [5.0, 7.0]], [[0.0, 0.0], [2.0, 4.0]]])  # two transitions, two actions, two quantiles
    choosing = torch.tensor([[[9.0, 9.0], [0.0, 0.0]], [[0.0, 1.0], [3.0, 3.0]]])
    returns, discounts = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.0])
    assert bellman_target(returns, discounts, later, choosing).tolist() == [[1.5, 2.5], [2.0, 2.0]]
    assert bellman_target(returns, discounts, later, later).tolist() == [[3.5, 4.5], [2.0, 2.0]]


def test_distillation_is_the_divergence_of_the_softened_values():
    q, teacher = torch.tensor([[0.1, 0.2, -0.1]]), torch.tensor([[0.5, 0.3, 0.2]]).log()
    student = np.exp([1.0, 2.0, -1.0]) / np.exp([1.0, 2.0, -1.0]).sum()
    wanted = sum(p * np.log(p / s) for p, s in zip((0.5, 0.3, 0.2), student))
    assert float(q_distillation(q, teacher, 0.1)) == pytest.approx(wanted, rel=1e-5)
    assert float(q_distillation(teacher * 0.1 + 7.0, teacher, 0.1)) == pytest.approx(0.0, abs=1e-5)


def small_ops(side=4, actions=3):
    return [OpSpec("stem", 1, side, side, 4, kernel=3, padding=1), OpSpec("head", 4, side, side, actions + 1, hidden=16)]


def wide_network(quantiles=7, dueling=True, actions=3):
    network = AgentNetwork(small_ops(actions=actions), seeded(1))
    widen(network, quantiles, dueling, seeded(2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=seeded(3)) * 0.3)
    return network


@pytest.mark.parametrize("dueling", [True, False])
def test_the_folded_head_gives_the_mean_of_the_quantiles(dueling):
    network = wide_network(dueling=dueling)
    frames = torch.randint(0, 256, (64, 4, 4, 1), generator=seeded(0)).to(torch.uint8)
    plain = fold(network, AgentNetwork(small_ops(), seeded(9)))
    with torch.no_grad():
        quantiles, mean = network(frames)
        q, value = plain(frames)
    assert quantiles.shape == (64, 3, 7) and mean.shape == (64, 7) and q.shape == (64, 3) and value.shape == (64,)
    torch.testing.assert_close(q, quantiles.double().mean(2).float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(value, q.mean(1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mean, quantiles.mean(1), atol=1e-5, rtol=1e-5)
    assert sum(p.numel() for p in plain.parameters()) == sum(op.params for op in small_ops())


def test_dueling_is_value_plus_centred_advantage():
    network = wide_network()
    head, features = network.blocks[-1], torch.rand(5, 4, 4, 4, generator=seeded(4))
    hidden = torch.relu(head.hidden(torch.relu(features).flatten(1)))
    raw = torch.nn.functional.linear(hidden, head.outputs.weight, head.outputs.bias).view(5, 4, 7)
    advantage, value = raw[:, :3], raw[:, 3:]
    wanted = value + advantage - advantage.mean(1, keepdim=True)
    torch.testing.assert_close(head(features)[:, :3], wanted, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(wide_network(dueling=False).blocks[-1](features)[:, :3], wanted, atol=1e-2)


def test_the_output_layer_stays_in_float32_under_autocast():
    network, frames = wide_network(), torch.zeros(2, 4, 4, 1, dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(frames)[0].dtype == torch.float32


def test_only_one_plain_head_can_be_widened_and_only_the_same_network_folded():
    with pytest.raises(ShapeError, match="one Head"):
        widen(wide_network(), 3, True, seeded(0))
    other = AgentNetwork(
        [OpSpec("stem", 1, 4, 4, 4, kernel=3, padding=1), OpSpec("conv", 4, 4, 4, 4, kernel=1), small_ops()[1]], seeded(0)
    )
    with pytest.raises(ShapeError, match="another"):
        fold(wide_network(), other)


def test_target_weights_are_the_older_ones_inside_the_block_only():
    layer = nn.Linear(2, 1)
    target, before = TargetWeights(layer), layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.add_(1.0)
    with target.in_place():
        assert torch.equal(layer.weight, before)
    assert torch.equal(layer.weight, before + 1.0)
    saved = target.state()
    target.copy()
    with target.in_place():
        assert torch.equal(layer.weight, before + 1.0)
    target.restore(saved)
    with target.in_place():
        assert torch.equal(layer.weight, before)


def test_epsilon_greedy_shares_the_environments_and_explores_as_often_as_asked():
    env = SignalEnv("signal", EnvOptions(400, 1))
    player = EpsilonGreedy(env, np.random.default_rng(0))

    def always(action):
        return lambda frames: (nn.functional.one_hot(torch.full((len(frames),), action), 3).float()[..., None], torch.zeros(1))

    greedy, _ = player.play([always(0), always(2)], env.observe(), 0.0)
    assert greedy.tolist() == [0] * 200 + [2] * 200
    drawn = np.concatenate([player.play([always(1)], env.observe(), 0.3)[0] for _ in range(20)])
    assert np.mean(drawn != 1) == pytest.approx(0.3 * 2 / 3, abs=0.02) and np.mean(drawn == 0) == pytest.approx(0.1, abs=0.015)
    assert player.episodes > 0 and player.score is not None
    with pytest.raises(NonFiniteError, match="action values"):
        player.play([lambda frames: (torch.full((len(frames), 3, 1), torch.nan), None)], env.observe(), 0.0)


def test_a_forbidden_action_is_never_taken_nor_bootstrapped_from():
    """Of four actions the mask leaves two: exploration draws these alike, and their quantiles alone are the target."""
    parts = (Part("seen", "vector", (2,)), Part("action_mask", "mask", (4,)))
    ops = (OpSpec("linear", 2, 1, 1, 8, activation="relu"), OpSpec("head", 8, 1, 1, 5))
    network = AgentNetwork(ops, seeded(0), parts=parts)
    widen(network, 3, True, seeded(1))
    values = {"seen": np.ones((300, 2), np.float32), "action_mask": np.tile(np.array([0, 1, 0, 1], np.uint8), (300, 1))}
    frames = pack(parts, values)
    quantiles, mean = network(torch.from_numpy(frames))
    assert quantiles.shape == (300, 4, 3) and mean.shape == (300, 3)
    assert (quantiles[:, [0, 2]] == FORBIDDEN).all() and (quantiles[:, [1, 3]].abs() < 10).all()
    env = SimpleNamespace(num_envs=300, num_actions=4, parts=parts, sent=[])
    nothing = SimpleNamespace(reward=np.zeros(300), terminated=np.zeros(300, bool), truncated=np.zeros(300, bool))
    env.send, env.receive = env.sent.append, lambda: nothing
    player = EpsilonGreedy(env, np.random.default_rng(0))
    for _ in range(20):
        player.play([network], frames, 1.0)
    drawn = np.concatenate(env.sent)
    assert set(drawn) == {1, 3} and np.mean(drawn == 1) == pytest.approx(0.5, abs=0.03)
    target = bellman_target(torch.zeros(300), torch.ones(300), quantiles, quantiles)
    assert (target == quantiles[torch.arange(300), quantiles.mean(2).argmax(1)]).all() and (target.abs() < 10).all()
    deployed = as_deployed(network, resolve(overrides=["rl.algorithm=dqn"]))
    found, _ = as_policy(deployed, resolve(overrides=["rl.algorithm=dqn"]))(torch.from_numpy(frames))
    chances = found.softmax(1)
    assert torch.isfinite(found).all() and not chances[:, [0, 2]].any() and (chances[:, [1, 3]] > 1e-4).all()


STATES, ACTIONS, GAMMA = 5, 2, 0.9
NEXT = np.array([[1, 0], [2, 0], [3, 1], [4, 0], [-1, 2]])  # -1: the end
REWARD = np.array([[0.0, 0.3], [0.0, 0.0], [-0.2, 0.0], [0.0, 0.5], [2.0, 0.0]])


def value_iteration():
    q = np.zeros((STATES, ACTIONS))
    for _ in range(500):
        best = np.append(q.max(1), 0.0)  # of the end: 0
        q = REWARD + GAMMA * best[NEXT]
    return q


def frame(state):
    made = np.zeros((4, 4, 1), dtype=np.uint8)
    made.flat[state] = 255
    return made


@pytest.mark.slow
@pytest.mark.parametrize("limit", [False, True])
def test_a_small_problem_gets_the_values_of_value_iteration(limit):
    """Uniformly random behaviour; with ``limit`` every episode is cut after 3 steps, which must not change the values."""
    rng, envs = np.random.default_rng(0), 16
    replay = Replay(4000, envs, (4, 4, 1), n_step=1, gamma=GAMMA, exponent=0.5)
    states, ages = rng.integers(0, STATES, envs), np.zeros(envs, dtype=int)
    for _ in range(200):
        actions = rng.integers(0, ACTIONS, envs)
        after, reward = NEXT[states, actions], REWARD[states, actions].astype(np.float32)
        terminated = after < 0
        ages += 1
        cut = limit & (ages >= 3) & ~terminated
        last = {int(i): frame(after[i]) for i in np.flatnonzero(cut)}
        begun = rng.integers(0, STATES, envs)
        following = np.where(terminated | cut, begun, after)
        ages[terminated | cut] = 0
        step = Step(np.stack([frame(s) for s in following]), reward, terminated, cut, last)
        replay.add(np.stack([frame(s) for s in states]), actions, step, reward)
        states = following
    network = AgentNetwork([OpSpec("stem", 1, 4, 4, 8, kernel=1), OpSpec("head", 8, 4, 4, ACTIONS + 1, hidden=32)], seeded(0))
    widen(network, 4, True, seeded(1))
    subject = NetworkSubject(network, lr=5e-3, bf16=False, device=CPU)
    learner = QLearner(QOptions(minibatch=32, micro_batch=32, target_interval=15), network, np.random.default_rng(1))
    for update in range(1200):
        subject.set_lr(5e-3 * (1 - update / 1200) + 1e-5)
        learner.update(subject, subject.actors(), replay, update / 1200, 0.0)
    with torch.no_grad():
        found = network(torch.from_numpy(np.stack([frame(s) for s in range(STATES)])))[0].mean(2).numpy()
    wanted = value_iteration()
    assert np.abs(found - wanted).max() < 0.12 and (found.argmax(1) == wanted.argmax(1)).all(), (found, wanted)


def filled(seed=0):
    rng, replay = np.random.default_rng(seed), Replay(400, 4, (4, 4, 1), n_step=2, gamma=0.9, exponent=0.5)
    for _ in range(40):
        frames = rng.integers(0, 256, (4, 4, 4, 1)).astype(np.uint8)
        never = np.zeros(4, dtype=bool)
        replay.add(
            frames,
            rng.integers(0, 3, 4),
            Step(frames, rng.random(4).astype(np.float32), never, never, {}),
            rng.random(4).astype(np.float32),
        )
    return replay


def weights_after(replay=None, steps=3, **options):
    network = wide_network()
    subject = NetworkSubject(network, lr=1e-2, bf16=False, device=CPU)
    chosen = QOptions(**{"minibatch": 16, "micro_batch": 16, "target_interval": 2, **options})
    learner, replay = QLearner(chosen, network, np.random.default_rng(0)), replay or filled()
    for _ in range(steps):
        learner.update(subject, subject.actors(), replay, 0.0, 0.0)
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_micro_batches_add_up_to_the_minibatch():
    torch.testing.assert_close(weights_after(steps=1, micro_batch=5), weights_after(steps=1), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("option", [{"double": False}, {"target_interval": 1}, {"beta_start": 1.0}, {"max_grad_norm": 1e-3}])
def test_each_option_on_differs_from_off(option):
    replays = filled(), filled()
    for replay in replays:  # unequal priorities, so that weights matter from the first draw
        replay.learned(np.arange(0, 100, 3), np.linspace(0.0, 4.0, 34))
    assert not torch.equal(weights_after(replays[0]), weights_after(replays[1], **option))


def test_an_update_sets_the_priorities_of_what_it_drew_and_a_loss_that_is_not_finite_changes_nothing():
    replay, network = filled(), wide_network()
    subject = NetworkSubject(network, lr=1e-2, bf16=False, device=CPU)
    learner = QLearner(QOptions(minibatch=8, micro_batch=8), network, np.random.default_rng(0))
    batch = replay.draw(8, 0.4, np.random.default_rng(0))
    target = learner.targets(subject.actors()[0], batch, slice(0, 8)).mean(1)
    with torch.no_grad():
        now = network(batch.frames)[0].mean(2)[torch.arange(8), batch.actions]
    learner.update(subject, subject.actors(), replay, 0.0, 0.0)
    assert replay.tree.priorities[batch.positions] == pytest.approx(((target - now).abs().numpy() + 1e-6) ** 0.5, rel=1e-4)
    replay.rewards[:] = np.nan
    before = [p.detach().clone() for p in network.parameters()]
    with pytest.raises(NonFiniteError, match=r"dqn\.lr"):
        learner.update(subject, subject.actors(), replay, 0.0, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters()))


def test_the_teachers_term_enters_the_loss_with_its_weight():
    network = wide_network()
    learner = QLearner(QOptions(minibatch=8, micro_batch=8, temperature=0.5), network, np.random.default_rng(0))
    batch = filled().draw(8, 0.4, np.random.default_rng(0))
    labels = torch.log_softmax(torch.randn(8, 3, generator=seeded(6)), 1)
    taught = dataclasses.replace(batch, teacher_policy=labels)
    with torch.no_grad():
        (plain, *_), (loss, *_) = (
            learner._loss(network, one, slice(0, 8), weight) for one, weight in ((batch, 0.0), (taught, 0.7))
        )
        student = torch.softmax(network(batch.frames)[0].mean(2).double() / 0.5, 1)
    divergence = (labels.double().exp() * (labels.double() - student.log())).sum(1).mean()
    assert float(loss - plain) == pytest.approx(0.7 * float(divergence), rel=1e-4)
    off, _, terms = learner._loss(network, taught, slice(0, 8), 0.0)  # said, and not learned from
    assert float(terms["distill_actor"]) == pytest.approx(float(divergence), rel=1e-4) and torch.equal(off.detach(), plain)
    assert not terms["distill_actor"].requires_grad


def test_a_gradient_that_is_not_finite_names_the_learning_rate_of_the_dqn():
    class Sick(NetworkSubject):
        def step(self, max_grad_norm, found):
            next(self.network.parameters()).grad.fill_(float("inf"))
            return super().step(max_grad_norm, found)

    network = wide_network()
    subject = Sick(network, lr=1e-2, bf16=False, device=CPU)
    learner = QLearner(QOptions(minibatch=8, micro_batch=8), network, np.random.default_rng(0))
    with pytest.raises(NonFiniteError, match=r"gradient norm is .* smaller dqn\.lr"):
        learner.update(subject, subject.actors(), filled(), 0.0, 0.0)


def test_the_actors_give_the_targets_in_turns():
    network, calls = wide_network(), []

    def actor(name):
        return lambda frames: (calls.append(name), network(frames))[1]

    subject = NetworkSubject(network, lr=1e-2, bf16=False, device=CPU)
    learner = QLearner(QOptions(minibatch=8, micro_batch=8), network, np.random.default_rng(0))
    for name in ("a", "b", "a"):
        learner.update(subject, [actor("a"), actor("b")], filled(), 0.0, 0.0)
        assert set(calls) == {name} and len(calls) == 3  # target network, choice, loss
        calls.clear()
