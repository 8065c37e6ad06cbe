"""Collecting: reward scale, bootstrapping at time limits, several actors, resume; and evaluation by quota."""

import copy

import numpy as np
import pytest
import torch
from scipy.stats import norm

from cosearch.planning.builtins import load_builtins
from cosearch.rl.envs import CheckedEnv, EnvOptions, make_env
from cosearch.rl.evaluate import Score, evaluate
from cosearch.rl.rollout import Collector, RewardScale
from cosearch.testing.conformance import seeded
from cosearch.testing.toys import EPISODE_STEPS, NUM_ACTIONS, SIDE, SignalEnv
from latency_tables.errors import NonFiniteError, ShapeError


def toy(game="signal", num_envs=4, seed=0, test=False):
    return CheckedEnv(SignalEnv(game, EnvOptions(num_envs, seed, test=test)), f"toy:{game}")


def lit(frames):
    """The right action of each frame."""
    height = SIDE // NUM_ACTIONS
    return frames[:, ::height, 0, 0].float().argmax(1)


def perfect(frames):
    """Always presses what is lit; values everything at 2.5."""
    logits = torch.full((len(frames), NUM_ACTIONS), -1e4)
    logits[torch.arange(len(frames)), lit(frames)] = 0.0
    return logits, torch.full((len(frames),), 2.5)


def blind(frames):
    """Presses anything; values nothing."""
    return torch.zeros(len(frames), NUM_ACTIONS), torch.zeros(len(frames))


def collector(env, steps=16, gamma=0.9, lam=1.0, scale=None, seed=1):
    return Collector(
        env, steps, gamma=gamma, lam=lam, scale=scale or RewardScale(env.num_envs, gamma, 1.0), generator=seeded(seed)
    )


def test_reward_scale_is_the_deviation_of_the_whole_history():
    stream, gamma, envs = np.random.default_rng(0), 0.9, 3
    scale, returns, history = RewardScale(envs, gamma), np.zeros(envs), []
    for _ in range(60):
        reward, done = (stream.normal(2, 5, envs)).astype(np.float32), stream.random(envs) < 0.2
        found = scale(reward, done)
        returns = gamma * returns + reward
        history += returns.tolist()
        returns[done] = 0.0
        std = np.std(history)  # the start counts as 1e-4 of an observation
        assert scale.std == pytest.approx(std, rel=3e-3 if len(history) < 30 else 1e-4)
        np.testing.assert_allclose(found, np.clip(reward / scale.std, -10, 10), rtol=1e-6)
        assert found.dtype == np.float32


def test_reward_scale_clips_and_a_fixed_one_never_moves():
    scale = RewardScale(2, 0.9, fixed_std=2.0)
    assert scale(np.array([1.0, 1e6], np.float32), np.zeros(2, bool)).tolist() == [0.5, 10.0]
    assert scale.std == 2.0 and scale(np.array([-1e6, 4.0], np.float32), np.zeros(2, bool)).tolist() == [-10.0, 2.0]
    moving = RewardScale(2, 0.9)
    moving(np.array([1.0, 1e6], np.float32), np.zeros(2, bool))
    assert moving.std > 1e5


def test_reward_scale_resumes():
    one, two, stream = RewardScale(2, 0.9), RewardScale(2, 0.9), np.random.default_rng(0)
    for _ in range(5):
        one(stream.normal(size=2).astype(np.float32), np.array([False, True]))
    two.restore(copy.deepcopy(one.state()))
    reward = np.array([1.0, -3.0], np.float32)
    assert np.array_equal(one(reward, np.zeros(2, bool)), two(reward, np.zeros(2, bool))) and one.std == two.std


def test_a_rollout_holds_what_happened():
    env, twin = toy(), toy()
    rollout = collector(env).collect([perfect])
    assert rollout.frames.shape == (16, 4, SIDE, SIDE, 1) and rollout.frames.dtype == torch.uint8
    assert torch.equal(rollout.frames[0], torch.from_numpy(twin.observe()))
    assert torch.equal(rollout.actions, torch.stack([lit(f) for f in rollout.frames]))
    assert rollout.log_prob.abs().max() < 1e-6 and (rollout.value == 2.5).all()
    for t in range(16):
        twin.send(rollout.actions[t].numpy())
        step = twin.receive()
        if t + 1 < 16:
            assert torch.equal(rollout.frames[t + 1], torch.from_numpy(step.frames))
    assert np.array_equal(env.observe(), step.frames)
    torch.testing.assert_close(rollout.target, rollout.advantage + rollout.value)


