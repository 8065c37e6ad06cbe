"""Environments that do not replay: found before the run, said, and gone on with by fresh episodes, which the record names."""

import editable_env
import numpy as np
import pytest
import torch
from editable_env import TINY

from cosearch.cli.app import main
from cosearch.config.env import EnvConfig
from cosearch.pipeline.session import Checkpointing
from cosearch.planning.builtins import load_builtins
from cosearch.record.run_record import FreshEpisodes, RunRecord
from cosearch.record.rundir import RunDir
from cosearch.rl.dqn.replay import TRUNCATED, Replay
from cosearch.rl.envs import Step
from cosearch.rl.rollout import Collector, RewardScale
from cosearch.rl.task import inexact_resume, make_task

TASK = EnvConfig(name=editable_env.NAME)


@pytest.mark.parametrize("loose, words", [("reset", "two resets give different observations"), ("step", "the same actions give")])
def test_what_ignores_its_seed_is_found_before_the_run(loose, words, monkeypatch):
    load_builtins()
    assert inexact_resume(TASK) is None
    monkeypatch.setenv("LOOSE", loose)
    assert words in inexact_resume(TASK)


@pytest.mark.parametrize("name", ["procgen:starpilot", "minatar:breakout", "gym:CartPole-v1", "gym:Pendulum-v1"])
def test_what_follows_its_seed_is_not_accused(name):
    load_builtins()
    assert inexact_resume(EnvConfig(name=name)) is None


@pytest.fixture
def cut(tmp_path, monkeypatch):
    """Begin a run and interrupt it at its first checkpoint, or at the first one at a step of the search."""
    monkeypatch.chdir(tmp_path)

    def begin(*words, at=0):
        def save(checkpoints, state):
            saved(checkpoints, state)
            if state["step"] < at:
                return
            raise KeyboardInterrupt

        saved = Checkpointing.save
        tiny = (word for word in TINY if not (word.startswith("strategy.") and "--strategy" in words))
        words = [*tiny, "budget.checkpoint_interval_s=0", *words]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Checkpointing, "save", save)
            assert main(["search", "--env", editable_env.NAME, "--run", "a", *words]) == 130

    return begin


PROPOSALS = ("--strategy", "random", "strategy.candidates=2")


ONE_SHOT = ("--strategy", "one-shot", "strategy.values.proposals=2", "strategy.values.score_share=0.25")


@pytest.mark.parametrize(
    "words, step",
    [
        ((), 32),
        pytest.param(PROPOSALS, 96, marks=pytest.mark.slow),  # 64 steps of candidate 0, 32 of candidate 1
        pytest.param(ONE_SHOT, 112, marks=pytest.mark.slow),  # 96 steps of the supernet, 16 of its first score
    ],
    ids=["gradient", "proposals", "one-shot"],
)
def test_a_loose_environment_is_warned_of_and_its_run_goes_on(words, step, cut, monkeypatch, capsys):
    """The record says where the run stood, with the steps of all before."""
    monkeypatch.setenv("LOOSE", "step")
    cut(*words, at=step)
    assert "not exactly resumable: gym:editable_env:Editable-v0 does not replay" in " ".join(capsys.readouterr().err.split())
    record = RunDir.open("runs/a").read(RunRecord)
    assert not record.exactly_resumable and record.fresh_episodes == ()
    assert main(["resume", "runs/a"]) == 0
    assert "4 running episodes could not be continued and begin anew" in " ".join(capsys.readouterr().err.split())
    record = RunDir.open("runs/a").read(RunRecord)
    assert record.fresh_episodes[0] == FreshEpisodes(stage="search", step=step, environments=(0, 1, 2, 3))


def test_an_environment_that_replayed_and_does_not_now_needs_a_word(cut, monkeypatch, capsys):
    cut()
    assert RunDir.open("runs/a").read(RunRecord).exactly_resumable
    monkeypatch.setenv("GAIN", "2")
    assert main(["resume", "runs/a"]) == 1
    said = capsys.readouterr().err
    assert "does not replay" in said and "`cosearch resume runs/a --fresh-episodes`" in said
    assert main(["resume", "runs/a", "--fresh-episodes"]) == 0  # the advice, followed
    assert len(RunDir.open("runs/a").read(RunRecord).fresh_episodes) == 1


def test_an_exact_environment_goes_on_without_a_fresh_episode(cut):
    cut()
    assert main(["resume", "runs/a"]) == 0
    assert RunDir.open("runs/a").read(RunRecord).fresh_episodes == ()


def test_the_return_of_an_episode_that_was_given_up_is_not_counted(monkeypatch):
    load_builtins()

    def collector():
        env = make_task(TASK, 2, 0)
        scale = RewardScale(2, 0.9)
        return Collector(env, 4, gamma=0.9, lam=0.9, scale=scale, generator=torch.Generator().manual_seed(0))

    def actor(frames):
        return torch.zeros(len(frames), 2), torch.zeros(len(frames))

    one = collector()
    one.collect([actor])
    state = one.state()
    assert state["returns"].any() and state["scale"]["return"].any()
    same = collector()
    assert not len(same.restore(state)) and same.counted.returns.tolist() == state["returns"].tolist()
    monkeypatch.setenv("GAIN", "2")
    other = collector()
    assert list(other.restore(state)) == [0, 1]
    assert not other.counted.returns.any() and not other.state()["scale"]["return"].any()


def test_a_replay_memory_ends_the_episode_that_was_given_up():
    memory = Replay(40, 2, (1,), n_step=2, gamma=0.5, exponent=0.5, dtype=np.float32)
    never = np.zeros(2, np.bool_)

    def add(number):
        frames = np.full((2, 1), number, np.float32)
        memory.add(
            frames, np.zeros(2, np.int64), Step(frames + 1, np.ones(2, np.float32), never, never, {}), np.ones(2, np.float32)
        )

    for number in range(3):
        add(number)
    memory.cut([1])
    for number in (10, 11, 12):
        add(number)
    assert memory.ends[2].tolist() == [0, TRUNCATED]
    returns, discounts, following = memory.outcome(np.array([2 * 2, 2 * 2 + 1]))  # the rows that were the newest
    assert returns.tolist() == [1.5, 1.0] and discounts.tolist() == [0.25, 0.5]
    assert following[:, 0].tolist() == [11.0, 2.0]  # what came after two steps; its own frame, after one
