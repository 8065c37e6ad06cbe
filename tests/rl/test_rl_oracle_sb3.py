"""PPO and A2C beside stable-baselines3: on one batch the same gradients, to float tolerance, from its own training step.

Its value loss has no factor 1/2 (so it gets half our weight), and where it clips values it takes the held value alone, while
ours, as the field's other implementations, takes the larger error: on the batch of the clipped test the held one is the larger.
"""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from cosearch.rl.learning import losses
from cosearch.rl.learning.learner import Learner, LearnerOptions
from cosearch.rl.policy import Gaussian
from cosearch.rl.rollout import Rollout
from cosearch.testing.conformance import seeded

sb3 = pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed (the bench extra)")
gymnasium = pytest.importorskip("gymnasium")
FEATURES, ACTIONS, TIME, ENVS = 6, 4, 16, 3
BASE = LearnerOptions("ppo", 1, TIME * ENVS, 1000, 0.2, False, 0.5, 0.01, 1e9)


class Points(gymnasium.Env):
    """An environment that is only asked for its spaces."""

    observation_space = gymnasium.spaces.Box(-5, 5, (FEATURES,), np.float32)
    action_space = gymnasium.spaces.Discrete(ACTIONS)

    def reset(self, *, seed=None, options=None):
        return np.zeros(FEATURES, np.float32), {}

    def step(self, action):
        return np.zeros(FEATURES, np.float32), 0.0, False, False, {}


class Vectors(Points):
    """The same with action vectors."""

    action_space = gymnasium.spaces.Box(-1, 1, (ACTIONS,), np.float32)


def batch(seed=0, vectors=False):
    g = seeded(seed)
    value = torch.randn(TIME, ENVS, generator=g)
    if vectors:
        return Rollout(
            torch.randn(TIME, ENVS, FEATURES, generator=g),
            torch.randn(TIME, ENVS, ACTIONS, generator=g),
            -5.5 + 0.3 * torch.randn(TIME, ENVS, generator=g),
            value,
            torch.randn(TIME, ENVS, generator=g),
            value + torch.randn(TIME, ENVS, generator=g),
            policy=Gaussian(ACTIONS),
        )
    return Rollout(
        torch.randn(TIME, ENVS, FEATURES, generator=g),
        torch.randint(0, ACTIONS, (TIME, ENVS), generator=g),
        -1.4 + 0.3 * torch.randn(TIME, ENVS, generator=g),
        value,
        torch.randn(TIME, ENVS, generator=g),
        value + torch.randn(TIME, ENVS, generator=g),
    )


def peer(options, world=Points, **changes):
    """A stable-baselines3 model with our options whose optimiser keeps the gradients of its first step and never moves."""
    kind = sb3.PPO if options.algorithm == "ppo" else sb3.A2C
    common = {
        "n_steps": TIME,
        "gamma": 0.97,
        "gae_lambda": 0.9,
        "ent_coef": options.entropy_weight,
        "seed": 0,
        "device": "cpu",
        "vf_coef": options.value_weight / 2,
        "max_grad_norm": options.max_grad_norm,
        "policy_kwargs": {"net_arch": [8]},
        "normalize_advantage": True,
    }
    own = (
        {"use_rms_prop": False}
        if options.algorithm == "a2c"
        else {
            "batch_size": TIME * ENVS,
            "n_epochs": 1,
            "clip_range": options.clip,
            "clip_range_vf": options.clip if options.value_clip else None,
        }
    )
    env = sb3.common.vec_env.DummyVecEnv([world] * ENVS)
    model = kind("MlpPolicy", env, **common, **own, **changes)
    model._logger = sb3.common.logger.Logger(None, [])
    found = []

    def keep(*args, **kwargs):
        found.append([p.grad.clone() for p in model.policy.parameters()])

    model.policy.optimizer.step = keep
    return model, found


