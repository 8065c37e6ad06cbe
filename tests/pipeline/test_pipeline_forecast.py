"""The forecast times what the run will do; held against a clock that counts environment steps, which a closed form counts too."""

import json

import pytest
import torch
from pipeline_runs import TINY, TINY_PROPOSALS

from cosearch.config.run import config_to_dict, resolve
from cosearch.pipeline import forecast as module
from cosearch.pipeline.forecast import FINISH_S, forecast
from cosearch.pipeline.search import gradient_search
from cosearch.planning.plan import make_plan
from cosearch.rl.envs import CheckedEnv

pytest.importorskip("minatar", reason="MinAtar is not installed")

ENVS, STEPS = 4, 8  # of TINY: a rollout has 32 environment steps
MINATAR = ("env.name=minatar:breakout", "objective.latency_target_s=0.001")
STEP_S = {1: 0.25, 2: 0.125}  # what a step of all environments takes on that clock, by the threads of the process


@pytest.fixture
def counted(monkeypatch):
    """A clock that stands still but for the steps of the environments; gives it and the threads that were in use."""
    now, threads = [0.0], []
    send = CheckedEnv.send

    def counting(self, actions):
        if self.num_envs > 1:  # a space is made with one
            threads.append(torch.get_num_threads())
            now[0] += STEP_S[threads[-1]]
        send(self, actions)

    monkeypatch.setattr(CheckedEnv, "send", counting)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 2)
    before = torch.get_num_threads()
    yield lambda: now[0], threads
    torch.set_num_threads(before)


def plan_of(*words):
    return make_plan(resolve(overrides=words))


def test_a_gradient_search_and_the_retraining_take_their_whole_rollouts(counted):
    clock, _ = counted
    result = forecast(plan_of(*TINY, *MINATAR, "budget.search_steps=100", "budget.retrain_steps=40"), clock)
    rounds = 4 + 2  # of 32 environment steps each, rounded up
    assert result.expected_s == pytest.approx(rounds * STEPS * STEP_S[1] + FINISH_S)
    assert result.search_steps_per_s == result.retrain_steps_per_s == pytest.approx(ENVS / STEP_S[1])


@pytest.mark.parametrize(
    "workers, in_turn",
    [(1, 4), (2, 2), (3, 1.5 + 1), (4, 2), (9, 2)],  # how many candidates' time: two cores do not become more
)
def test_candidates_share_the_cores_and_no_supernet_is_made_for_them(workers, in_turn, counted, monkeypatch):
    monkeypatch.setattr(gradient_search, "SuperNet", None)
    clock, threads = counted
    words = (*TINY_PROPOSALS, *MINATAR, "strategy.name=evolution", f"strategy.workers={workers}", "budget.retrain_steps=0")
    result = forecast(plan_of(*words, "budget.search_steps=256"), clock)
    assert result.expected_s == pytest.approx(in_turn * 2 * STEPS * STEP_S[1] + FINISH_S)  # four candidates of two rollouts
    assert result.retrain_steps_per_s is None and set(threads) == {1} and len(threads) == 2 * STEPS
    assert "retraining" not in result.text()


@pytest.mark.parametrize(
    "shares, workers, in_batches, steps",
    [
        ([3, 1, 1, 1], 2, False, 3),  # the three short ones, one after the other, beside the long one
        ([3, 1, 1, 1], 2, True, 3 + 1),
        ([2, 2, 2], 2, False, 2 + 2),  # the last one has a core to itself and leaves one idle
        ([3, 1, 1], 3, True, 1.5 + 2),  # three on two cores until the short ones end, then one alone
        ([3, 2, 1], 1, False, 6),
    ],
)
def test_candidates_of_different_lengths_share_two_cores(shares, workers, in_batches, steps):
    assert module._side_by_side(shares, workers, 2, in_batches=in_batches) == steps


def test_a_worker_has_one_thread_whatever_the_run_has(counted):
    clock, threads = counted
    words = [*TINY_PROPOSALS, *MINATAR, "strategy.name=evolution", "budget.search_steps=256", "threads=2"]
    two = forecast(plan_of(*words, "strategy.workers=2"), clock)
    assert threads == [1] * 2 * STEPS + [2] * 2 * STEPS and two.search_steps_per_s == pytest.approx(2 * ENVS / STEP_S[1])
    assert two.retrain_steps_per_s == pytest.approx(ENVS / STEP_S[2])
    threads.clear()
    one = forecast(plan_of(*words), clock)
    assert threads == [2] * 4 * STEPS and one.search_steps_per_s == pytest.approx(ENVS / STEP_S[2])


def test_with_a_replay_a_round_that_learns_is_timed(counted):
    clock, threads = counted
    words = [word for word in (*TINY, *MINATAR) if not word.startswith(("rl.minibatch", "rl.epochs"))]
    words += [
        "rl.algorithm=dqn",
        "dqn.learning_starts=64",
        "dqn.minibatch=8",
        "budget.search_steps=512",
        "budget.retrain_steps=0",
    ]
    forecast(plan_of(*words), clock)
    assert len(threads) == 4 * STEPS  # 64 steps of play, a round that learns, and the one that is timed


def test_the_forecast_is_json_with_the_whole_configuration():
    plan = plan_of(*TINY, *MINATAR)
    result = json.loads(json.dumps(forecast(plan).to_json()))
    assert result["config"] == config_to_dict(plan.config) and result["expected_s"] > FINISH_S
    assert result["peak_memory_bytes"] > 1e7 and result["latency_target_s"] == 0.001


@pytest.mark.parametrize("scores", ["episodes", "frames"])
def test_a_one_shot_search_takes_its_training_and_its_scores(scores, counted):
    clock, _ = counted
    words = [word for word in TINY if not word.startswith(("strategy.warmup", "strategy.lr"))]
    own = (
        "strategy.name=one-shot",
        "strategy.values.proposals=6",
        f"strategy.values.scores={scores}",
        "strategy.values.population=2",
    )
    result = forecast(plan_of(*words, *MINATAR, *own, "budget.search_steps=256", "budget.retrain_steps=0"), clock)
    ticks = {"episodes": 6 * 3, "frames": 2 * STEPS}[scores]  # of 16, six scores of three, the first one's share; or two rollouts
    assert result.expected_s == pytest.approx((6 * STEPS + ticks) * STEP_S[1] + FINISH_S)
