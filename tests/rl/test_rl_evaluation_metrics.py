"""Evaluation by return, success and length; what counts as solved; and a share counted from a random policy's score."""

import dataclasses

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from cosearch.config.env import EnvConfig
from cosearch.deploy.judging import judged, random_score, solved_at
from cosearch.planning.builtins import load_builtins
from cosearch.record.results.evaluation import share_between
from cosearch.rl.env_families.replayed import ReplayedEnvs
from cosearch.rl.envs import EnvOptions, make_env
from cosearch.rl.evaluate import Score, play_episodes
from latency_tables.errors import ConfigError, EnvironmentFailedError

GOAL, LIMIT = 3, 5


class Corridor(gymnasium.Env):
    """Action 1 goes on; every step costs 1; at the third place the episode ends, after five steps it is cut."""

    def __init__(self, word="is_success", says=bool):
        self.observation_space, self.action_space = spaces.Box(0, 10, (2,), np.float32), spaces.Discrete(2)
        self.word, self.says = word, says

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.steps = 0
        return self.seen(), {}

    def step(self, action):
        self.place, self.steps = self.place + int(action), self.steps + 1
        there = self.place == GOAL
        return self.seen(), -1.0, there, not there and self.steps == LIMIT, {self.word: self.says(there)}

    def seen(self):
        return np.float32([self.place, self.steps])


def corridors(count=2, **more):
    return ReplayedEnvs(lambda: Corridor(**more), lambda observation: observation, EnvOptions(count, 0))


def played(actions, *, metric="return", episodes=4, episode_steps=100, **more):
    return play_episodes(
        lambda frames: np.array(actions), corridors(**more), episodes, metric=metric, episode_steps=episode_steps
    )


@pytest.mark.parametrize("word", ["is_success", "success"])
def test_each_episode_has_its_return_length_and_success(word):
    score = played([1, 0], word=word)  # the first environment arrives, the second one stands
    assert score.returns == (-3.0, -3.0, -5.0, -5.0) and score.lengths == (3, 3, 5, 5)
    assert score.successes == (True, True, False, False) and score.success_rate == 0.5
    assert score.mean == -4.0 and score.values == score.returns
    by = {metric: dataclasses.replace(score, metric=metric) for metric in ("success", "length")}
    assert (by["success"].mean, by["success"].values) == (0.5, (1.0, 1.0, 0.0, 0.0))
    assert (by["length"].mean, by["length"].ci95) == (4.0, (3.0, 5.0))


def test_an_episode_that_is_cut_at_our_limit_has_not_succeeded():
    score = played([1, 0], metric="success", episodes=2, episode_steps=4)
    assert score.cut == 1 and score.successes == (True, None) and score.values == (1.0, 0.0)


def test_success_needs_an_environment_that_says_it():
    score = played([1, 1], metric="success", word="note")
    assert score.success_rate is None
    with pytest.raises(ConfigError, match=r"info\['is_success'\] or info\['success'\].*env\.metric=return"):
        score.check_said()
    by_return = dataclasses.replace(score, metric="return")
    by_return.check_said()
    assert by_return.mean == -3.0
    cut = played([0, 0], metric="success", episodes=2, episode_steps=2)
    cut.check_said()  # no episode came to its end: nobody knows
    with pytest.raises(EnvironmentFailedError, match=r"info\['is_success'\] that is no number"):
        played([1, 1], says=lambda there: "yes")


def test_where_no_episode_says_it_all_count_as_failed_and_a_note_says_so():
    told = []
    score = play_episodes(lambda frames: np.array([0, 0]), corridors(word="note"), 4, metric="success", note=told.append)
    assert score.values == (0.0,) * 4 and score.mean == 0.0 and score.ci95 == (0.0, 0.0)
    assert told == ["none of 4 episodes said whether it succeeded; all count as failed"]
    found = judged(score, None, 0.5, score)  # of a random policy that never arrives, too
    assert (found.success_rate, found.random_mean, found.share_of_teacher) == (None, 0.0, 0.0)
    told.clear()
    play_episodes(lambda frames: np.array([0, 0]), corridors(), 4, metric="success", note=told.append)
    play_episodes(lambda frames: np.array([0, 0]), corridors(word="note"), 4, note=told.append)
    assert told == []


def test_what_counts_as_solved_is_gymnasium_s_unless_another_score_is_named():
    load_builtins()
    env = make_env("gym:CartPole-v1", EnvOptions(1, 0))
    registered = gymnasium.spec("CartPole-v1").reward_threshold
    task = EnvConfig(name="gym:CartPole-v1")
    assert solved_at(task, env) == registered == 475.0
    assert solved_at(dataclasses.replace(task, solved_at=-1.5), env) == -1.5
    assert solved_at(dataclasses.replace(task, metric="length"), env) is None  # of returns alone
    assert solved_at(dataclasses.replace(task, wrappers=("reward_scale:0.1",)), env) is None
    assert solved_at(dataclasses.replace(task, name="minatar:breakout"), make_env("minatar:breakout", EnvOptions(1, 0))) is None
    env.close()


def test_solved_is_the_mean_s_and_surely_that_of_the_interval_s_lower_end():
    score = Score((-3.0, -3.0, -5.0, -5.0), lengths=(3, 3, 5, 5), successes=(True, True, False, False))
    low = score.ci95[0]
    assert low < -4.0
    for threshold, solved, surely in ((-4.0, True, False), (low, True, True), (-3.9, False, False)):
        found = judged(score, threshold, None, None)
        assert (found.solved, found.solved_surely, found.solved_at) == (solved, surely, threshold)
    assert judged(score, None, None, None).solved is None
    assert (found.return_mean, found.length_mean, found.success_rate, found.metric) == (-4.0, 4.0, 0.5, "return")


def test_a_share_is_counted_from_the_random_policy_s_score():
    assert share_between(70.0, -200.0, 100.0) == pytest.approx(0.9)
    assert share_between(-4.0, -5.0, -3.0) == 0.5  # of scores below zero, too
    assert share_between(1.0, 2.0, 2.0) is None and share_between(1.0, 2.0, 1.5) is None
    score = Score((-3.0, -3.0, -5.0, -5.0), lengths=(3,) * 4, successes=(None,) * 4)
    found = judged(score, None, -3.0, Score((-5.0, -7.0), lengths=(5, 5), successes=(None,) * 2))
    assert (found.random_mean, found.share_of_teacher) == (-6.0, pytest.approx(2 / 3))
    assert found.share_ci95 == tuple(pytest.approx((end + 6) / 3) for end in score.ci95)
    assert judged(score, None, -6.5, Score((-6.0,), lengths=(5,), successes=(None,))).share_of_teacher is None


def test_the_random_policy_draws_every_action_equally_often():
    task = EnvConfig(name="test_rl_evaluation_metrics:Corridor", metric="success")
    score = random_score(task, 2000, 0)
    # at least three of five draws are 1: (10 + 5 + 1) / 32; its standard deviation is 0.011
    assert len(score.returns) >= 2000 and score.mean == pytest.approx(0.5, abs=0.04)
    assert score == random_score(task, 2000, 0) and score != random_score(task, 2000, 1)