def fill(model, data):
    """The batch as its rollout buffer."""
    buffer = model.rollout_buffer
    buffer.reset()
    for t in range(TIME):
        buffer.add(
            data.frames[t].numpy(),
            data.actions[t].reshape(ENVS, -1).numpy(),
            np.zeros(ENVS),
            np.zeros(ENVS),
            data.value[t],
            data.log_prob[t],
        )
    buffer.advantages, buffer.returns = data.advantage.numpy().copy(), data.target.numpy().copy()


class Shared(nn.Module):
    """Its policy's network in our form: policy outputs and values."""

    def __init__(self, policy):
        super().__init__()
        self.policy = policy

    def forward(self, frames):
        actor, critic = self.policy.mlp_extractor(frames)
        outputs = self.policy.action_net(actor)
        if isinstance(self.policy.action_space, gymnasium.spaces.Box):
            outputs = torch.cat([outputs, self.policy.log_std.expand_as(outputs)], -1)
        return outputs, self.policy.value_net(critic)[:, 0]


class Kept:
    """A subject that keeps the gradients of a step and never moves."""

    def __init__(self, model):
        self.parameters, self.net = list(model.policy.parameters()), Shared(model.policy)

    def actors(self):
        return [self.net]

    def extra_loss(self):
        return None

    def zero_grad(self):
        for parameter in self.parameters:
            parameter.grad = None

    def step(self, max_grad_norm, loss):
        norm = float(nn.utils.clip_grad_norm_(self.parameters, max_grad_norm))
        self.gradients = [p.grad.clone() for p in self.parameters]
        return norm


def both(options, data):
    """Gradients of their training step and of ours, on the same weights and batch."""
    model, theirs = peer(options, Vectors if isinstance(data.policy, Gaussian) else Points)
    fill(model, data)
    model.train()
    kept = Kept(model)
    Learner(options, seeded(0)).update(kept, kept.actors(), data, None)
    return theirs[0], kept.gradients


@pytest.mark.parametrize("vectors", [False, True], ids=["discrete", "vectors"])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"clip": 0.05},
        {"entropy_weight": 0.5},
        {"value_weight": 2.0},
        {"max_grad_norm": 0.1},
        {"algorithm": "a2c"},
        {"algorithm": "a2c", "entropy_weight": 0.3},
    ],
    ids=str,
)
def test_gradients_equal_those_of_its_training_step(change, vectors):
    theirs, ours = both(dataclasses.replace(BASE, **change), batch(vectors=vectors))
    assert max(float(g.abs().max()) for g in theirs) > 1e-3
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_each_option_of_the_comparison_matters():
    base, _ = both(BASE, batch())
    for change in ({"clip": 0.05}, {"entropy_weight": 0.5}, {"value_weight": 2.0}, {"max_grad_norm": 0.1}, {"algorithm": "a2c"}):
        other, _ = both(dataclasses.replace(BASE, **change), batch())
        assert any(not torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in zip(base, other)), change


