"""Results that are told as trainings end: searches whose processes are stood in for by calls that end in a chosen order."""

import json
from dataclasses import replace
from functools import partial

import editable_env
import pytest
import torch
from pipeline_runs import TINY_PROPOSALS, Silent, assert_equal

from cosearch.cli.app import main
from cosearch.fleet.processes import Processes
from cosearch.fleet.work import Needs
from cosearch.fleet.workers import Workers
from cosearch.pipeline.search import proposal_search
from cosearch.pipeline.session import open_session
from cosearch.planning.plan import make_plan
from cosearch.planning.task import resolve_task
from cosearch.record.json_record import to_json
from cosearch.record.order import recorded_order
from cosearch.record.run_record import FreshEpisodes, RunRecord
from cosearch.record.rundir import RunDir
from cosearch.testing.engine_conformance import obey
from cosearch.training.candidates import train_candidate
from cosearch.training.stage import Training
from latency_tables.errors import EnvironmentFailedError, RequestError

WORDS = (
    *(word for word in TINY_PROPOSALS if not word.startswith("budget.clip")),
    "env.name=minatar:breakout",
    "strategy.name=deephyper",
    "strategy.candidates=4",
    "strategy.workers=2",
    "budget.search_steps=128",
    "budget.retrain_steps=0",
    "rl.minibatch=16",
)


class Chosen:
    """In place of ``Workers``: the job that was begun last ends first, or first.

    Attributes:
        busy: how many jobs were in training when one of them ended.
        needs: of each job.
    """

    last_first = True
    kill_before: int | None = None
    busy: list[int]

    needs: Needs

    def __init__(self, function, engine, needs):
        self.count, Chosen.needs = engine.count, needs

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self, jobs, *, sent, done, started, **_):
        begun, following, ended = [], 0, 0
        Chosen.busy = []
        while begun or following < len(jobs):
            while len(begun) < self.count and following < len(jobs):
                begun.append(following)
                started(following, "here")
                following += 1
            Chosen.busy.append(len(begun))
            index = begun.pop(-1 if self.last_first else 0)
            if ended == self.kill_before:
                raise KeyboardInterrupt
            ended += 1
            done(index, train_candidate(jobs[index], partial(sent, index)))


