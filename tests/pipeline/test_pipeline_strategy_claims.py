"""What a strategy's and an environment's records claim has its effect: gradients of the cost, the teacher, exact resume."""

import json
from dataclasses import replace

import pytest
import torch
from pipeline_runs import TINY, TINY_PROPOSALS

from cosearch.cli.app import main
from cosearch.config.run import resolve
from cosearch.cost.table_cost import TableCost
from cosearch.planning.builtins import load_builtins
from cosearch.planning.plan import make_plan
from cosearch.planning.space import make_space
from cosearch.record.json_record import to_json
from cosearch.rl.envs import ENVIRONMENTS, EnvFamily
from cosearch.strategies.base import STRATEGIES
from cosearch.testing.toys import SignalEnv
from cosearch.training.candidates import candidate_job, train_candidate
from latency_tables.errors import ConfigError

TAUGHT = ("env.name=minatar:breakout", "distill.teacher=auto", "rl.minibatch=16", "strategy.name=alone")


@pytest.fixture(autouse=True)
def records(monkeypatch):
    """A strategy that searches without a teacher, and an environment that forgets."""
    load_builtins()
    threads = torch.get_num_threads()
    alone = replace(STRATEGIES.get("random"), name="alone", uses_teacher=False)
    monkeypatch.setattr(STRATEGIES, "_entries", {**STRATEGIES._entries, "alone": alone})

    class Forgetful(SignalEnv):
        exact_resume = False

    family = EnvFamily("forgetful", "cannot save its state", ("signal", "limit"), Forgetful)
    monkeypatch.setattr(ENVIRONMENTS, "_entries", {**ENVIRONMENTS._entries, "forgetful": family})
    yield
    torch.set_num_threads(threads)


def plan(*words):
    return make_plan(resolve(overrides=list(words)))


@pytest.mark.parametrize("gradient", [None, float("nan")])
def test_a_cost_without_gradients_is_refused_where_the_strategy_needs_them(gradient, monkeypatch):
    expected = TableCost.expected

    def broken(self, weights):
        value = expected(self, weights)
        return value.detach() if gradient is None else value * gradient

    assert plan(*TINY).strategy.needs_differentiable_cost
    monkeypatch.setattr(TableCost, "expected", broken)
    with pytest.raises(ConfigError, match=r"learns from the gradient of the cost.*choose a strategy that needs none: .*random"):
        plan(*TINY)
    assert not plan(*TINY_PROPOSALS, "strategy.name=random").strategy.needs_differentiable_cost


def test_a_strategy_that_uses_no_teacher_searches_without_it_and_its_agent_is_retrained_with_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    steps = ("strategy.candidates=1", "budget.search_steps=32", "budget.retrain_steps=32")
    assert main(["search", "--run", "one", *TINY_PROPOSALS, *TAUGHT, *steps, "--quiet"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "runs" / "one" / "metrics.jsonl").read_text().splitlines()]
    taught = {
        stage: {line.get("distill_weight") is not None for line in lines if line["stage"] == stage}
        for stage in ("search", "retrain")
    }
    assert taught == {"search": {False}, "retrain": {True}}
    capsys.readouterr()
    assert main(["search", "--dry-run", *TINY_PROPOSALS, *TAUGHT, *steps]) == 0
    assert "which acts in retraining only: alone searches without a teacher" in capsys.readouterr().out


@pytest.mark.parametrize("name, taught", [("alone", False), ("random", True)])
def test_a_worker_process_has_the_teacher_where_the_strategy_uses_it(name, taught):
    config = resolve(overrides=[*TINY_PROPOSALS, *TAUGHT, f"strategy.name={name}", "rl.gamma=0.99", "distill.critic=0"])
    sent = []
    train_candidate(candidate_job(config, 0, [0] * len(make_space(config).points), 32, None), sent.append)
    assert [line["distill_weight"] is not None for line in sent] == [taught]


def test_distillation_that_acts_nowhere_is_refused():
    words = (*TINY_PROPOSALS, *TAUGHT, "strategy.candidates=1", "budget.retrain_steps=0", "distill.actor=0.5")
    with pytest.raises(ConfigError, match=r"distill\.actor.*'alone', which searches without a teacher"):
        plan(*words)
    assert plan(*words[:-2], "budget.retrain_steps=64", "distill.actor=0.5").teacher is not None


def test_an_environment_that_cannot_be_resumed_exactly_is_named_in_the_record_and_in_the_plan(capsys):
    words = (*TINY, "env.name=forgetful:signal")
    record = to_json(plan(*words).record("a test"))
    assert record["exactly_resumable"] is False
    assert "forgetful:signal can neither save its state nor be replayed exactly" in record["not_exactly_resumable_because"]
    exact = to_json(plan(*TINY).record("a test"))
    assert exact["exactly_resumable"] is True and "not_exactly_resumable_because" not in exact
    assert main(["search", "--dry-run", *words]) == 0
    assert "not exactly resumable: forgetful:signal can neither" in capsys.readouterr().out