def test_clipped_values_equal_where_the_held_error_is_the_larger_one_and_ours_is_never_the_smaller_loss():
    options = dataclasses.replace(BASE, value_clip=True, entropy_weight=0.0)
    model, theirs = peer(options)
    data = batch()
    with torch.no_grad():
        value = Shared(model.policy)(data.frames.flatten(0, 1))[1].view(TIME, ENVS)
    near, far = value + 0.1, value - 3.0
    inside = torch.arange(TIME)[:, None].expand(TIME, ENVS) % 2 == 0
    data.value = torch.where(inside, near, far)
    data.target = torch.where(inside, value - 1.0, value + 1.0)  # outside: the value moved to its target, further than is held
    fill(model, data)
    model.train()
    kept = Kept(model)
    Learner(options, seeded(0)).update(kept, kept.actors(), data, None)
    for a, b in zip(kept.gradients, theirs[0], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    held = data.value + (value - data.value).clamp(-options.clip, options.clip)
    ours = float(losses.value_loss(value, data.target, data.value, options.clip))
    assert ours >= 0.5 * float((held - data.target).square().mean())


def test_normalised_advantages_and_truncated_targets_are_its_own():
    stream = np.random.default_rng(1)
    reward, value = stream.normal(size=(TIME, ENVS)).astype(np.float32), stream.normal(size=(TIME + 1, ENVS)).astype(np.float32)
    last, gamma, lam = stream.normal(size=(TIME, ENVS)).astype(np.float32), 0.97, 0.9
    cut, ended = stream.random((TIME, ENVS)) < 0.2, stream.random((TIME, ENVS)) < 0.2
    cut &= ~ended
    bootstrapped = (reward + gamma * last * cut).astype(np.float32)  # what both add to the reward of a truncated step
    model, _ = peer(BASE)
    buffer, starts = model.rollout_buffer, np.zeros(ENVS)
    buffer.reset()
    for t in range(TIME):
        buffer.add(
            np.zeros((ENVS, FEATURES)),
            np.zeros((ENVS, 1)),
            bootstrapped[t],
            starts,
            torch.from_numpy(value[t]),
            torch.zeros(ENVS),
        )
        starts = (cut | ended)[t]
    buffer.compute_returns_and_advantage(torch.from_numpy(value[TIME]), (cut | ended)[-1])
    mine = losses.gae(bootstrapped, value, cut | ended, gamma=gamma, lam=lam)
    np.testing.assert_allclose(mine, buffer.advantages, atol=1e-5)
    np.testing.assert_allclose(mine + value[:-1], buffer.returns, atol=1e-5)
    flat = torch.from_numpy(mine).flatten()
    wanted = (flat - flat.mean()) / (flat.std() + 1e-8)
    torch.testing.assert_close(losses.normalise_advantage(flat), wanted)


class Limited(Points):
    """Cut by a time limit at every third step, with another last observation than any other; reward 1."""

    def __init__(self):
        self.count = 0

    def reset(self, *, seed=None, options=None):
        self.count = 0
        return np.zeros(FEATURES, np.float32), {}

    def step(self, action):
        self.count += 1
        return np.full(FEATURES, self.count, np.float32), 1.0, False, False, {}


def test_a_time_limit_is_bootstrapped_as_there():
    from cosearch.rl.envs import Step
    from cosearch.rl.rollout import Collector, RewardScale

    steps, gamma = 7, 0.9
    env = sb3.common.vec_env.DummyVecEnv([lambda: gymnasium.wrappers.TimeLimit(Limited(), 3)] * 2)
    model = sb3.PPO("MlpPolicy", env, n_steps=steps, gamma=gamma, gae_lambda=0.8, seed=0, device="cpu", batch_size=2 * steps)
    _, callback = model._setup_learn(2 * steps, None)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, steps)

    class Same:
        """The same games behind our interface."""

        num_envs, frame_shape, num_actions, exact_resume = 2, (FEATURES,), ACTIONS, True

        def __init__(self):
            self.count = 0

        def observe(self):
            return np.full((2, FEATURES), self.count, np.uint8)

        def send(self, actions):
            self.count += 1

        def receive(self):
            cut = self.count == 3
            last = {i: np.full(FEATURES, 3, np.uint8) for i in range(2)} if cut else {}
            self.count %= 3
            return Step(self.observe(), np.ones(2, np.float32), np.zeros(2, bool), np.full(2, cut), last)

    def forward(frames):
        shared = Shared(model.policy)
        return shared(frames.float())

    collector = Collector(Same(), steps, gamma=gamma, lam=0.8, scale=RewardScale(2, gamma, 1.0), generator=seeded(0))
    rollout = collector.collect([forward])
    np.testing.assert_allclose(rollout.target.numpy(), model.rollout_buffer.returns, atol=1e-5)
    np.testing.assert_allclose(rollout.advantage.numpy(), model.rollout_buffer.advantages, atol=1e-5)
