"""Candidates compared by their divergence from the teacher: recomputed from the log, by rung, and through a kill."""

from statistics import fmean

import pytest
from pipeline_runs import TINY_PROPOSALS, Moment, assert_equal, command, results

from cosearch.cli.app import main
from cosearch.config.run import resolve
from cosearch.pipeline.search.told import best_of, chosen_by
from cosearch.planning.plan import make_plan
from cosearch.planning.task import resolve_task
from cosearch.record.rundir import RunDir
from cosearch.strategies.base import TargetsInTurn

WORDS = (
    *(word for word in TINY_PROPOSALS if word != "distill.teacher=none"),
    *("--env", "minatar:breakout", "--strategy", "random", "strategy.candidates=4", "strategy.reduction_factor=2"),
    *("rl.minibatch=16", "budget.search_steps=512", "budget.retrain_steps=0", "strategy.judge_by=divergence"),
)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged")
    done = command("search", "--run", "one", *WORDS, folder=folder)
    assert done.code == 0, done.err
    return folder / "runs" / "one", done.events


def divergences(run, candidate):
    """Of a candidate's updates, from the log."""
    lines = [line for line in RunDir.open(run).read_metrics() if line["stage"] == "search"]
    return [line["distill_actor"] for line in lines if line["candidate"] == candidate]


def names_of(run):
    return list(dict.fromkeys(line["candidate"] for line in RunDir.open(run).read_metrics() if line["stage"] == "search"))


def test_the_least_divergence_over_the_last_half_of_its_training_takes_a_candidate_on(straight):
    run, _ = straight
    record = RunDir.open(run).read_json("architecture.json")
    candidates, names = record["derived_by"]["candidates"], names_of(run)
    assert len(names) == 4  # 16 rollouts: two for each, two more for two of them, four more for one
    assert sorted(one["env_steps"] for one in candidates) == [64, 64, 128, 256]
    seen = [divergences(run, name) for name in names]
    for one, values in zip(candidates, seen):
        assert len(values) == one["env_steps"] // 32
        assert one["divergence"] == pytest.approx(fmean(values[len(values) // 2 :]))
    first = [values[1] for values in seen]  # the last half of two updates
    assert {i for i, one in enumerate(candidates) if one.get("rung", 0) > 0} == set(sorted(range(4), key=first.__getitem__)[:2])
    won = max(range(4), key=lambda index: candidates[index].get("rung", 0))
    assert record["choices"] == candidates[won]["choices"]
    assert "least divergence from the teacher among the candidates that trained for longest" in record["derived_by"]["method"]


@pytest.mark.parametrize("judge_by, best", [("divergence", 2), ("score", 1)])
def test_of_those_that_trained_for_longest_the_best_is_what_is_judged_best(judge_by, best):
    words = (*(word for word in WORDS if "=" in word), "env.name=minatar:breakout", "strategy.name=random")
    plan = make_plan(resolve_task(overrides=(*words, f"strategy.judge_by={judge_by}")))
    choices = [0] * len(plan.space.points)
    rows = ((9.0, 0.01, 0), (8.0, 0.3, 1), (2.0, 0.1, 1), (1.0, 0.2, 1))  # score, divergence, rung
    told = [
        {"choices": choices, "score": score, "divergence": divergence, "latency_s": 1e-4, "env_steps": 64, "rung": rung}
        for score, divergence, rung in rows
    ]
    targets = TargetsInTurn((lambda architecture: True,))
    assert best_of(0, None, targets, told, plan) == best


@pytest.mark.slow
def test_by_score_the_same_candidates_are_trained_and_others_may_go_on(straight, tmp_path):
    run, _ = straight
    words = tuple(word for word in WORDS if word != "strategy.judge_by=divergence")
    done = command("search", "--run", "one", *words, folder=tmp_path)
    assert done.code == 0, done.err
    record = RunDir.open(tmp_path / "runs" / "one").read_json("architecture.json")
    assert names_of(tmp_path / "runs" / "one") == names_of(run)
    assert "best training score among" in record["derived_by"]["method"]
    assert all("divergence" in one for one in record["derived_by"]["candidates"])  # said, and not compared by


@pytest.mark.slow
def test_a_killed_search_goes_on_to_the_same_divergences(straight, tmp_path):
    run, events = straight
    moment = Moment("search", events["search"] // 2)
    done = command("search", "--run", "one", *WORDS, folder=tmp_path, moment=moment)
    assert done.code < 0, done.err
    done = command("resume", "runs/one", folder=tmp_path)
    assert done.code == 0, done.err
    assert_equal(results(tmp_path / "runs" / "one"), results(run))


@pytest.mark.parametrize("words", [("distill.teacher=none",), ("distill.actor=0",)])
def test_without_a_teacher_that_is_distilled_there_is_nothing_to_judge_by(words, capsys):
    assert main(["search", "--dry-run", *WORDS, *words]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "strategy.judge_by=divergence needs a teacher whose actor the search distils" in said


OFF_POLICY = (
    *(word for word in WORDS if not word.startswith(("rl.minibatch", "rl.epochs", "strategy.reduction_factor"))),
    *("rl.algorithm=dqn", "dqn.minibatch=16", "dqn.micro_batch=16", "dqn.replay=1000", "strategy.candidates=2"),
    "budget.search_steps=128",
)


def test_a_dqn_is_compared_with_its_teacher_also_where_the_weight_of_the_distillation_is_0(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = (*OFF_POLICY, "dqn.learning_starts=16", "distill.end_fraction=0", "distill.fall_end=0")
    assert main(["search", "--run", "one", "--quiet", *words]) == 0
    record = RunDir.open("runs/one").read_json("architecture.json")
    candidates = record["derived_by"]["candidates"]
    assert record["choices"] == min(candidates, key=lambda one: one["divergence"])["choices"]


def test_candidates_that_were_never_compared_with_the_teacher_are_not_judged_by_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = (*OFF_POLICY, "dqn.learning_starts=5000")
    assert main(["search", "--run", "one", "--quiet", *words]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "candidate 0 was not compared with the teacher in its 64 environment steps" in said
    assert "a smaller dqn.learning_starts, or strategy.judge_by=score" in said and "least divergence" not in said


@pytest.mark.parametrize(
    "scores, text",
    [
        ([None, None], "in no training did an episode end, so no score tells them apart: first of the candidates"),
        ([2.0, None, 2.0], "best training score among the candidates"),
        ([2.0, 2.0], "all training scores are equal: first of the candidates"),
        ([2.0], "best training score among the candidates"),
    ],
)
def test_a_candidate_that_no_score_tells_from_the_others_is_not_called_the_best(scores, text):
    told = [{"choices": [n], "score": score, "latency_s": 1e-4, "env_steps": 64} for n, score in enumerate(scores)]
    assert chosen_by([*told, {**told[0], "score": None, "failure": "a loss is not finite"}], resolve()) == text
