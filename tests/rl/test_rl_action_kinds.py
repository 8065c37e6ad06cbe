"""Vectors of whole numbers and masked actions, against torch's own distributions and against enumeration."""

import itertools

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.distributions import Categorical as Torch

from cosearch.planning.builtins import load_builtins
from cosearch.rl.envs import EnvOptions, make_env
from cosearch.rl.learning.learner import Distillation, Learner, LearnerOptions
from cosearch.rl.policy import MultiCategorical, how_to_act, policy_of
from cosearch.rl.rollout import Collector, RewardScale
from cosearch.space.ends import FORBIDDEN
from cosearch.space.network import AgentNetwork, mlp
from cosearch.space.parts import MASK, Part, frame_shape_of, pack, unpack
from cosearch.testing.conformance import seeded
from latency_tables.errors import ConfigError, EnvironmentFailedError

load_builtins()
SIZES = (3, 2, 4)


def outputs(batch=6, seed=0):
    return torch.randn(batch, sum(SIZES), generator=seeded(seed)) * 2


def factors(logits):
    return [Torch(logits=part) for part in logits.split(SIZES, -1)]


def test_log_probabilities_and_entropy_are_the_sums_that_torch_gives():
    policy, logits = MultiCategorical(SIZES), outputs()
    parameters = policy.read(logits)
    actions = policy.sample(parameters, seeded(3))
    wanted = sum(one.log_prob(actions[:, i]) for i, one in enumerate(factors(logits)))
    torch.testing.assert_close(policy.log_prob(parameters, actions), wanted)
    torch.testing.assert_close(policy.entropy(parameters), sum(one.entropy() for one in factors(logits)).mean())
    assert actions.dtype == torch.int64 and actions.shape == policy.empty_actions(6).shape == (6, 3)
    assert torch.equal(policy.greedy(parameters), torch.stack([one.probs.argmax(-1) for one in factors(logits)], -1))


def test_the_divergence_is_that_of_the_joint_distribution():
    policy, mine, theirs = MultiCategorical(SIZES), outputs(), outputs(seed=1)

    def joint(logits):  # [batch, every combination]
        rows = [one.probs for one in factors(logits)]
        return torch.stack(
            [rows[0][:, a] * rows[1][:, b] * rows[2][:, c] for a, b, c in itertools.product(*map(range, SIZES))], -1
        )

    p, q = joint(theirs), joint(mine)
    wanted = (p * (p.log() - q.log())).sum(-1).mean()
    torch.testing.assert_close(policy.divergence(policy.read(mine), policy.read(theirs)), wanted)
    assert policy.agreement(policy.read(mine), policy.read(mine)) == 1.0


def test_samples_follow_the_probabilities_of_each_factor():
    policy, logits = MultiCategorical(SIZES), outputs(1).expand(20_000, -1)
    drawn = policy.sample(policy.read(logits), seeded(5))
    for i, one in enumerate(factors(logits[:1])):
        share = torch.bincount(drawn[:, i], minlength=SIZES[i]) / len(drawn)
        assert (share - one.probs[0]).abs().max() < 0.02


# --- masks


PARTS = (Part("observations", "vector", (4,)), Part(MASK, "mask", (4,)))


def masked_network(seed=0):
    net = AgentNetwork(mlp((4,), 4, (8,)), seeded(seed), parts=PARTS)
    with torch.no_grad():
        net.blocks[-1].outputs.weight.mul_(300)
    return net


def masked_frames(count=40):
    stream = np.random.default_rng(1)
    mask = stream.integers(0, 2, (count, 4)).astype(np.uint8)
    mask[np.arange(count), stream.integers(0, 4, count)] = 1
    values = {"observations": stream.normal(size=(count, 4)).astype(np.float32), MASK: mask}
    return torch.from_numpy(pack(PARTS, values)), torch.from_numpy(mask) > 0


