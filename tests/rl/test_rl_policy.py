"""Policies against torch.distributions: log-probabilities, entropies, divergences, samples."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical as TheirCategorical
from torch.distributions import Independent, Normal, kl_divergence

from cosearch.rl.envs import Box, EnvOptions
from cosearch.rl.policy import Categorical, Gaussian, MultiCategorical, policy_of
from cosearch.testing.conformance import seeded
from cosearch.testing.toys import SignalEnv

SIZE = 3


def gaussian_pair(seed=0, batch=50):
    """Parameters of a batch of Gaussians, and the library's distribution with the same ones."""
    g = seeded(seed)
    mean, log_std = torch.randn(batch, SIZE, generator=g), 0.7 * torch.randn(batch, SIZE, generator=g)
    return torch.cat([mean, log_std], -1), Independent(Normal(mean, log_std.exp()), 1)


def categorical_pair(seed=0, batch=50):
    logits = 2 * torch.randn(batch, 5, generator=seeded(seed))
    return Categorical().read(logits), TheirCategorical(logits=logits)


PAIRS = [(Categorical(), categorical_pair), (Gaussian(SIZE), gaussian_pair)]


@pytest.mark.parametrize("policy, pair", PAIRS, ids=["categorical", "gaussian"])
def test_log_probabilities_entropies_and_divergences_are_those_of_the_library(policy, pair):
    (mine, theirs), (teacher, their_teacher) = pair(0), pair(1)
    actions = their_teacher.sample()
    torch.testing.assert_close(policy.log_prob(mine, actions), theirs.log_prob(actions))
    torch.testing.assert_close(policy.entropy(mine), theirs.entropy().mean())
    torch.testing.assert_close(policy.divergence(mine, teacher), kl_divergence(their_teacher, theirs).mean())
    assert abs(float(policy.divergence(mine, mine))) < 1e-6 < float(policy.divergence(mine, teacher))


@pytest.mark.parametrize("policy, pair", PAIRS, ids=["categorical", "gaussian"])
def test_gradients_are_those_of_the_library_and_none_reaches_the_teacher(policy, pair):
    (raw, _), (teacher, their_teacher) = pair(0), pair(1)
    mine, theirs, frozen = (t.clone().requires_grad_() for t in (raw, raw, teacher))
    actions = their_teacher.sample()
    loss = policy.log_prob(policy.read(mine), actions).mean() + policy.entropy(policy.read(mine))
    (loss + policy.divergence(policy.read(mine), frozen)).backward()
    if policy.name == "gaussian":
        law = Independent(Normal(theirs[:, :SIZE], theirs[:, SIZE:].exp()), 1)
    else:
        law = TheirCategorical(logits=theirs)
    (law.log_prob(actions).mean() + law.entropy().mean() + kl_divergence(their_teacher, law).mean()).backward()
    torch.testing.assert_close(mine.grad, theirs.grad)
    assert frozen.grad is None


def test_gaussian_samples_have_the_mean_and_the_spread_and_come_from_the_generator_alone():
    policy, parameters = Gaussian(2), torch.tensor([[1.0, -2.0, math.log(0.5), math.log(3.0)]]).repeat(40_000, 1)
    before = torch.get_rng_state()
    drawn, again = (policy.sample(parameters, seeded(4)) for _ in range(2))
    assert torch.equal(drawn, again) and torch.equal(before, torch.get_rng_state())
    np.testing.assert_allclose(drawn.mean(0), [1.0, -2.0], atol=5 * 3 / 200)  # five standard errors
    np.testing.assert_allclose(drawn.std(0), [0.5, 3.0], rtol=5 / math.sqrt(2 * 40_000))
    assert torch.equal(policy.greedy(parameters), parameters[:, :2])


def test_the_density_is_that_of_the_unclipped_action():
    # integrates to 1 over the whole line, however narrow the environment's box is
    policy, grid = Gaussian(1), torch.linspace(-12, 12, 20_001)[:, None]
    parameters = torch.tensor([[0.3, 0.2]]).expand(len(grid), 2)
    total = policy.log_prob(parameters, grid).exp().double().sum() * 24 / 20_000
    assert float(total) == pytest.approx(1.0, abs=1e-4)


