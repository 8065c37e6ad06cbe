"""What a path is credited with: on a bandit of known returns it is ordered by them, the clipped surrogate by likeness."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from small_space import small_space

from cosearch.config.run import resolve
from cosearch.pipeline.search.gradient_search import search_subject
from cosearch.planning.plan import make_plan
from cosearch.rl.learning.learner import Distillation, Learner, LearnerOptions
from cosearch.rl.learning.losses import MinibatchLosses, path_loss
from cosearch.rl.rollout import Rollout
from cosearch.seeding import Streams
from cosearch.space.supernet import SuperNet
from cosearch.strategies.gradient.score_function import ScoreFunctionOptions, ScoreFunctionStrategy
from cosearch.testing.conformance import seeded
from cosearch.training.algorithms import make_training
from cosearch.training.supernet_subject import SuperNetSubject

STATES, ACTIONS = 8, 4
REWARDS = np.eye(ACTIONS)[np.arange(STATES) % ACTIONS]  # [states, actions]: each state pays for one of them


def policy(strength, right):
    """A policy ``[states, actions]`` that prefers the paying action in so many of the states, and its neighbour in the others."""
    preferred = (np.arange(STATES) + (np.arange(STATES) >= right)) % ACTIONS
    weights = np.exp(strength * np.eye(ACTIONS)[preferred])
    return weights / weights.sum(1, keepdims=True)


ACTING = policy(0.0, 0)  # draws uniformly
POLICIES = [policy(0.2, 3), policy(0.5, 4), policy(1.0, 4), policy(2.0, 5), policy(4.0, 6)]
RETURNS = np.array([(each * REWARDS).sum(1).mean() for each in POLICIES])
LIKENESS = np.array([-(ACTING * np.log(ACTING / each)).sum(1).mean() for each in POLICIES])
OPTIONS = LearnerOptions("ppo", 1, 256, 128, 0.2, False, 0.0, 0.0, 1e9)  # neither value nor entropy: the loss is the surrogate


def bandit(groups, time=64, envs=64, seed=0):
    """A rollout of random states whose environments are shared out to these policies, with exact values and advantages."""
    rng, share = np.random.default_rng(seed), envs // len(groups)
    states = rng.integers(STATES, size=(time, envs))
    chances = np.concatenate([each[states[:, n * share : (n + 1) * share]] for n, each in enumerate(groups)], 1)
    actions = (rng.random((time, envs, 1)) > chances.cumsum(-1)).sum(-1).clip(max=ACTIONS - 1)
    values = (chances * REWARDS[states]).sum(-1)
    rewards = REWARDS[states, actions]
    log_prob = np.log(np.take_along_axis(chances, actions[..., None], -1)[..., 0])
    tensors = (torch.from_numpy(a.astype(np.float32)) for a in (log_prob, values, rewards - values, rewards))
    return Rollout(torch.from_numpy(states)[..., None], torch.from_numpy(actions), *tensors)


class Paths:
    """A subject that learns nothing: minibatch n runs along path n % paths, or along the path that acted."""

    def __init__(self, policies, fresh=True):
        self.policies, self.fresh, self.now, self.found = policies, fresh, -1, [[] for _ in policies]
        self.scale = torch.ones((), requires_grad=True)

    def actor(self, acting):
        def forward(frames):
            self.path = self.now % len(self.policies) if self.fresh else acting
            logits = torch.tensor(np.log(self.policies[self.path]), dtype=torch.float32)[frames[:, 0]]
            return logits * self.scale, torch.zeros(len(frames)) * self.scale

        return forward

    def zero_grad(self):
        self.now += 1

    def extra_loss(self):
        return None

    def step(self, max_grad_norm, found):
        self.found[self.path].append(found)
        return 1.0

    def means(self, of):
        return np.array([np.mean([getattr(found, of) for found in row]) for row in self.found])


def test_fresh_paths_are_ordered_by_their_returns_where_the_clipped_surrogate_orders_them_by_likeness():
    subject = Paths(POLICIES)
    for seed in range(12):
        Learner(OPTIONS, seeded(seed)).update(subject, [subject.actor(0)], bandit([ACTING], seed=seed), None)
    assert all(len(row) >= 30 for row in subject.found)
    np.testing.assert_allclose(subject.means("fresh_path"), -(RETURNS - 0.25) / np.sqrt(0.25 * 0.75), atol=0.05)
    assert np.array_equal(np.argsort(-subject.means("fresh_path")), np.argsort(RETURNS))
    surrogate = -subject.means("loss")
    assert spearmanr(surrogate, LIKENESS).statistic > 0.75 and spearmanr(surrogate, RETURNS).statistic < -0.75


def test_paths_that_acted_are_ordered_by_the_returns_of_their_environments():
    subject, data = Paths(POLICIES, fresh=False), bandit(POLICIES, envs=40)
    Learner(OPTIONS, seeded(0)).update(subject, [subject.actor(n) for n in range(5)], data, None)
    target = data.target.numpy()
    wanted = [(target.mean() - target[:, 8 * n : 8 * n + 8].mean()) / target.std() for n in range(5)]
    np.testing.assert_allclose(subject.means("acting_path"), wanted, rtol=1e-4, atol=1e-5)
    assert np.array_equal(np.argsort(-subject.means("acting_path")), np.argsort(RETURNS))
    assert np.abs(subject.means("fresh_path")).max() < 1e-5  # compared with itself it is as good as itself


def test_returns_that_are_all_equal_credit_nobody():
    subject, data = Paths(POLICIES, fresh=False), bandit(POLICIES, envs=40)
    data.target[:] = 0.5
    Learner(OPTIONS, seeded(0)).update(subject, [subject.actor(n) for n in range(5)], data, None)
    assert not subject.means("acting_path").any()


def test_one_exploding_ratio_gives_no_more_than_its_advantage():
    data = bandit([ACTING], time=4, envs=64)
    data.actions[0, 0], data.log_prob[0, 0], data.advantage[0, 0] = 0, float(np.log(1e-6)), 1.0
    subject = Paths(POLICIES[:1])
    Learner(OPTIONS, seeded(0)).update(subject, [subject.actor(0)], data, None)
    advantage = (data.advantage - data.advantage.mean()) / data.advantage.std()
    assert -float(advantage.max()) - 1e-5 <= subject.found[0][0].fresh_path <= -0.9 * float(advantage.max())
    assert subject.found[0][0].loss > -100  # clipped; not clipped and not normalised it would be below -7,000
    assert path_loss(0.0, 0.0) == 0.0 and path_loss(2.0, 1.0) == -0.5


@pytest.mark.parametrize("of", ["fresh_path", "acting_path"])
def test_a_teachers_terms_are_added_with_their_weights(of):
    data = bandit([ACTING])
    teacher = np.log(np.array([0.7, 0.1, 0.1, 0.1]))
    labels = torch.tensor(teacher, dtype=torch.float32).expand(64, 64, 4), torch.full((64, 64), 0.5)
    data = dataclasses.replace(data, teacher_policy=labels[0], teacher_value=labels[1])
    found = []
    for distillation in (None, Distillation(3.0, 2.0)):
        subject = Paths(POLICIES)
        Learner(OPTIONS, seeded(0)).update(subject, [subject.actor(0)], data, distillation)
        found.append(subject.means(of))
    divergence = [(np.exp(teacher) * (teacher - np.log(each))).sum(1).mean() for each in POLICIES]
    np.testing.assert_allclose(found[1] - found[0], 3.0 * np.array(divergence) + 2.0 * 0.5 * 0.5**2, rtol=0.05)


@pytest.mark.parametrize("fresh, wanted", [(True, 2.0), (False, 3.0)])
def test_a_supernet_hands_its_strategy_the_credit_of_its_kind_of_path(fresh, wanted):
    space = small_space("conv_k3", "skip")
    strategy, told = ScoreFunctionStrategy(space, ScoreFunctionOptions(), seeded(0)), []
    strategy.step = lambda path, loss: told.append((path, loss))
    subject = SuperNetSubject(
        SuperNet(space, seeded(1)),
        strategy,
        [],
        paths=1,
        fresh=fresh,
        lr=1e-3,
        bf16=False,
        device=torch.device("cpu"),
        warmup=0.0,
    )
    subject.zero_grad()
    sum(part.sum() for part in subject.actors()[0](torch.zeros(2, 12, 12, 3, dtype=torch.uint8))).backward()
    subject.step(1.0, MinibatchLosses(1.0, 2.0, 3.0))
    assert [loss for _, loss in told] == [wanted]


def test_the_score_function_finds_the_best_of_a_bandits_policies_from_these_credits():
    """Nine paths of two points; the policy of path (i, j) is known, and the best of them is unlike the one that acts."""
    space = small_space("conv_k3", "mbconv_k3_e1", "skip")
    policies = [policy(0.5 + 1.5 * i, 3 + i + j) for i in range(3) for j in range(3)]
    strategy = ScoreFunctionStrategy(space, ScoreFunctionOptions(lr=0.05), seeded(0))

    class Searching(Paths):
        def zero_grad(self):
            self.drawn = strategy.sample()
            self.now = 3 * self.drawn.choices[0] + self.drawn.choices[1]
            strategy.arch.zero_grad()

        def step(self, max_grad_norm, found):
            strategy.step(self.drawn, found.fresh_path)
            return 1.0

    subject = Searching(policies)
    for seed in range(25):
        Learner(OPTIONS, seeded(seed)).update(subject, [subject.actor(0)], bandit([policies[0]], seed=seed), None)
    assert space.best(strategy.scores()).choices == (2, 2)
    assert int(np.argmax([(each * REWARDS).sum(1).mean() for each in policies])) == 8


def test_a2c_learns_along_the_path_that_acted_as_published_and_ppo_along_fresh_ones():
    """One minibatch a path: the policy that is learned is the one that acted, its divergence from it zero."""
    divergence = {}
    for algorithm in ("a2c", "ppo"):
        words = [f"rl.algorithm={algorithm}", "env.name=minatar:breakout", "env.num_envs=4", "rl.rollout_steps=16"]
        words += ["distill.teacher=none", "rl.minibatch=64", "rl.bf16=false", "strategy.paths_per_rollout=1", "threads=1"]
        plan, streams = make_plan(resolve(overrides=[*words, "objective.latency_ratio=2"])), Streams(0)
        subject = search_subject(plan, streams, torch.device("cpu"))
        training = make_training(plan.config, subject, streams, None, total_steps=640)
        subject.set_progress(0.5)
        divergence[algorithm] = [training.advance()["kl_policy"] for _ in range(2)]
        training.close()
    assert max(divergence["a2c"]) < 1e-6 and min(divergence["ppo"]) > 1e-5
