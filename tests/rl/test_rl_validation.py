"""Validation: levels of its own where the task has levels, streams of its own everywhere, and neither touches the test levels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cosearch.config.env import EnvConfig
from cosearch.planning.builtins import load_builtins
from cosearch.rl.envs import Box, CheckedEnv, Step
from cosearch.rl.task import make_task
from cosearch.rl.validation import (
    BesideValidation,
    make_beside_validation,
    make_validation,
    validation_streams,
    without_validation,
)
from cosearch.seeding import Streams
from latency_tables.errors import ConfigError

load_builtins()
LEAPER = EnvConfig(name="procgen:leaper", train_levels=20)


def levels(env, steps=160):
    """Level seeds that the engine itself reports while random actions are played."""
    engine, seen, stream = env.env._env, set(), np.random.default_rng(0)
    for _ in range(steps):
        seen |= {info["level_seed"] for info in engine.get_info()}
        env.send(stream.integers(0, 15, env.num_envs))
        env.receive()
    env.close()
    return seen


def test_training_validation_and_test_levels_never_meet():
    learned = levels(make_task(without_validation(LEAPER), 8, 0))
    validated = levels(make_validation(LEAPER, 8, 0))
    tested = levels(make_task(LEAPER, 8, 0, test=True))
    assert len(learned) > 8 and learned <= set(range(16))
    assert validated == {16, 17, 18, 19}
    assert min(tested) >= 20


def test_a_task_without_levels_is_the_same_task_on_other_games():
    pytest.importorskip("minatar", reason="MinAtar is not installed")
    breakout, seed = EnvConfig(name="minatar:breakout"), 3
    assert without_validation(breakout) is breakout
    streams, validation = Streams(seed), validation_streams(seed)
    games = [
        make_task(breakout, 4, streams.derive("env", 0)),
        make_validation(breakout, 4, validation.derive("env")),
        make_task(breakout, 4, streams.derive("eval"), test=True),
    ]
    first, played = [env.observe().copy() for env in games], []
    for env in games:
        actions = np.random.default_rng(0)
        for _ in range(20):
            env.send(actions.integers(0, env.num_actions, 4))
            frames = env.receive().frames
        played.append(frames)
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert not (np.array_equal(first[one], first[other]) and np.array_equal(played[one], played[other]))


def test_training_and_validation_levels_take_turns_in_one_environment_that_goes_on_where_it_was_saved():
    both = make_beside_validation(replace(LEAPER, num_envs=8), 1, 2)
    apart = [make_task(without_validation(LEAPER), 4, 1), make_validation(LEAPER, 4, 2)]
    actions, saved = np.random.default_rng(0), None
    for step in range(60):
        assert all(np.array_equal(both.observe()[first::2], env.observe()) for first, env in enumerate(apart))
        drawn = actions.integers(0, 15, 8)
        both.send(drawn)
        told, steps = both.receive(), []
        for first, env in enumerate(apart):
            env.send(drawn[first::2])
            steps.append(env.receive())
            for name in ("frames", "reward", "terminated", "truncated"):
                assert np.array_equal(getattr(told, name)[first::2], getattr(steps[first], name))
        assert told.success == {2 * i + first: won for first, one in enumerate(steps) for i, won in one.success.items()}
        if step == 30:
            saved = both.state(), actions.bit_generator.state
        elif step > 30:
            last = told.frames.copy()
    again = make_beside_validation(replace(LEAPER, num_envs=8), 3, 4)
    assert list(again.restore(saved[0])) == []
    actions.bit_generator.state = saved[1]
    for _ in range(29):
        again.send(actions.integers(0, 15, 8))
        told = again.receive()
    assert np.array_equal(told.frames, last) and not np.array_equal(last[::2], last[1::2])
    engines = [half.env._env for half in again.env.halves]
    seen = [{info["level_seed"] for info in engine.get_info()} for engine in engines]
    assert max(seen[0]) < 16 <= min(seen[1]) and max(seen[1]) < 20
    for env in (both, again, *apart):
        env.close()


def test_its_streams_follow_the_seed_and_are_those_of_no_other_use():
    def number(streams):
        return torch.rand((), generator=streams.torch("actions")).item()

    assert number(validation_streams(5)) == number(validation_streams(5))
    assert len({number(validation_streams(5)), number(validation_streams(6)), number(Streams(5))}) == 3


def test_a_task_with_a_single_level_has_none_to_keep():
    with pytest.raises(ConfigError, match=r"env\.train_levels=1 leaves no level for validation"):
        without_validation(EnvConfig(name="procgen:leaper", train_levels=1))
    assert without_validation(EnvConfig(name="procgen:leaper", train_levels=2)).train_levels == 1


class Paid:
    """Environments of one continuous action, which is also the reward."""

    def __init__(self):
        self.num_envs, self.frame_shape, self.num_actions, self.exact_resume = 2, (1,), 1, True
        self.action_box = Box((50.0,), (100.0,))

    def observe(self):
        return np.zeros((2, 1), np.float32)

    def send(self, actions):
        self.actions = actions

    def receive(self):
        ended = np.zeros(2, np.bool_)
        return Step(self.observe(), self.actions[:, 0].astype(np.float32), ended, ended, {})


def test_actions_beside_validation_are_scaled_to_their_bounds_once():
    both = CheckedEnv(BesideValidation(CheckedEnv(Paid(), "train"), CheckedEnv(Paid(), "validation")), "both")
    both.send(np.array([[-1.0], [-0.5], [0.0], [0.5]], np.float32))
    assert both.receive().reward.tolist() == [50.0, 62.5, 75.0, 87.5]