@pytest.fixture
def search(tmp_path, monkeypatch):
    """The search stage with such processes, and what it gives: candidates as told, weights, the log."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(proposal_search, "Workers", Chosen)

    def run(name, *words, last_first=True, kill_before=None):
        monkeypatch.setattr(Chosen, "last_first", last_first)
        monkeypatch.setattr(Chosen, "kill_before", kill_before)
        plan = make_plan(resolve_task(overrides=(*WORDS, *words)))
        known = (tmp_path / name).exists()
        folder = RunDir.open(tmp_path / name) if known else RunDir.create(tmp_path, name, to_json(plan.record("")))
        session = open_session(folder, plan, Silent())
        try:
            (found,) = proposal_search.proposal_search(plan, session.resources, folder, session.log, session.checkpoints)
        finally:
            session.log.close()
        log = [{key: line[key] for key in ("step", "candidate", "score_train", "grad_norm")} for line in folder.read_metrics()]
        weights = {key: value.tolist() for key, value in found.output.weights.items()}
        return {"told": to_json(found.derived_by)["candidates"], "weights": weights, "log": log}

    yield run
    torch.set_num_threads(threads)


def asks(found):
    return [candidate.get("asked", place) for place, candidate in enumerate(found["told"])]


def test_the_order_of_the_ends_is_recorded_and_repeated_by_processes_that_end_in_another(search, tmp_path):
    first = search("first")
    assert asks(first) == [1, 2, 3, 0]  # each new one ends before the one that was begun first
    assert Chosen.busy == [2, 2, 2, 1]  # no worker waits while there are candidates
    order = recorded_order(tmp_path / "first")
    assert order == [-1, -1, 1, -1, 2, -1, 3, 0]
    other = search("other", last_first=False)
    assert asks(other) == [0, 1, 2, 3] and "asked" not in other["told"][0] and other["told"] != first["told"]
    again = search("again", f"strategy.order={order}", "strategy.workers=1", last_first=False)  # any number of workers repeats it
    assert_equal(again, first)
    assert recorded_order(tmp_path / "again") == order
    with pytest.raises(RequestError, match="wants the result of candidate 3 as its event 2"):
        search("impossible", "strategy.order=[-1,-1,3]")


def test_a_strategy_that_is_told_in_the_order_asked_keeps_its_barrier(search, tmp_path):
    found = search("one", "strategy.name=nsga2", "strategy.values.population=2")
    assert asks(found) == [0, 1, 2, 3] and Chosen.busy == [2, 1, 2, 1]
    assert not (tmp_path / "one" / "order.json").exists()
    assert_equal(search("two", "strategy.name=nsga2", "strategy.values.population=2", last_first=False), found)


@pytest.mark.parametrize("words", [("strategy.candidate_init=shared",), ("strategy.name=morphism",)], ids=["shared", "morphism"])
def test_one_that_is_killed_starts_its_candidates_from_the_weights_of_their_time(search, tmp_path, words):
    """The shared weights have learned from candidates 1 and 2 when the kill comes; candidate 0 was asked for before them."""
    straight = search("straight", *words)
    order = recorded_order(tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        search("killed", *words, kill_before=2)
    assert recorded_order(tmp_path / "killed") == order[:6]
    resumed = search("killed", *words, f"strategy.order={order}", last_first=False)  # the record counts, not what ends first
    assert_equal(resumed, straight)


HALVED = ("strategy.name=evolution", "strategy.values.population=2", "strategy.reduction_factor=2", "budget.search_steps=256")


def test_with_halving_the_best_train_on_from_where_they_stopped_for_the_same_steps_in_all(search, tmp_path):
    """Four candidates, rollouts of 32 steps: 4 x 32, the best two 32 more, the best of them 64 more."""
    alone = search("alone", *HALVED, "strategy.workers=1")
    steps = sorted(one["env_steps"] for one in alone["told"])
    assert steps == [32, 32, 64, 128] and sum(steps) == 256
    assert sorted(one.get("rung", 0) for one in alone["told"]) == [0, 0, 1, 2]
    assert [line["step"] for line in alone["log"]] == list(range(32, 257, 32))
    plain = search("plain", *HALVED, "strategy.workers=1", "strategy.reduction_factor=1")
    assert [one["env_steps"] for one in plain["told"]] == [64] * 4 and plain["told"] != alone["told"]
    two = search("two", *HALVED)
    assert sum(one["env_steps"] for one in two["told"]) == 256 and Chosen.busy.count(2) >= 4
    order = recorded_order(tmp_path / "two")
    assert_equal(search("again", *HALVED, f"strategy.order={order}", "strategy.workers=1", last_first=False), two)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_candidate_that_trains_on_is_bit_for_bit_one_that_was_not_stopped(search, workers):
    """One rung ends after its only rollout, the other goes on: the same log as one training of all three rollouts."""
    words = ("strategy.name=random", "strategy.candidates=2", "budget.search_steps=96", f"strategy.workers={workers}")
    halved = search("halved", *words, "strategy.reduction_factor=2")
    on = next(one for one in halved["told"] if "rung" in one)
    assert sorted(one["env_steps"] for one in halved["told"]) == [32, 64]
    straight = search("straight", *words, "budget.search_steps=128")
    names = {line["candidate"]: [] for line in straight["log"]}
    for name, found in names.items():
        found += [(line["score_train"], line["grad_norm"]) for line in halved["log"] if line["candidate"] == name]
        whole = [(line["score_train"], line["grad_norm"]) for line in straight["log"] if line["candidate"] == name]
        assert found == whole[: len(found)]
    assert sorted(map(len, names.values())) == [1, 2] and on["env_steps"] == 64


def test_a_halved_search_that_is_killed_goes_on_to_the_same_result(search, tmp_path):
    straight = search("straight", *HALVED)
    order = recorded_order(tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        search("killed", *HALVED, kill_before=4)
    assert_equal(search("killed", *HALVED, f"strategy.order={order}", last_first=False), straight)


@pytest.mark.parametrize("ended", [2, 4, 5])
def test_a_halved_search_that_goes_on_counts_the_trainings_that_are_left(search, monkeypatch, ended):
    """The command tells how many processes are idle once no training is left for them."""
    beside, totals = proposal_search.SideBySide, []

    def counted(workers, log, total, note):
        totals.append(total)
        return beside(workers, log, total, note)

    monkeypatch.setattr(proposal_search, "SideBySide", counted)
    with pytest.raises(KeyboardInterrupt):
        search("killed", *HALVED, kill_before=ended)
    search("killed", *HALVED)
    assert totals == [7, 7 - ended] and len(Chosen.busy) == 7 - ended  # 4 + 2 + 1 trainings, each of which ends once


EDITABLE = (f"env.name={editable_env.NAME}", *editable_env.TINY[:1], *HALVED, "strategy.name=nsga2")  # told in the order asked


@pytest.mark.parametrize("workers", [1, 2])
def test_episodes_that_could_not_be_continued_between_rungs_are_recorded(search, tmp_path, monkeypatch, workers):
    """Where the run stood: the first two are trained when the better one trains on, all four and it when the second does."""
    monkeypatch.setenv("LOOSE", "step")
    found = search("one", *EDITABLE, f"strategy.workers={workers}")
    assert sorted(one.get("rung", 0) for one in found["told"]) == [0, 0, 1, 2]
    anew = RunDir.open(tmp_path / "one").read(RunRecord).fresh_episodes
    assert anew == tuple(FreshEpisodes(stage="search", step=step, environments=(0, 1, 2, 3)) for step in (64, 160, 192))


@pytest.mark.parametrize("workers", [1, 2])
def test_episodes_that_replayed_and_do_not_between_rungs_end_the_search(search, tmp_path, monkeypatch, workers):
    restore = Training.restore
    monkeypatch.setattr(Training, "restore", lambda training, state: restore(training, state) or [3])
    with pytest.raises(EnvironmentFailedError, match=r"environment 3 of .* does not replay.*`cosearch resume .*one --fresh-ep"):
        search("one", *EDITABLE, f"strategy.workers={workers}")


def test_a_candidate_asks_for_one_core_and_where_a_gpu_is_a_must_for_its_share_of_one(search, monkeypatch):
    search("one")
    assert Chosen.needs == Needs(cores=1, gpus=0)
    asked = proposal_search.candidate_needs
    monkeypatch.setattr(proposal_search, "candidate_needs", lambda config: asked(replace(config, compute="cuda")))
    search("two", "strategy.workers=4")  # this machine has no GPU; none is touched
    assert Chosen.needs == Needs(cores=1, gpus=0.25)


def test_a_run_without_a_recorded_order_is_named(capsys, tmp_path):
    assert main(["search", *WORDS, "--order-of", str(tmp_path)]) == 2
    assert "has no order.json" in capsys.readouterr().err


def test_an_order_is_refused_where_the_strategy_is_told_in_the_order_asked(capsys):
    assert main(["search", "--dry-run", *WORDS, "strategy.name=nsga2", "strategy.order=[-1,0]"]) == 2
    assert "no effect with strategy 'nsga2', which is told in the order asked" in " ".join(capsys.readouterr().err.split())


def test_a_run_says_that_it_cannot_be_repeated_unless_its_order_is_given(capsys, tmp_path):
    (tmp_path / "order.json").write_text(json.dumps({"order": [-1, -1, 1, -1, 0, 2, -1, 3]}))
    assert main(["search", "--dry-run", *WORDS]) == 0
    assert "deephyper is told of candidates as their trainings end" in capsys.readouterr().out
    assert main(["search", "--dry-run", *WORDS, "--order-of", str(tmp_path)]) == 0
    assert "not exactly resumable" not in capsys.readouterr().out


def test_an_order_that_ends_early_does_not_make_a_run_repeatable(capsys, tmp_path):
    """Four candidates begin and are taken: eight events. With halving 4 + 2 + 1 trainings: fourteen."""
    order = [-1, -1, 1, -1, 0, 2, -1, 3]
    for length, words, expected in ((7, (), "7 of 8"), (8, (), None), (8, HALVED, "8 of 14"), (3, ("strategy.workers=1",), None)):
        plan = make_plan(resolve_task(overrides=(*WORDS, *words, f"strategy.order={order[:length]}")))
        assert plan.record("").exactly_resumable == (expected is None)
        if expected is not None:
            assert f"strategy.order ends after {expected} events; from there on" in plan.inexact_resume
    (tmp_path / "order.json").write_text(json.dumps({"order": order[:3]}))
    assert main(["search", "--dry-run", *WORDS, "--order-of", str(tmp_path)]) == 0
    assert "strategy.order ends after 3 of 8 events" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_jobs_that_are_added_as_others_end_are_done():
    jobs, said, ended = [("send", 1), ("send", 2)], [], []

    def done(index, result):
        ended.append(index)
        if len(jobs) < 5:
            jobs.append(("send", len(jobs) + 1))

    with Workers(obey, Processes(2)) as workers:
        workers.run(jobs, name=str, sent=lambda index, number: said.append((index, number)), done=done)
    assert sorted(ended) == list(range(5)) and sorted(said) == [(i, n) for i in range(5) for n in range(i + 1)]
