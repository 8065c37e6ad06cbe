"""Results that are told as trainings end: in whole runs whose processes are stood in for by calls that end in a chosen order."""

import json
from functools import partial

import pytest
import torch
from pipeline_runs import TINY_PROPOSALS

from cosearch.cli.app import main
from cosearch.fleet.processes import Processes
from cosearch.fleet.workers import Workers
from cosearch.pipeline.search import proposal_search
from cosearch.testing.engine_conformance import obey
from cosearch.training.candidates import train_candidate

WORDS = (
    *TINY_PROPOSALS,
    "env.name=minatar:breakout",
    "strategy.name=deephyper",
    "strategy.candidates=4",
    "strategy.values.batch=2",
    "strategy.workers=2",
    "budget.search_steps=128",
    "budget.retrain_steps=0",
    "rl.minibatch=16",
)


class LastFirst:
    """In place of ``Workers``: the job that was begun last ends first."""

    last_first = True

    def __init__(self, function, engine):
        self.count = engine.count

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self, jobs, *, name, sent, done, lost):
        begun, following = [], 0
        while begun or following < len(jobs):
            while len(begun) < self.count and following < len(jobs):
                begun.append(following)
                following += 1
            index = begun.pop(-1 if self.last_first else 0)
            done(index, train_candidate(jobs[index], partial(sent, index)))


@pytest.fixture
def search(tmp_path, monkeypatch, capsys):
    """Search with such processes; the exit code, and the candidates in the order told."""
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(proposal_search, "Workers", LastFirst)

    def run(name, *words):
        code = main(["search", "--run", name, *WORDS, *words, "--quiet"])
        record = tmp_path / "runs" / name / "architecture.json"
        return code, json.loads(record.read_text())["derived_by"]["candidates"] if record.exists() else None

    yield run
    torch.set_num_threads(threads)


def asks(candidates):
    return [candidate.get("asked", place) for place, candidate in enumerate(candidates)]


def test_the_order_of_the_ends_is_recorded_and_repeated_by_processes_that_end_in_another(search, monkeypatch, capsys):
    code, first = search("first")
    assert code == 0 and asks(first) == [1, 2, 3, 0]  # each new one ends before the one that was begun first
    monkeypatch.setattr(LastFirst, "last_first", False)
    _, other = search("other")
    assert asks(other) == [0, 1, 2, 3] and "asked" not in other[0]
    code, again = search("again", "strategy.values.order=[1,2,3,0]")
    assert code == 0 and again == first
    capsys.readouterr()
    code, none = search("impossible", "strategy.values.order=[3,0,1,2]")  # only two are ever in training
    assert code == 2 and none is None and "wants proposal 3 told as number 0" in capsys.readouterr().err


def test_a_run_says_that_it_cannot_be_repeated_unless_its_order_is_given(capsys):
    assert main(["search", "--dry-run", *WORDS]) == 0
    assert "deephyper is told of candidates as their trainings end" in capsys.readouterr().out
    assert main(["search", "--dry-run", *WORDS, "strategy.values.order=[1,0,2,3]"]) == 0
    assert "not exactly resumable" not in capsys.readouterr().out


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
