"""A candidate whose loss is not finite is recorded, and the search goes on: until more than half of them have failed."""

import json
from collections import Counter

import pytest
import torch
from pipeline_runs import TINY_PROPOSALS, assert_equal, results

from cosearch.cli.app import main
from cosearch.config.run import resolve
from cosearch.pipeline.search import proposal_search
from cosearch.planning.builtins import load_builtins
from cosearch.planning.space import make_space
from cosearch.rl.learning.learner import Learner
from cosearch.training.candidates import candidate_job, train_candidate
from latency_tables.errors import NonFiniteError

WORDS = (
    *TINY_PROPOSALS,
    "env.name=minatar:breakout",
    "strategy.name=evolution",
    "strategy.candidates=3",
    "budget.search_steps=120",
    "budget.retrain_steps=0",
    "rl.minibatch=16",
)


@pytest.fixture
def search(tmp_path, monkeypatch):
    """Search with the candidates whose training fails: index -> updates before it does."""
    threads = torch.get_num_threads()

    def run(name, failing, *words, interrupt=None):
        index, make, streams = [0], proposal_search.candidate_training, proposal_search.candidate_streams
        made = Counter()  # updates of each candidate, over all its trainings

        def streams_of(seed, which):
            index[0] = which
            return streams(seed, which)

        def training_of(*arguments):
            training = make(*arguments)
            learner, which = training.rounds.learner, index[0]
            update = learner.update

            def failing_update(*given):
                if interrupt == (which, made[which]):
                    raise KeyboardInterrupt
                if failing.get(which) == made[which]:
                    raise NonFiniteError("a loss is not finite: nan")
                made[which] += 1
                return update(*given)

            learner.update = failing_update
            return training

        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(proposal_search, "candidate_training", training_of)
            patch.setattr(proposal_search, "candidate_streams", streams_of)
            words = (
                ("resume", f"runs/{name}") if (tmp_path / "runs" / name).exists() else ("search", "--run", name, *WORDS, *words)
            )
            return main([*words, "--quiet"]), tmp_path / "runs" / name

    yield run
    torch.set_num_threads(threads)


def told(run):
    return json.loads((run / "architecture.json").read_text())["derived_by"]["candidates"]


def test_a_failed_candidate_is_recorded_and_is_not_the_result(search):
    code, run = search("one", {0: 1})
    first, second, third = told(run)
    assert code == 0
    assert (first["score"], first["failure"], first["env_steps"]) == (None, "a loss is not finite: nan", 64)  # both its rollouts
    assert "failure" not in second and "failure" not in third
    architecture, summary = (json.loads((run / name).read_text()) for name in ("architecture.json", "summary.json"))
    assert architecture["choices"] in (second["choices"], third["choices"])
    assert summary["env_steps"] == 128 == sum(candidate["env_steps"] for candidate in told(run))


HALVED = ("strategy.values.population=2", "strategy.candidates=4", "strategy.reduction_factor=2", "budget.search_steps=256")


@pytest.mark.parametrize("place", [0, *(pytest.param(place, marks=pytest.mark.slow) for place in (1, 2, 3))])
def test_with_halving_a_failed_candidate_keeps_nobody_else_from_training_on(search, place):
    """Rollouts of 32 steps: 4 x 32, the best two 32 more, the best of them 64 more: 256 in all, whichever of the first failed."""
    code, run = search("one", {place: 0}, *HALVED)
    assert code == 0
    assert sorted((one["env_steps"], one.get("rung", 0)) for one in told(run)) == [(32, 0), (32, 0), (64, 1), (128, 2)]
    assert "failure" in told(run)[place] and "rung" not in told(run)[place]
    assert json.loads((run / "summary.json").read_text())["env_steps"] == 256
    assert "not spent" not in json.loads((run / "architecture.json").read_text())["derived_by"]["method"]


def test_with_halving_steps_that_no_candidate_is_left_for_are_said(search):
    """Both that train on fail in their second update: the last 64 steps have no candidate."""
    code, run = search("one", dict.fromkeys(range(4), 1), *HALVED)
    assert code == 0 and sum("stopped" in one for one in told(run)) == 2
    said = "64 of 256 environment steps of the search were not spent: the trainings that failed left no candidate to train on"
    assert said in json.loads((run / "architecture.json").read_text())["derived_by"]["method"]
    assert json.loads((run / "summary.json").read_text())["env_steps"] == 192


@pytest.mark.slow
def test_a_run_interrupted_after_a_failure_ends_as_the_uninterrupted_one(search):
    _, whole = search("whole", {1: 0})
    assert [candidate["env_steps"] for candidate in told(whole)] == [64, 32, 32]
    code, broken = search("broken", {1: 0}, interrupt=(2, 0))
    assert code == 130 and not (broken / "architecture.json").exists()
    code, broken = search("broken", {1: 0})
    assert code == 0 and [("failure" in candidate) for candidate in told(broken)] == [False, True, False]
    assert_equal(results(broken), results(whole))


def test_more_than_half_failed_ends_the_search_with_one_message(search, capsys):
    code, run = search("one", {0: 0, 2: 0})
    error = capsys.readouterr().err
    assert code == 1 and not (run / "architecture.json").exists()
    assert "2 of 3 candidates failed, at most 50% may" in error and "Traceback" not in error


def test_a_worker_process_reports_a_failure_as_its_outcome(monkeypatch):
    load_builtins()
    config = resolve(overrides=list(WORDS))
    count = len(make_space(config).points)

    def update(*given):
        raise NonFiniteError("a loss is not finite: nan")

    monkeypatch.setattr(Learner, "update", update)
    sent = []
    outcome = train_candidate(candidate_job(config, 0, [0] * count, 64, None), sent.append)
    assert outcome == {"score": None, "env_steps": 32, "weights": None, "failure": "a loss is not finite: nan"} and not sent
