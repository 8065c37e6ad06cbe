"""Scores with the weights of a supernet: of episodes within a number of steps, and of held-out frames."""

import copy
import itertools

import numpy as np
import pytest
import torch
from one_shot_runs import FRAMES, ONE_SHOT, session
from pipeline_runs import Silent

from cosearch.config.run import resolve
from cosearch.pipeline.run import STAGES, work_on
from cosearch.pipeline.search import one_shot_search
from cosearch.pipeline.session import open_session
from cosearch.planning.builtins import load_builtins
from cosearch.planning.plan import make_plan
from cosearch.record.json_record import to_json
from cosearch.record.results.architecture import ArchitectureRecord
from cosearch.record.rundir import RunDir
from cosearch.rl.envs import Step
from cosearch.rl.evaluate import score_within
from cosearch.rl.learning.learner import Distillation
from cosearch.rl.learning.losses import path_loss
from cosearch.testing.conformance import seeded
from cosearch.training.shared_scores import EpisodeScores
from latency_tables.errors import NonFiniteError, RunFailedError

pytest.importorskip("minatar", reason="MinAtar is not installed")


class Scripted:
    """Two environments: the first pays 1 a step in episodes of three steps, the second 2 a step in one that does not end."""

    num_envs, frame_shape, num_actions, action_box = 2, (1, 1, 1), 2, None

    def __init__(self):
        self.steps = 0

    def observe(self):
        return np.zeros((2, 1, 1, 1), np.uint8)

    def send(self, actions):
        assert actions.shape == (2,)

    def receive(self):
        self.steps += 1
        ended = np.array([self.steps % 3 == 0, False])
        return Step(self.observe(), np.array([1.0, 2.0], np.float32), ended, np.zeros(2, np.bool_), {})


@pytest.mark.parametrize("steps, score", [(1, (1 + 2) / 2), (3, (3 + 6) / 2), (5, (3 + 10) / 2), (6, (3 + 12) / 2)])
def test_each_environment_counts_once_within_the_steps(steps, score):
    def forward(frames):
        return torch.zeros(len(frames), 2), torch.zeros(len(frames))

    assert score_within(forward, Scripted(), steps, seeded(0)) == score


def test_scores_that_are_all_equal_are_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr(EpisodeScores, "score", lambda *rest: 1.5)
    opened = session(tmp_path, ONE_SHOT)
    work_on(opened, {"search": STAGES["search"]})
    opened.log.close()
    found = opened.run.read(ArchitectureRecord).derived_by
    assert found.method == one_shot_search.EQUAL
    assert opened.checkpoints.current.outputs.search.choices == found.candidates[0].choices


def test_what_is_said_of_the_scores_is_of_the_last_stage(tmp_path, monkeypatch):
    scores = itertools.chain([1.0, 2.0, 3.0], itertools.repeat(0.5))
    monkeypatch.setattr(EpisodeScores, "score", lambda *rest: next(scores))
    words = [word for word in ONE_SHOT if not word.startswith("strategy.name")]
    opened = session(tmp_path, [*words, "strategy.name=hurricane", "strategy.values.proposals=6"])
    work_on(opened, {"search": STAGES["search"]})
    opened.log.close()
    found = opened.run.read(ArchitectureRecord).derived_by
    assert [one.score for one in found.candidates] == [1.0, 2.0, 3.0, 0.5, 0.5, 0.5]
    assert found.method == f"{one_shot_search.EQUAL} of the last stage"
    assert opened.checkpoints.current.outputs.search.choices == found.candidates[3].choices


