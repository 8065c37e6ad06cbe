"""One-shot searches in whole runs: exact budgets, scores that can be made again, validation levels alone, an equal resume."""

import re

import numpy as np
import pytest
import torch
from one_shot_runs import FRAMES, ONE_SHOT, session
from pipeline_runs import Moment, Silent, assert_equal, changed, command, results

from cosearch.config.run import resolve
from cosearch.pipeline.run import STAGES, work_on
from cosearch.pipeline.search import one_shot_search
from cosearch.pipeline.session import open_session
from cosearch.pipeline.shared_weights import shared_supernet, weights_of
from cosearch.planning.budget import one_shot_rounds, run_steps
from cosearch.planning.plan import make_plan
from cosearch.record.json_record import to_json
from cosearch.record.results.architecture import ArchitectureRecord
from cosearch.record.rundir import RunDir
from cosearch.rl import task
from cosearch.rl.evaluate import score_within
from cosearch.rl.validation import make_validation, validation_streams
from cosearch.space.derivation.derive import derive
from cosearch.strategies.weight_sharing import Scoring
from cosearch.testing.conformance import seeded
from latency_tables.errors import ConfigError, RequestError

pytest.importorskip("minatar", reason="MinAtar is not installed")


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Run folder, plan and output of a search by its further words; each is made once."""
    made = {}

    def search(*more):
        if more not in made:
            opened = session(tmp_path_factory.mktemp("run"), (*ONE_SHOT, *more))
            work_on(opened, {"search": STAGES["search"]})
            opened.log.close()
            made[more] = opened.run, opened.plan, opened.checkpoints.current.outputs.search
        return made[more]

    return search


def derived_by(run):
    return run.read(ArchitectureRecord).derived_by


def scores(run):
    return [(one.choices, one.score) for one in derived_by(run).candidates]


@pytest.mark.parametrize(
    "steps, share, proposals, rounds, train, scored",
    [
        (256, 0.5, 5, 1, [128], [[28, 28, 24, 24, 24]]),  # rollouts of 32; 8 rollouts, 4 of them are 32 steps of 4 environments
        (250, 0.25, 3, 1, [192], [[24, 20, 20]]),
        (64, 0.01, 8, 1, [32], [[4] * 8]),
        (320, 0.4, 5, 2, [96, 96], [[24, 20, 20], [32, 32]]),
    ],
)
def test_the_steps_are_shared_out_without_a_remainder(steps, share, proposals, rounds, train, scored):
    config = resolve(
        overrides=["env.num_envs=4", "rl.rollout_steps=8", f"budget.search_steps={steps}", "budget.retrain_steps=32"]
    )
    found = one_shot_rounds(config, Scoring(proposals, share, "episodes", rounds))
    assert [one.train_steps for one in found] == train and [list(one.scored_steps) for one in found] == scored
    assert sum(one.train_steps + sum(one.scored_steps) for one in found) == run_steps(config) - 32


@pytest.mark.parametrize(
    "steps, proposals, rounds, text",
    [
        (32, 4, 1, "1 rollouts of 32 .* scoring takes 1: too few .* at least 64"),
        (64, 4, 2, "too few to train the supernet 2 times"),
        (64, 9, 1, "proposals=9 in 1 rounds gives 9 for one of them, which has 8 steps .* 1 to 8"),
        (256, 1, 2, "gives 0 for one of them"),
    ],
)
def test_too_few_steps_are_refused_with_what_would_fit(steps, proposals, rounds, text):
    config = resolve(overrides=["env.num_envs=4", "rl.rollout_steps=8", f"budget.search_steps={steps}"])
    with pytest.raises(ConfigError, match=text):
        one_shot_rounds(config, Scoring(proposals, 0.25, "episodes", rounds))


@pytest.mark.parametrize("more", [(), (FRAMES,)], ids=["episodes", "frames"])
def test_the_record_says_who_was_scored_and_at_which_cost(more, searched):
    run, plan, output = searched(*more)
    found = derived_by(run)
    assert found.scored_by == ("frames" if more else "episodes")
    assert found.supernet_steps == 256 and output.steps == 512
    assert [one.env_steps for one in found.candidates] == [52, 52, 52, 52, 48]
    best = max(found.candidates, key=lambda one: one.score)
    assert output.choices == best.choices == run.read(ArchitectureRecord).choices
    for one in found.candidates:
        architecture = plan.space.architecture(one.choices)
        assert plan.constraints[0].met_by(architecture) and one.latency_s == plan.constraints[0].cost.exact(architecture)
    lines = run.read_metrics()
    assert [line["step"] for line in lines] == [64, 128, 192, 256, 308, 360, 412, 464, 512]
    assert [line["score_shared"] for line in lines if "candidate" in line] == [one.score for one in found.candidates]
    assert len({one.score for one in found.candidates}) == 5 or not more  # few returns of a few steps differ


def test_a_score_is_that_of_the_derived_network_on_validation_games(searched):
    run, plan, output = searched()
    supernet, config = shared_supernet(run, plan), plan.config
    assert not changed(weights_of(plan.space.architecture(output.choices), plan, supernet), output.weights)
    streams, found = validation_streams(config.seed), []
    for one in derived_by(run).candidates:
        env = make_validation(config.env, 4, streams.derive("env"))
        network = derive(plan.space.architecture(one.choices), seeded(0), supernet).eval()
        generator = torch.Generator().manual_seed(streams.derive("actions"))
        found.append(score_within(network, env, one.env_steps // 4, generator))
    assert found == [one.score for one in derived_by(run).candidates]


@pytest.mark.parametrize(
    "one, other",
    [
        ((), ("strategy.values.sampling=fair",)),
        ((), ("strategy.values.sampling=unconstrained",)),
        ((), (FRAMES,)),
        ((), ("strategy.values.proposals=4",)),
        ((), ("strategy.values.score_share=0.25",)),
        ((), ("strategy.update_path=acting",)),
        ((), ("strategy.paths_per_rollout=4",)),
    ],
    ids=lambda words: words[0] if words else "default",
)
def test_each_option_changes_the_search(one, other, searched):
    (first, *_), (second, *_) = searched(*one), searched(*other)
    assert scores(first) != scores(second)


@pytest.mark.slow
def test_the_proposer_changes_what_is_scored_and_has_its_own_options(tmp_path):
    words, few = tuple(word for word in ONE_SHOT if "population" not in word), "strategy.values.initial=2"
    found = {}
    for proposer, *own in (("random",), ("local-search",), ("predictor",), ("predictor", few)):
        opened = session(tmp_path / str(len(found)), (*words, FRAMES, f"strategy.values.proposer={proposer}", *own))
        work_on(opened, {"search": STAGES["search"]})
        opened.log.close()
        found[proposer, *own] = [choices for choices, _ in scores(opened.run)]
    assert len({tuple(choices) for choices in found.values()}) == 4


@pytest.mark.parametrize(
    "words, text",
    [
        (("strategy.lr=0.5",), "strategy.lr=0.5 has no effect with strategy 'one-shot'"),
        (("strategy.workers=2",), "strategy.workers=2 has no effect with strategy 'one-shot'"),
        (("strategy.candidates=8",), "strategy.candidates=8 has no effect with strategy 'one-shot'"),
        (("strategy.warmup_fraction=0.5",), "has no effect with strategy 'one-shot'"),
        (("objective.dual_lr=0.5",), "objective.dual_lr=0.5 has no effect with strategy 'one-shot'"),
        (("budget.bracket=2", "budget.retrain_steps=1024"), "budget.bracket=2 has no effect with strategy 'one-shot'"),
        (
            ("strategy.values.proposer=largest",),
            "proposer=largest proposes no candidates to be scored: choose one of .*evolution",
        ),
        (("strategy.values.proposer=reinforce",), "proposer=reinforce proposes no candidates"),
        (("strategy.values.proposer=evolutoin",), "Did you mean 'evolution'"),
        (("strategy.values.tournamnt=2",), "Did you mean 'strategy.values.tournament'.*'one-shot' itself has sampling, proposer"),
        (("strategy.values.score_share=1",), "strategy.values.score_share: .* less than 1"),
        (("strategy.values.sampling=even",), "strategy.values.sampling: .*'fair'"),
        (("strategy.values.proposals=65",), "set strategy.values.proposals to 1 to 64"),
        (("env.num_envs=5",), "must be a multiple of strategy.paths_per_rollout"),
        (("env.name=procgen:maze", "env.train_levels=1"), "leaves no level for validation"),
    ],
)
def test_what_has_no_effect_or_cannot_be_is_refused(words, text):
    with pytest.raises(RequestError) as caught:
        make_plan(resolve(overrides=(*ONE_SHOT, *words)))
    assert re.search(text, str(caught.value).replace("\n", " ")), str(caught.value)


def test_a_dqn_has_no_advantages_for_held_out_frames_and_is_scored_by_episodes(tmp_path):
    words = (
        *(word for word in ONE_SHOT if not word.startswith(("rl.minibatch", "rl.epochs"))),
        *("rl.algorithm=dqn", "dqn.learning_starts=16", "dqn.minibatch=8", "dqn.quantiles=4", "dqn.target_interval=2"),
    )
    with pytest.raises(ConfigError, match="scores=frames compares policies by the advantages"):
        make_plan(resolve(overrides=(*words, FRAMES)))
    opened = session(tmp_path, words)
    work_on(opened, {"search": STAGES["search"]})
    opened.log.close()
    assert all(np.isfinite(score) for _, score in scores(opened.run))


@pytest.mark.parametrize(
    "more", [(), pytest.param((FRAMES, "strategy.values.sampling=fair"), marks=pytest.mark.slow)], ids=["episodes", "frames"]
)
def test_a_search_that_is_killed_anywhere_goes_on_to_the_same_result(more, tmp_path):
    words = (*ONE_SHOT, *more)
    straight = tmp_path / "straight"
    straight.mkdir()
    done = command("search", "--run", "one", *words, folder=straight)
    assert done.code == 0, done.err
    events, begin = done.events["search"], ("search", "--run", "one", *words)
    for share in (0.45, 0.7):  # of the events, as each process counts them: in the training, and among the scores
        done = command(*begin, folder=tmp_path, moment=Moment("search", max(1, int(share * events))))
        assert done.code == -9, done.err
        begin = ("resume", "runs/one")
        events -= int(share * events)
    done = command(*begin, folder=tmp_path)
    assert done.code == 0, done.err
    assert_equal(results(tmp_path / "runs" / "one"), results(straight / "runs" / "one"))


def test_a_search_sees_no_test_level_and_learns_from_no_validation_level(tmp_path, monkeypatch):
    asked, make = [], task.make_env

    def making(name, options):
        asked.append(options)
        return make(name, options)

    monkeypatch.setattr(task, "make_env", making)
    words = [word for word in ONE_SHOT if not word.startswith(("env.name", "objective"))]
    opened = session(tmp_path, (*words, "env.train_levels=10", "env.name=procgen:maze", "objective.latency_ratio=2"))
    asked.clear()
    work_on(opened, {"search": STAGES["search"]})
    opened.log.close()
    assert not any(options.test for options in asked)
    levels = [(options.first_level, options.train_levels) for options in asked]
    assert levels == [(0, 8), *[(8, 2)] * 5]  # the training, and each score anew
    assert len({options.seed for options in asked[1:]}) == 1 and asked[0].seed != asked[1].seed


def test_agents_of_a_family_share_a_supernet_and_each_has_the_best_that_meets_its_target(tmp_path):
    words = [word for word in ONE_SHOT if not word.startswith("objective.latency")]
    plan = make_plan(resolve(overrides=(*words, "strategy.values.proposals=8", "family.latency_targets_s=[0.00022,0.0003]")))
    run = RunDir.create(tmp_path, "one", to_json(plan.record("a test")))
    opened = open_session(run, plan, Silent())
    found = one_shot_search.one_shot_search(plan, opened.resources, run, opened.log, opened.checkpoints)
    opened.log.close()
    for agent, one in zip(plan.every, found, strict=True):
        told = [c for c in one.derived_by.candidates if agent.constraints[0].met_by(plan.space.architecture(c.choices))]
        assert one.architecture.choices == max(told, key=lambda c: c.score).choices and len(told) >= 4


def test_on_an_accelerator_a_design_is_searched_for_each_proposal(tmp_path):
    words = [word for word in ONE_SHOT if not word.startswith("objective.latency")]
    chip = ("device=zc706", "objective.latency_ratio=0.9", "accel.evaluations=560", "accel.final_evaluations=560")
    opened = session(tmp_path, (*words, *chip, "strategy.values.proposals=2"))
    work_on(opened, {"search": STAGES["search"]})
    opened.log.close()
    lines = [line for line in opened.run.read_metrics() if "candidate" in line]
    assert [line["accel_searches"] for line in lines] == sorted({line["accel_searches"] for line in lines}) and len(lines) == 2


HURRICANE = (
    *(word for word in ONE_SHOT if "strategy.name" not in word),
    "strategy.name=hurricane",
    "strategy.values.proposals=6",
)


class Cut(Silent):
    """Interrupts after so many lines of the log."""

    def __init__(self, after):
        self.left = after

    def update(self, metrics):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_each_stage_of_hurricane_trains_then_scores_and_goes_on_where_it_was_cut(tmp_path):
    plan, runs, lines = make_plan(resolve(overrides=HURRICANE)), [], []
    for name, cuts in (("straight", ()), ("cut", (1, 3, 4, 3, 2))):
        run = RunDir.create(tmp_path, name, to_json(plan.record("a test")))
        for cut in (*cuts, 0):
            opened = open_session(run, make_plan(resolve(overrides=HURRICANE)), Cut(cut))
            try:
                work_on(opened, {"search": STAGES["search"]})
            except KeyboardInterrupt:
                assert cut
            opened.log.close()
        runs.append(opened.checkpoints.current.outputs.search)
        lines.append([{key: line[key] for key in line if key not in ("wall_s", "steps_per_s")} for line in run.read_metrics()])
    assert ["candidate" in line for line in lines[0]] == [False] * 2 + [True] * 3 + [False] * 2 + [True] * 3
    assert lines[0] == lines[1] and lines[0][-1]["step"] == 512
    assert runs[0].choices == runs[1].choices and not changed(runs[0].weights, runs[1].weights)


def test_hurricane_is_for_one_device_and_target():
    words = [word for word in HURRICANE if not word.startswith("objective.latency")]
    with pytest.raises(ConfigError, match="'hurricane' searches for one device and target, got 2"):
        make_plan(resolve(overrides=(*words, "family.latency_targets_s=[0.00022,0.0003]")))
