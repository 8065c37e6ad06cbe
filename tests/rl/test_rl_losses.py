"""Loss terms and advantages against hand numbers, closed forms, slow loops and torch.distributions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, kl_divergence

from cosearch.rl.learning import losses
from cosearch.testing.conformance import seeded
from latency_tables.errors import ShapeError


def slow_gae(reward, value, done, gamma, lam):
    """The definition, eq. 16 of the paper, as a sum over all later steps of the episode: no recursion."""
    steps, envs = reward.shape
    found = np.zeros((steps, envs))
    for i in range(envs):
        for t in range(steps):
            factor = 1.0
            for k in range(t, steps):
                after = 0.0 if done[k, i] else value[k + 1, i]
                found[t, i] += factor * (reward[k, i] + gamma * after - value[k, i])
                factor *= gamma * lam
                if done[k, i]:
                    break
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 3), st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.6))
def test_gae_is_its_definition(seed, steps, envs, gamma, lam, ends):
    stream = np.random.default_rng(seed)
    reward, value = (stream.normal(size=(n, envs)).astype(np.float32) for n in (steps, steps + 1))
    done = stream.random((steps, envs)) < ends
    found = losses.gae(reward, value, done, gamma=gamma, lam=lam)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slow_gae(reward, value, done, gamma, lam), atol=2e-5)


def test_rewards_of_one_for_ever_are_worth_one_over_one_minus_gamma():
    gamma, steps = 0.9, 200
    reward, value, done = np.ones((steps, 1), np.float32), np.zeros((steps + 1, 1), np.float32), np.zeros((steps, 1), bool)
    assert losses.gae(reward, value, done, gamma=gamma, lam=1.0)[0, 0] == pytest.approx(1 / (1 - gamma), rel=1e-5)
    assert losses.gae(reward, value, done, gamma=gamma, lam=0.5)[0, 0] == pytest.approx(1 / (1 - 0.45), rel=1e-5)
    assert losses.gae(reward, np.full_like(value, 10.0), done, gamma=gamma, lam=0.7)[0, 0] == pytest.approx(0.0, abs=1e-5)


def test_lambda_zero_is_one_step_and_lambda_one_is_the_return():
    stream = np.random.default_rng(1)
    reward, value = stream.normal(size=(6, 2)).astype(np.float32), stream.normal(size=(7, 2)).astype(np.float32)
    done = np.zeros((6, 2), bool)
    done[3, 0] = True
    one = losses.gae(reward, value, done, gamma=0.9, lam=0.0)
    np.testing.assert_allclose(one, reward + 0.9 * value[1:] * ~done - value[:-1], atol=1e-6)
    full = losses.gae(reward, value, done, gamma=0.9, lam=1.0)
    assert full[0, 0] == pytest.approx(sum(0.9**k * reward[k, 0] for k in range(4)) - value[0, 0], abs=1e-5)
    assert full[0, 1] == pytest.approx(
        sum(0.9**k * reward[k, 1] for k in range(6)) + 0.9**6 * value[6, 1] - value[0, 1], abs=1e-5
    )


@pytest.mark.parametrize(
    "ratio, advantage, wanted",
    [(1.5, 1.0, -1.2), (1.1, 1.0, -1.1), (0.5, 1.0, -0.5), (0.5, -1.0, 0.8), (1.5, -1.0, 1.5), (0.9, -2.0, 1.8)],
)
def test_ppo_loss_by_hand(ratio, advantage, wanted):
    old = torch.tensor([-1.3])
    log_prob = (old + float(np.log(ratio))).requires_grad_()
    loss = losses.ppo_policy_loss(log_prob, old, torch.tensor([advantage]), 0.2)
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-6)
    loss.backward()
    clipped = (ratio > 1.2 and advantage > 0) or (ratio < 0.8 and advantage < 0)
    assert float(log_prob.grad) == pytest.approx(0.0 if clipped else -ratio * advantage, rel=1e-5)


def test_ppo_at_ratio_one_has_the_gradient_of_the_policy_gradient():
    log_prob = torch.log_softmax(torch.randn(9, generator=seeded(0)), 0).requires_grad_()
    advantage = torch.randn(9, generator=seeded(1))
    (ppo,) = torch.autograd.grad(losses.ppo_policy_loss(log_prob, log_prob.detach(), advantage, 0.2), log_prob)
    (a2c,) = torch.autograd.grad(losses.a2c_policy_loss(log_prob, advantage), log_prob)
    torch.testing.assert_close(ppo, a2c)
    torch.testing.assert_close(a2c, -advantage / 9)


def test_value_loss_by_hand():
    value, target, old = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 0.0]), torch.tensor([0.9, 0.0])
    assert float(losses.value_loss(value, target)) == pytest.approx(0.5 * (1 + 9) / 2)
    # clipped to 0.2 around the old value: max(1, 1) and max(9, 0.04)
    assert float(losses.value_loss(value, target, old, 0.2)) == pytest.approx(0.5 * (1 + 9) / 2)
    # a value that ran past the clip towards its target still pays for the held one: max(0, (0.2 - 3)^2)
    assert float(losses.value_loss(torch.tensor([3.0]), torch.tensor([3.0]), torch.tensor([0.0]), 0.2)) == pytest.approx(
        0.5 * 7.84
    )
    at = torch.tensor([3.0], requires_grad=True)
    losses.value_loss(at, torch.tensor([3.0]), torch.tensor([0.0]), 0.2).backward()
    assert float(at.grad) == 0.0


def test_entropy_and_divergence_are_those_of_torch_distributions():
    mine, theirs = (torch.log_softmax(torch.randn(7, 5, generator=seeded(n)), -1) for n in (0, 1))
    torch.testing.assert_close(losses.entropy(mine), Categorical(logits=mine).entropy().mean())
    torch.testing.assert_close(
        losses.actor_distillation(mine, theirs), kl_divergence(Categorical(logits=theirs), Categorical(logits=mine)).mean()
    )
    assert float(losses.entropy(torch.full((3, 8), -float(np.log(8))))) == pytest.approx(np.log(8), rel=1e-6)


def test_divergence_is_zero_for_equal_logits_and_one_bit_by_hand():
    logits = torch.randn(4, 6, generator=seeded(0)).requires_grad_()
    loss = losses.actor_distillation(torch.log_softmax(logits, -1), torch.log_softmax(logits.detach(), -1))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-7) and float(logits.grad.abs().max()) < 1e-7
    sure, even = torch.tensor([[0.0, -1e9]]), torch.log(torch.tensor([[0.5, 0.5]]))
    assert float(losses.actor_distillation(even, sure)) == pytest.approx(np.log(2), rel=1e-6)


def test_the_teacher_gets_no_gradient():
    student, teacher = (torch.randn(4, 3, generator=seeded(n)).requires_grad_() for n in (0, 1))
    value, teacher_value = (torch.randn(4, generator=seeded(n)).requires_grad_() for n in (2, 3))
    loss = losses.actor_distillation(torch.log_softmax(student, -1), torch.log_softmax(teacher, -1))
    (loss + losses.critic_distillation(value, teacher_value)).backward()
    assert teacher.grad is None and teacher_value.grad is None
    torch.testing.assert_close(student.grad, (torch.softmax(student, -1) - torch.softmax(teacher, -1)).detach() / 4)
    torch.testing.assert_close(value.grad, (value - teacher_value).detach() / 4)


def test_actions_alone_teach_by_cross_entropy():
    logits = torch.tensor([[0.0, np.log(3.0)], [2.0, 2.0]], requires_grad=True)
    actions = torch.tensor([1, 0])
    loss = losses.action_imitation(logits.log_softmax(-1), actions)
    assert loss.item() == pytest.approx((np.log(4 / 3) + np.log(2)) / 2)
    loss.backward()
    closed = (logits.detach().softmax(-1) - torch.eye(2)[actions]) / 2  # (pi - the action) / batch
    torch.testing.assert_close(logits.grad, closed)


def test_means_alone_teach_by_squared_error():
    mean = torch.tensor([[1.0, -2.0], [0.5, 3.0]], requires_grad=True)
    teacher = torch.tensor([[0.0, -2.5], [0.5, 1.0]], requires_grad=True)
    loss = losses.mean_imitation(mean, teacher)
    assert loss.item() == pytest.approx((1.0 + 0.25 + 4.0) / 2 / 2)
    unit = [torch.distributions.Normal(m, torch.ones(2, 2)) for m in (teacher, mean)]
    assert loss.item() == pytest.approx(kl_divergence(*unit).sum(-1).mean().item())
    loss.backward()
    torch.testing.assert_close(mean.grad, (mean - teacher).detach() / 2)
    assert teacher.grad is None


def test_normalised_advantage_has_mean_zero_and_deviation_one():
    found = losses.normalise_advantage(torch.randn(500, generator=seeded(0)) * 7 + 3)
    assert float(found.mean()) == pytest.approx(0.0, abs=1e-6) and float(found.std()) == pytest.approx(1.0, rel=1e-6)
    assert losses.normalise_advantage(torch.full((4,), 2.0)).tolist() == [0.0] * 4


def test_a_value_that_fell_below_the_clip_pays_for_the_held_one():
    low, old = torch.tensor([0.0]), torch.tensor([3.0])
    assert float(losses.value_loss(low, low, old, 0.2)) == pytest.approx(0.5 * 2.8**2)


def test_advantages_of_almost_equal_values_stay_small():
    """Their deviation is 1e-8 / sqrt(2), and 1e-8 is added to it."""
    found = losses.normalise_advantage(torch.tensor([0.0, 1e-8], dtype=torch.float64))
    assert found.tolist() == pytest.approx([-0.5 / (0.5**0.5 + 1), 0.5 / (0.5**0.5 + 1)])


def test_advantages_are_float32_whatever_the_rewards_are():
    reward, value, done = np.ones((3, 2)), np.zeros((4, 2)), np.zeros((3, 2), bool)
    found = losses.gae(reward, value, done, gamma=0.5, lam=1.0)
    assert found.dtype == np.float32 and found[:, 0].tolist() == [1.75, 1.5, 1.0]


def test_gae_equals_stable_baselines():
    buffers = pytest.importorskip(
        "stable_baselines3.common.buffers", reason="stable-baselines3 is not installed (the bench extra)"
    )
    gymnasium = pytest.importorskip("gymnasium")
    steps, envs, stream = 11, 3, np.random.default_rng(0)
    reward, value = stream.normal(size=(steps, envs)).astype(np.float32), stream.normal(size=(steps + 1, envs)).astype(np.float32)
    done = stream.random((steps, envs)) < 0.3
    buffer = buffers.RolloutBuffer(
        steps, gymnasium.spaces.Box(0, 1, (1,)), gymnasium.spaces.Discrete(2), gamma=0.97, gae_lambda=0.9, n_envs=envs
    )
    start = np.zeros(envs)
    for t in range(steps):
        buffer.add(np.zeros((envs, 1)), np.zeros((envs, 1)), reward[t], start, torch.from_numpy(value[t]), torch.zeros(envs))
        start = done[t]
    buffer.compute_returns_and_advantage(torch.from_numpy(value[steps]), done[-1])
    np.testing.assert_allclose(losses.gae(reward, value, done, gamma=0.97, lam=0.9), buffer.advantages, atol=1e-5)


def test_a_held_value_loss_needs_the_old_value():
    with pytest.raises(ShapeError, match="needs the old one"):
        losses.value_loss(torch.zeros(2), torch.ones(2), clip=0.2)