@pytest.mark.parametrize("envs, played", [(4, 4), (8, 8), (12, 4), (64, 8), (5, 1)])
def test_a_score_is_played_in_few_environments_and_takes_all_of_its_steps(envs, played, tmp_path, monkeypatch):
    made = []

    def within(forward, env, steps, generator):
        made.append((env.num_envs, steps))
        return 0.0

    monkeypatch.setattr("cosearch.training.shared_scores.score_within", within)
    words = [word for word in ONE_SHOT if not word.startswith(("env.num_envs", "strategy.paths_per_rollout", "budget.search"))]
    plan = make_plan(
        resolve(overrides=(*words, f"env.num_envs={envs}", "strategy.paths_per_rollout=1", "budget.search_steps=4096"))
    )
    opened = open_session(RunDir.create(tmp_path, "one", to_json(plan.record("a test"))), plan, Silent())
    search = one_shot_search.OneShotSearch(plan, opened.resources, opened.log, opened.checkpoints)
    search.scores.score(plan.space.architecture([0, 0, 0]), 10 * envs)
    assert made == [(played, 10 * envs // played)]
    search.training.close()
    opened.log.close()


def test_a_proposal_whose_outputs_are_not_finite_is_recorded_and_not_the_result(tmp_path, monkeypatch):
    score, calls = EpisodeScores.score, []

    def failing(self, architecture, steps):
        calls.append(architecture)
        if len(calls) == 1 or len(calls) > limit[0]:
            raise NonFiniteError("the policy returned NaN")
        return score(self, architecture, steps)

    monkeypatch.setattr(EpisodeScores, "score", failing)
    limit = [100]
    opened = session(tmp_path / "one", ONE_SHOT)
    work_on(opened, {"search": STAGES["search"]})
    opened.log.close()
    first, *others = opened.run.read(ArchitectureRecord).derived_by.candidates
    assert first.score is None and first.failure == "the policy returned NaN" and all(one.failure is None for one in others)
    calls.clear()
    limit[0] = 2
    opened = session(tmp_path / "two", ONE_SHOT)
    with pytest.raises(RunFailedError, match="3 of 5 candidates failed"):
        work_on(opened, {"search": STAGES["search"]})
    opened.log.close()


def test_held_out_frames_are_restored_with_all_that_belongs_to_them(tmp_path):
    load_builtins()
    opened = session(tmp_path, (*ONE_SHOT, FRAMES))
    search = one_shot_search.OneShotSearch(opened.plan, opened.resources, opened.log, opened.checkpoints)
    search.scores.play(128, None)
    saved, architecture = copy.deepcopy(search.scores.state()), opened.plan.space.architecture([0, 1, 2])
    before = search.scores.score(architecture, 4)
    search.scores.frames = None
    with pytest.raises(RuntimeError, match="call play first"):
        search.scores.score(architecture, 4)
    search.scores.restore(saved)
    assert search.scores.score(architecture, 4) == before
    search.training.close()
    opened.log.close()


@pytest.mark.parametrize("taught", [False, True])
def test_a_score_on_frames_is_minus_what_the_learner_credits_a_path_with(taught, tmp_path):
    words = [word for word in ONE_SHOT if not word.startswith("distill") or not taught]
    opened = session(tmp_path, (*words, FRAMES, "rl.minibatch=512"))  # one minibatch of all frames
    assert (opened.resources.teacher is not None) is taught
    search = one_shot_search.OneShotSearch(opened.plan, opened.resources, opened.log, opened.checkpoints)
    search.scores.play(256, search.training.stage.distill_weight)
    frames, learner = search.scores.frames, search.training.rounds.learner
    data = {name: getattr(frames, name)[0] for name in ("frames", "actions", "log_prob", "value", "target")}
    if taught:
        data |= {"teacher_policy": frames.teacher_policy[0], "teacher_value": frames.teacher_value[0]}
    weight, distill = search.training.stage.distill_weight, opened.plan.config.distill
    distillation = Distillation(weight * distill.actor, weight * distill.critic) if taught else None
    assert float(frames.advantage.mean()) == pytest.approx(0.0, abs=1e-6) and frames.value.shape == (1, 256)
    for choices in ([0, 0, 0], [1, 8, 5]):
        architecture = opened.plan.space.architecture(choices)
        with torch.no_grad():
            _, terms = learner.loss(search.subject.forward_of(architecture), data, frames.advantage[0], distillation)
        credit = float(terms["imitation"]) + path_loss(float(terms["ratio"]), float(terms["ratio_advantage"]))
        assert search.scores.score(architecture, 4) == pytest.approx(-credit, rel=1e-4, abs=1e-6)
    search.training.close()
    opened.log.close()