def test_rooms_hold_what_is_drawn():
    for policy, pair in PAIRS:
        actions = policy.sample(pair()[0], seeded(0))
        room = policy.empty_actions(2, 25)
        room[0] = actions[:25]
        assert torch.equal(room[0], actions[:25]) and room.dtype == actions.dtype and room.shape[:2] == (2, 25)


def test_agreement_is_a_share_for_discrete_actions_and_unknown_for_continuous_ones():
    a, b = (torch.log(torch.tensor(rows)) for rows in ([[0.9, 0.1], [0.2, 0.8]], [[0.6, 0.4], [0.7, 0.3]]))
    assert float(Categorical().agreement(a, b)) == 0.5 and Gaussian(1).agreement(a, b) is None


def test_a_teacher_of_actions_alone_is_imitated_and_one_with_a_distribution_is_not():
    logits, actions = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([[0], [2], [1], [1], [0]])
    categorical = Categorical()
    parameters = categorical.read(logits)
    assert categorical.divergence(parameters, actions) == torch.nn.functional.cross_entropy(logits, actions[:, 0])
    assert categorical.agreement(parameters, actions) == (logits.argmax(-1) == actions[:, 0]).float().mean()
    gaussian = Gaussian(2)
    parameters, means = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))
    found = gaussian.divergence(parameters, means[:, :2])
    torch.testing.assert_close(found, 0.5 * (parameters[:, :2] - means[:, :2]).square().sum(-1).mean())
    assert gaussian.divergence(parameters, means) != found  # with a spread it is the KL divergence


def test_the_policy_follows_the_environments_actions():
    class Vectors(SignalEnv):
        action_box, num_actions = Box((-1.0, -1.0), (1.0, 1.0)), 2

    assert policy_of(SignalEnv("signal", EnvOptions(1, 0))) == Categorical()
    assert policy_of(Vectors("signal", EnvOptions(1, 0))) == Gaussian(2)


SIZES = (2, 4)


@pytest.mark.parametrize("temperature", [0.25, 0.5, 1.0, 2.0])
def test_a_tempered_policy_is_the_power_of_its_probabilities_normalised(temperature):
    logits = torch.randn(6, 6, generator=seeded(3)).double()
    power = np.exp(logits.numpy()) ** (1 / temperature)
    found = Categorical().tempered(torch.log_softmax(logits, -1), temperature).exp().numpy()
    np.testing.assert_allclose(found, power / power.sum(-1, keepdims=True), rtol=1e-9)
    factors = MultiCategorical(SIZES)
    found = factors.tempered(factors.read(logits.float()), temperature).exp().numpy()
    for part, own in zip(np.split(power, [SIZES[0]], -1), np.split(found, [SIZES[0]], -1)):
        np.testing.assert_allclose(own, part / part.sum(-1, keepdims=True), rtol=1e-5)
    mean, log_std = 0.3, -0.4
    x = np.linspace(-12, 12, 100_001)
    density = np.exp(-((x - mean) ** 2) / (2 * math.exp(2 * log_std)) / temperature)
    density /= density.sum()
    found_mean, found_log_std = Gaussian(1).tempered(torch.tensor([[mean, log_std]]), temperature)[0].tolist()
    assert found_mean == pytest.approx((x * density).sum(), rel=1e-6)
    assert math.exp(2 * found_log_std) == pytest.approx(((x - mean) ** 2 * density).sum(), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.01, 100.0])
def test_the_loss_is_finite_at_both_ends_of_the_range_and_over_forbidden_actions(temperature):
    policy, (mine, teacher) = Categorical(), 20 * torch.randn(2, 6, 5, generator=seeded(4))
    mine[:, 0] = teacher[:, 0] = -1e8
    student = policy.read(mine.requires_grad_())
    policy.divergence(student, policy.tempered(policy.read(teacher), temperature)).backward()
    assert bool(mine.grad.isfinite().all()) and float(mine.grad.abs().max()) > 0


def test_an_action_without_a_spread_is_not_tempered():
    means = torch.randn(4, SIZE, generator=seeded(0))
    assert torch.equal(Gaussian(SIZE).tempered(means, 0.5), means)