def test_probability_entropy_and_divergence_are_over_the_allowed_actions():
    frames, allowed = masked_frames()
    mine, theirs, policy = masked_network(), masked_network(1), policy_of(make_env("own_tasks:masked", EnvOptions(1, 0)))
    plain = [AgentNetwork(mlp((4,), 4, (8,)), seeded(0)) for _ in range(2)]
    for bare, net in zip(plain, (mine, theirs)):
        bare.load_state_dict(net.state_dict())
    seen = frames[:, 0, :16].clone().view(torch.float32)
    log_p, log_q = (policy.read(net(frames)[0]) for net in (theirs, mine))
    entropies, divergences = [], []
    for i, mask in enumerate(allowed):  # enumerated: the logits of the allowed actions alone, renormalised
        rows = [torch.log_softmax(bare(seen[i : i + 1])[0][0][mask], -1).detach() for bare in (plain[1], plain[0])]
        torch.testing.assert_close(log_p[i][mask], rows[0])
        entropies.append(-(rows[1].exp() * rows[1]).sum())
        divergences.append((rows[0].exp() * (rows[0] - rows[1])).sum())
    torch.testing.assert_close(policy.entropy(log_q), torch.stack(entropies).mean())
    torch.testing.assert_close(policy.divergence(log_q, log_p), torch.stack(divergences).mean())
    assert (log_p.exp()[~allowed] == 0).all() and (mine(frames)[0][~allowed] == FORBIDDEN).all()
    assert allowed.gather(1, policy.sample(log_q, seeded(0))[:, None]).all() and len(policy.greedy(log_q).unique()) > 2


def test_no_gradient_reaches_the_logit_of_a_forbidden_action():
    frames, _ = masked_frames()
    frames[:, 0, -4:] = torch.tensor([1, 0, 1, 0], dtype=torch.uint8)
    net, policy = masked_network(), policy_of(make_env("own_tasks:masked", EnvOptions(1, 0)))
    parameters = policy.read(net(frames)[0])
    (policy.entropy(parameters) + policy.divergence(parameters, parameters.flip(0))).backward()
    grad = net.blocks[-1].outputs.bias.grad
    assert grad[0] != 0 and grad[1] == grad[3] == 0 and torch.isfinite(grad).all()


def test_a_masked_rollout_and_its_update_never_take_a_forbidden_action():
    env = make_env("own_tasks:masked", EnvOptions(8, 0))  # whose step raises on one
    scale, net = RewardScale(8, 0.9), masked_network()
    collector = Collector(env, 32, gamma=0.9, lam=0.9, scale=scale, generator=seeded(0))
    rollout = collector.collect([net])
    assert rollout.frames.shape == (32, 8, *frame_shape_of(PARTS)) and torch.isfinite(rollout.log_prob).all()
    rollout.teacher_policy = rollout.policy.read(masked_network(2)(rollout.frames.flatten(0, 1))[0]).view(32, 8, -1).detach()
    rollout.teacher_value = torch.zeros(32, 8)
    learner = Learner(LearnerOptions(minibatch=64), seeded(0))

    class Still:
        def extra_loss(self):
            return None

        def zero_grad(self):
            net.zero_grad()

        def step(self, max_grad_norm, found):
            return 1.0

    found = learner.update(Still(), [net], rollout, Distillation(1.0, 0.5))
    assert all(np.isfinite(value) for value in found.values()) and found["kl_policy"] == pytest.approx(0, abs=1e-5)


def test_where_a_mask_comes_from():
    import gymnasium
    from own_tasks import Match

    class ByMethod(gymnasium.Wrapper):
        def action_masks(self):
            return self.unwrapped.allowed(self.unwrapped.now).astype(bool)

        def step(self, action):
            return (*super().step(action)[:4], {})

        def reset(self, **given):
            return super().reset(**given)[0], {}

    import own_tasks

    own_tasks.by_method = lambda: ByMethod(own_tasks.masked())
    try:
        one, other = (make_env(f"own_tasks:{name}", EnvOptions(2, 0)) for name in ("masked", "by_method"))
        assert np.array_equal(one.observe(), other.observe()) and one.parts == other.parts == PARTS
        assert Match and how_to_act(one)["parts"] == [part.to_dict() for part in PARTS]
    finally:
        del own_tasks.by_method