def test_actions_follow_the_policy_and_their_log_probability_is_kept():
    def biased(frames):
        return torch.tensor([[0.0, 1.0, 2.0]]).expand(len(frames), 3), torch.zeros(len(frames))

    rollout = collector(toy(num_envs=50), steps=40).collect([biased])
    wanted = torch.softmax(torch.tensor([0.0, 1.0, 2.0]), 0)
    counts = torch.bincount(rollout.actions.flatten(), minlength=3)
    assert float(((counts - 2000 * wanted) ** 2 / (2000 * wanted)).sum()) < 16.3  # chi-square, 2 degrees: p = 0.0003
    torch.testing.assert_close(rollout.log_prob, wanted.log()[rollout.actions])


def ends(steps, env):
    """[steps, envs]: whether the toy's episode ends at that step; the environments start apart."""
    at = (np.arange(steps)[:, None] + np.arange(env) % EPISODE_STEPS + 1) % EPISODE_STEPS
    return at == 0


@pytest.mark.parametrize("game", ["signal", "limit"])
def test_a_time_limit_is_bootstrapped_and_an_end_is_not(game):
    # reward 1 at each step, value 2.5 everywhere, lambda 1: the target is the closed form of the cut geometric series
    gamma, steps, value = 0.9, 16, 2.5
    rollout = collector(toy(game), steps=steps, gamma=gamma).collect([perfect])
    ended = ends(steps, 4)
    for i in range(4):
        for t in range(steps):
            after = next((k for k in range(t, steps) if ended[k, i]), None)
            n = (after if after is not None else steps - 1) - t + 1
            tail = 0.0 if after is not None and game == "signal" else gamma**n * value
            assert float(rollout.target[t, i]) == pytest.approx((1 - gamma**n) / (1 - gamma) + tail, rel=1e-5)


def test_bootstrapping_keeps_an_endless_task_worth_one_over_one_minus_gamma():
    gamma, worth = 0.9, 10.0

    def knowing(frames):
        return perfect(frames)[0], torch.full((len(frames),), worth)

    endless, cut = (collector(toy(game), gamma=gamma, lam=0.95).collect([knowing]) for game in ("limit", "signal"))
    assert float((endless.target - worth).abs().max()) < 1e-4
    assert float((cut.target - worth).abs().max()) > 1.0


def test_the_last_frame_is_valued_by_the_actor_that_played():
    def valuing(number):
        return lambda frames: (blind(frames)[0], torch.full((len(frames),), number))

    env = toy("limit")
    rollout = collector(env, steps=8, gamma=1.0, lam=0.0, scale=RewardScale(4, 1.0, 1e9)).collect([valuing(1.0), valuing(100.0)])
    torch.testing.assert_close(rollout.target, torch.tensor([1.0, 1.0, 100.0, 100.0]).expand(8, 4), atol=1e-6, rtol=0)


def test_environments_are_shared_in_order_by_several_actors():
    calls = []

    def actor(name):
        def forward(frames):
            calls.append((name, len(frames)))
            return perfect(frames) if name == "a" else blind(frames)

        return forward

    rollout = collector(toy(num_envs=6), steps=5).collect([actor("a"), actor("b"), actor("c")])
    assert {name: sum(n for who, n in calls if who == name) for name in "abc"} == {
        "a": 12,
        "b": 12,
        "c": 12,
    }  # 5 steps + 1, 2 each
    assert torch.equal(rollout.actions[:, :2], torch.stack([lit(f[:2]) for f in rollout.frames]))
    assert not torch.equal(rollout.actions[:, 2:], torch.stack([lit(f[2:]) for f in rollout.frames]))
    with pytest.raises(ShapeError, match="paths_per_rollout"):
        collector(toy(num_envs=6)).collect([perfect] * 4)


def test_score_is_the_mean_return_of_finished_episodes_unscaled():
    found = collector(toy(num_envs=1), steps=EPISODE_STEPS - 1, scale=RewardScale(1, 0.9, 1e9))
    found.collect([perfect])
    assert found.score is None and found.episodes == 0
    found.collect([perfect])
    assert found.score == EPISODE_STEPS and found.episodes == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_policy_that_is_not_finite_stops_the_rollout(bad):
    def broken(frames):
        logits, value = blind(frames)
        return logits + torch.tensor([0.0, bad, 0.0]), value

    with pytest.raises(NonFiniteError, match="step 0"):
        collector(toy()).collect([broken])
    with pytest.raises(NonFiniteError, match="while it was played"):
        evaluate(broken, toy(), 4, seeded(0))


