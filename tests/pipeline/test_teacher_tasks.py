"""A teacher of a task with other wrappers or arguments: its values and its score are none of the run's."""

import json
from types import SimpleNamespace

import pytest
import torch
from pipeline_runs import Silent

from cosearch.config.run import resolve
from cosearch.pipeline.agent import finish
from cosearch.planning.builtins import load_builtins
from cosearch.planning.plan import make_plan
from cosearch.planning.teacher import named_teacher, other_task
from cosearch.rl.teacher import list_teachers, save_teacher
from cosearch.space.network import AgentNetwork, fixed_agents
from cosearch.teachers.train import TeacherRequest, train_teacher
from latency_tables.errors import ConfigError

load_builtins()
SCALED = "env.wrappers=[reward_scale:0.01]"
SCORE = {"score_mean": 127.19, "score_ci95": [120.0, 130.0]}


def teacher_file(folder, task=None):
    network = AgentNetwork(next(iter(fixed_agents((4,), 2).values())), torch.Generator().manual_seed(1))
    provenance = SCORE | ({} if task is None else {"task": task})
    about = {"env": "gym:CartPole-v1", "description": "toy", "gamma": 0.98, "reward_std": 20.0, "provenance": provenance}
    return save_teacher(folder / "toy.json", network, **about).path


def plan_of(path, *words):
    fixed = ("env.name=gym:CartPole-v1", "device=jetson", "objective.latency_target_s=0.01", f"distill.teacher={path}")
    return make_plan(resolve(overrides=[*fixed, *words]))


def scored(plan, monkeypatch):
    """Whether the score of a run's teacher is its file's; else the teacher plays the run's own evaluation."""
    played = SimpleNamespace(mean=1.0, ci95=(0.5, 1.5))
    monkeypatch.setattr(finish, "_evaluate", lambda config, *rest, **options: played)
    teacher = SimpleNamespace(record=plan.teacher, plays=None)
    mean, ci95, _ = finish._teacher_score(plan.config, SimpleNamespace(teacher=teacher, streams=None), Silent())
    assert (mean, ci95) in ((1.0, (0.5, 1.5)), (127.19, (120.0, 130.0)))
    return mean == 127.19


@pytest.mark.parametrize(
    "task, words, values, score",
    [
        (None, (), True, True),
        (None, (SCALED,), False, False),
        (None, ("env.kwargs.sutton_barto_reward=true",), False, False),
        ({"kwargs": {}, "wrappers": ["reward_scale:0.01"]}, (SCALED,), True, True),
        ({"kwargs": {}, "wrappers": ["reward_scale:0.01"]}, (), False, False),
        ({"kwargs": {}, "wrappers": [], "episode_steps": 100}, (), True, False),
        (None, ("env.metric=length",), True, False),
        (None, ("env.num_envs=8",), True, True),
    ],
)
def test_what_is_taken_of_a_teachers_file_is_of_the_runs_task(task, words, values, score, tmp_path, monkeypatch):
    path = teacher_file(tmp_path, task)
    if not values:
        with pytest.raises(ConfigError, match=r"was trained with env\.\w+=.*, this run has env\.\w+=.*Set distill\.critic=0"):
            plan_of(path, *words)
        words = (*words, "distill.critic=0")
    plan = plan_of(path, *words)
    assert plan.teacher.reward_std == (20.0 if values else None)  # None: the divisor is the run's own
    recorded = plan.record("a test").teacher
    assert (recorded.score_mean, recorded.score_ci95) == ((127.19, (120.0, 130.0)) if score else (None, None))
    assert scored(plan, monkeypatch) is score


@pytest.mark.parametrize("name", [record.name for record in list_teachers()])
def test_the_shipped_teachers_are_of_their_tasks_as_they_are_by_default(name):
    record = next(record for record in list_teachers() if record.name == name)
    config = resolve(overrides=[f"env.name={record.env}", "distill.teacher=auto"])
    assert named_teacher(config) == record and other_task(record, config.env) == []


@pytest.mark.parametrize("task", [[], {"wrapper": []}, {"wrappers": 3}])
def test_a_damaged_record_of_the_task_is_named(task, tmp_path):
    with pytest.raises(ConfigError, match=r"toy\.json: provenance\.task cannot be read"):
        plan_of(teacher_file(tmp_path, task))


def test_a_trained_teacher_records_its_task(tmp_path):
    values = (SCALED, "env.num_envs=2", "rl.rollout_steps=8", "rl.minibatch=16", "env.episode_steps=50")
    request = TeacherRequest("gym:CartPole-v1", "", 16, 0, 1, 2, values=values)
    train_teacher(request, tmp_path / "made.json", tmp_path / "runs", "a test", Silent())
    recorded = json.loads((tmp_path / "made.json").read_text())["provenance"]["task"]
    assert recorded == {"kwargs": {}, "wrappers": ["reward_scale:0.01"], "episode_steps": 50}
    assert plan_of(tmp_path / "made.json", SCALED, "env.episode_steps=50").teacher.reward_std is not None