@pytest.mark.parametrize(
    "mask, error, text",
    [
        (np.zeros(4), EnvironmentFailedError, "allows none of the 4 actions"),
        (np.ones(3), EnvironmentFailedError, "its action mask has 3 entries of float64, expected 4"),
        ("all", EnvironmentFailedError, "its action mask has 1 entries of <U3"),
    ],
)
def test_a_wrong_mask_is_named(mask, error, text, monkeypatch):
    import own_tasks

    def make():
        env = own_tasks.masked()
        env.allowed = lambda now: mask
        return env

    monkeypatch.setattr(own_tasks, "wrong", make, raising=False)
    with pytest.raises(error, match=text):
        make_env("own_tasks:wrong", EnvOptions(1, 0)).observe()


class Forbidding(gymnasium.Env):
    """A vector, a picture, and the mask of four actions of which its step number, modulo 4, names the allowed one.

    Args:
        inside: the mask is an entry of the observation; else of a step's information alone.
    """

    action_space = spaces.Discrete(4)

    def __init__(self, inside):
        self.inside = inside
        self.observation_space = spaces.Dict(
            {"x": spaces.Box(0, 9, (3,), np.float32), "y": spaces.Box(0, 9, (2,), np.float32)}
            | ({"action_mask": spaces.Box(0, 1, (4,), np.int8)} if inside else {})
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.seen(), {}

    def mask(self):
        return np.eye(4, dtype=np.int8)[self.count % 4]

    def seen(self):
        shown = {"x": np.full(3, self.count, np.float32), "y": np.full(2, self.count, np.float32)}
        return shown | ({"action_mask": self.mask()} if self.inside else {})

    def step(self, action):
        assert not self.inside or self.mask()[action], f"{action} is forbidden"
        self.count += 1
        return self.seen(), 1.0, self.count >= 9, False, {} if self.inside else {"action_mask": self.mask()}


@pytest.mark.parametrize(
    "wrapper, wanted",
    [
        ("flatten", {"observations": [2, 2, 2, 2, 2]}),
        ("keep:x", {"x": [2, 2, 2]}),
        ("frame_stack:2", {"x": [1, 1, 1, 2, 2, 2], "y": [1, 1, 2, 2]}),
    ],
)
def test_a_wrapper_leaves_the_mask_as_it_is(wrapper, wanted, monkeypatch):
    import own_tasks

    monkeypatch.setattr(own_tasks, "forbidding", lambda: Forbidding(True), raising=False)
    env = make_env("own_tasks:forbidding", EnvOptions(1, 0, wrappers=(wrapper,)))
    for count in range(2):
        env.send(np.array([count]))
        env.receive()
    found = {name: values[0].tolist() for name, values in unpack(env.parts, env.observe()).items()}
    assert found == {**wanted, MASK: [0, 0, 1, 0]}


def test_a_mask_that_only_steps_give_is_refused(monkeypatch):
    import own_tasks

    monkeypatch.setattr(own_tasks, "late", lambda: Forbidding(False), raising=False)
    env = make_env("own_tasks:late", EnvOptions(1, 0))
    env.send(np.array([0]))
    with pytest.raises(EnvironmentFailedError, match="own_tasks:late: the information of its step has an 'action_mask'"):
        env.receive()


def test_a_mask_of_action_vectors_is_refused(monkeypatch):
    import own_tasks

    def make():
        env = own_tasks.asymmetric()
        env.allowed = lambda now: np.ones(2)
        return env

    monkeypatch.setattr(own_tasks, "wrong", make, raising=False)
    with pytest.raises(ConfigError, match="own_tasks:wrong has a mask of 2 actions, and actions Box"):
        make_env("own_tasks:wrong", EnvOptions(1, 0))


def test_a_vector_of_whole_numbers_reaches_the_environment_and_a_resume():
    env = make_env("own_tasks:factors", EnvOptions(2, 0))
    assert env.action_sizes == (3, 2) and env.num_actions == 5 and policy_of(env) == MultiCategorical((3, 2))
    assert env.frame_shape == (5,) and how_to_act(env)["action_sizes"] == [3, 2]
    for _ in range(3):
        now = env.observe()
        env.send(np.stack([now[:, :3].argmax(1), now[:, 3:].argmax(1)], 1))
        assert env.receive().reward.tolist() == [1.0, 1.0]
    state, twin = env.state(), make_env("own_tasks:factors", EnvOptions(2, 5))
    assert list(twin.restore(state)) == [] and np.array_equal(twin.observe(), env.observe())
