"""MinAtar without wrappers plays the same games as its Gymnasium entries: frames, rewards and ends, bit for bit."""

import numpy as np
import pytest

import cosearch.rl.env_families.minatar  # noqa: F401  registers its family
from cosearch.rl.env_families.minatar import MINATAR_GAMES
from cosearch.rl.envs import EnvOptions, make_env

minatar_gym = pytest.importorskip("minatar.gym", reason="MinAtar is not installed")
gymnasium = pytest.importorskip("gymnasium")
STEPS, ENVS, SEED = 400, 3, 11


def entry(game):
    name = f"MinAtar/{game.title().replace('_', '')}-v1"
    if name not in gymnasium.registry:
        minatar_gym.register_envs()
    return gymnasium.make(name)


def seed_of(env, episode):
    """The seed of an environment's episode, as the documentation of ReplayedEnvs gives it."""
    return int(np.random.SeedSequence([SEED, env, episode]).generate_state(1)[0]) & 0x7FFFFFFF


@pytest.mark.parametrize("game", MINATAR_GAMES)
def test_trajectories_equal_those_of_the_gymnasium_entries(game):
    mine = make_env(f"minatar:{game}", EnvOptions(ENVS, SEED))
    theirs = [entry(game) for _ in range(ENVS)]
    episodes = [0] * ENVS

    def begin(i):
        theirs[i].unwrapped.game.last_action = 0  # a reset leaves it as it was
        return theirs[i].reset(seed=seed_of(i, episodes[i]))[0]

    frames = [begin(i) for i in range(ENVS)]
    assert mine.num_actions == theirs[0].action_space.n and mine.frame_shape == theirs[0].observation_space.shape
    stream = np.random.default_rng(0)
    for _ in range(STEPS):
        assert np.array_equal(mine.observe(), np.stack(frames).astype(np.uint8) * 255)
        actions = stream.integers(mine.num_actions, size=ENVS)
        mine.send(actions)
        step = mine.receive()
        for i, env in enumerate(theirs):
            frames[i], reward, ended, cut, _ = env.step(int(actions[i]))
            assert (reward, ended, False) == (step.reward[i], step.terminated[i], step.truncated[i]) and not cut
            if ended:
                episodes[i] += 1
                frames[i] = begin(i)
        assert np.array_equal(step.frames, np.stack(frames).astype(np.uint8) * 255)
    assert game == "freeway" or sum(episodes) > 2  # freeway's episodes are longer


def test_actions_repeat_with_the_published_probability():
    env = make_env("minatar:breakout", EnvOptions(1, 0)).env._envs[0]
    env.reset(seed=0)
    seen, last = 0, 1
    for n in range(4000):
        action = 1 + n % 2
        if env.step(action)[2]:
            env.game.reset()
        seen += env.game.last_action != env.actions[action]
        last = action
    assert last in (1, 2) and 0.08 < seen / 4000 < 0.12


def test_a_step_hands_over_frames_of_its_own():
    env = make_env("minatar:breakout", EnvOptions(2, 0))
    env.send(np.zeros(2, np.int64))
    step = env.receive()
    kept = step.frames.copy()
    env.send(np.ones(2, np.int64))
    env.receive()
    assert np.array_equal(step.frames, kept) and step.frames.max() == 255