@pytest.mark.parametrize("game", ["signal", "limit"])
def test_a_collector_resumes_bit_for_bit(game):
    first, second = (collector(toy(game, seed=n), scale=RewardScale(4, 0.9), seed=n) for n in (0, 7))
    first.collect([blind])
    state, noise = copy.deepcopy(first.state()), first.generator.get_state()
    wanted = first.collect([blind])
    second.restore(state)
    second.generator.set_state(noise)
    found = second.collect([blind])
    for key in ("frames", "actions", "log_prob", "value", "advantage", "target"):
        assert torch.equal(getattr(wanted, key), getattr(found, key)), key
    assert first.score == second.score and first.episodes == second.episodes > 0


def test_evaluation_gives_each_environment_its_quota():
    class Uneven(SignalEnv):
        """Environment 0 ends at every step with return 0, the others as usual: the first episodes to end would all be its."""

        def receive(self):
            step = super().receive()
            step.reward[0], step.terminated[0] = 0.0, True
            return step

    env = CheckedEnv(Uneven("signal", EnvOptions(4, 0)), "toy:uneven")
    score = evaluate(perfect, env, 10, seeded(0))
    assert len(score.returns) == 12  # three each, rounded up
    assert score.returns[:3] == (0.0,) * 3 and min(score.returns[3:]) > 0
    started = [EPISODE_STEPS - i for i in (1, 2, 3)]
    assert score.returns[3:] == tuple(float(r) for first in started for r in (first, EPISODE_STEPS, EPISODE_STEPS))


def test_evaluation_follows_its_seed_and_greedy_differs_from_sampled():
    def leaning(frames):
        return perfect(frames)[0].clamp(min=-1.0), torch.zeros(len(frames))

    first, same, other = (evaluate(leaning, toy(num_envs=8), 40, seeded(n)) for n in (0, 0, 1))
    assert first == same and first != other
    greedy = evaluate(leaning, toy(num_envs=8), 40, seeded(0), greedy=True)
    assert greedy.mean > first.mean and set(greedy.returns[4:5]) == {8.0}
    assert greedy == evaluate(leaning, toy(num_envs=8), 40, seeded(5), greedy=True)


def test_interval_is_near_the_normal_one_and_a_point_for_equal_returns():
    returns = np.random.default_rng(0).normal(5, 2, 400)
    score = Score(tuple(returns))
    half = norm.ppf(0.975) * returns.std() / 20
    assert score.mean == pytest.approx(returns.mean())
    assert score.ci95 == pytest.approx((returns.mean() - half, returns.mean() + half), abs=0.1 * half)
    assert score.ci95 == Score(tuple(returns)).ci95
    assert Score((3.0, 3.0)).ci95 == (3.0, 3.0) and Score((4.0,)).ci95 is None


def always_the_second(frames):
    return torch.tensor([[-99.0, 99.0, -99.0]]).expand(len(frames), 3), torch.zeros(len(frames))


@pytest.mark.parametrize("limit, cut", [(4, 6), (5, 0), (6, 0)])
def test_an_episode_is_cut_at_its_limit_and_the_evaluation_says_so(limit, cut):
    """Pictures end after five steps; the reward of action 1 is 1."""
    load_builtins()
    told = []
    env = make_env("gym:own_envs:Picture-v0", EnvOptions(3, 0))
    score = evaluate(always_the_second, env, 6, seeded(0), episode_steps=limit, note=told.append)
    assert score.cut == min(cut, 3) and score.returns == ((4.0,) * 3 if cut else (5.0,) * 6)
    assert [text.split(" had")[0] for text in told] == (["3 of 3 episodes"] if cut else [])


@pytest.mark.parametrize("greedy", [False, True])
def test_an_evaluation_of_episodes_that_never_end_ends(greedy):
    load_builtins()
    env = make_env("gym:own_envs:Picture-v0", EnvOptions(2, 0, kwargs={"length": None}))
    assert evaluate(always_the_second, env, 100, seeded(0), greedy=greedy, episode_steps=50).cut == 2
