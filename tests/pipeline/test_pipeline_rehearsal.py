"""What a run's end needs is tried before its beginning, and numbers that used to fail at the end pass."""

import dataclasses
import json

import gymnasium
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_envs import Picture
from pipeline_runs import Silent

from cosearch.pipeline import rehearsal
from cosearch.pipeline.forecast import Forecast
from cosearch.pipeline.rehearsal import rehearse, unloadable_agent
from cosearch.pipeline.run import start_run
from cosearch.planning.plan import make_plan
from cosearch.planning.task import resolve_task
from latency_tables.errors import ConfigError, EnvironmentFailedError, RunFailedError

SHORT = (
    "threads=1",
    "objective.latency_ratio=2",
    "env.num_envs=4",
    "rl.rollout_steps=16",
    "budget.search_steps=128",
    "budget.retrain_steps=128",
    "budget.eval_episodes=4",
    "budget.parity_frames=64",
    "budget.measure_s=0.05",
    "strategy.paths_per_rollout=2",
)


def plan(*words, env="gym:own_envs:Numbers-v0"):
    return make_plan(resolve_task(overrides=[f"env.name={env}", *SHORT, *words]))


@given(st.floats(-1e5, 1e5), st.integers(-9, 9), st.lists(st.sampled_from([0.0, 25.0, 775.0, 101325.0]), max_size=2))
@settings(deadline=None, max_examples=12)
def test_any_unit_mean_and_constant_of_an_observation_can_be_exported(offset, power, constants):
    """``offset``: the mean in standard deviations."""
    unit = 10.0**power
    rehearse(plan(f"env.kwargs={json.dumps({'unit': unit, 'offset': offset * unit, 'constants': constants})}"), pytest.fail)


@pytest.mark.parametrize(
    "kwargs, subtractions",
    [
        pytest.param({"constants": [25.0, 101325.0]}, 0, marks=pytest.mark.slow),
        ({"offset": 300.0}, 1),
        pytest.param({"offset": 10.0, "unit": 1e-4}, 1, marks=pytest.mark.slow),
        pytest.param({"unit": 1e-4}, 0, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_whole_run_ends_with_an_agent(kwargs, subtractions, tmp_path):
    run = start_run(plan(f"env.kwargs={json.dumps(kwargs)}"), tmp_path, "one", "a test", Silent())
    parity = run.read_json("agent.json")["parity"]
    assert parity["max_abs_difference"] <= parity["tolerance"] * parity.get("magnitude", 1.0)
    nodes = [node.op_type for node in onnx.load(run.path / "agent.onnx").graph.node]
    assert nodes.count("Sub") == subtractions  # only a mean that float32 would lose stays apart


def test_what_cannot_be_normalised_is_said_before_a_folder_is_made(tmp_path):
    with pytest.raises(RunFailedError, match=r"before any training: .* squares do not fit into float32"):
        start_run(plan("env.kwargs.unit=1e25"), tmp_path, "one", "a test", Silent())
    assert not (tmp_path / "one").exists()


def test_what_cannot_be_exported_is_said_before_a_folder_is_made(tmp_path, monkeypatch):
    real = rehearsal.to_onnx

    def wrong(network, shape):
        model = onnx.load_model_from_string(real(network, shape))
        weights = model.graph.initializer[0]
        weights.raw_data = (np.frombuffer(weights.raw_data, np.float32) + 1).tobytes()
        return model.SerializeToString()

    monkeypatch.setattr(rehearsal, "to_onnx", wrong)
    with pytest.raises(RunFailedError, match=r"before any training: .* differs from the network"):
        start_run(plan(), tmp_path, "one", "a test", Silent())
    assert not (tmp_path / "one").exists()


class Late(Picture):
    """Breaks at its 20th step, which no check of one observation sees."""

    def step(self, action):
        if self.steps == 19:
            raise ValueError("late")
        return super().step(action)


def test_an_environment_that_breaks_soon_is_found_before_a_folder_is_made(tmp_path):
    gymnasium.register("Late-v0", entry_point=lambda: Late(length=100), disable_env_checker=True)
    try:
        with pytest.raises(EnvironmentFailedError, match="late"):
            start_run(plan(env="gym:Late-v0"), tmp_path, "one", "a test", Silent())
    finally:
        gymnasium.registry.pop("Late-v0")
    assert not (tmp_path / "one").exists()


def test_a_task_that_does_not_say_whether_an_episode_succeeded_is_refused_before_a_folder_is_made(tmp_path):
    long = f"env.kwargs.length={2 * rehearsal.STEPS}"  # longer than what is played for another metric
    with pytest.raises(ConfigError, match=r"env\.metric=success needs an environment whose last step of every episode says"):
        start_run(plan("env.metric=success", long), tmp_path, "one", "a test", Silent())
    assert not (tmp_path / "one").exists()


@pytest.mark.slow
def test_a_run_by_success_whose_episodes_were_all_cut_ends_with_none_that_succeeded(tmp_path):
    endless = ("env.metric=success", "env.kwargs.length=null", "env.episode_steps=30")
    run = start_run(plan(*endless), tmp_path, "one", "a test", Silent())
    summary = run.read_json("summary.json")
    assert summary["score_mean"] == 0.0 and summary["evaluation"]["success_rate"] is None
    assert set(run.read_json("evaluation.json")["successes"]) == {None}


def test_a_rehearsal_moves_no_random_stream_of_the_run(tmp_path, monkeypatch):
    plain = start_run(plan(), tmp_path, "with", "a test", Silent())
    monkeypatch.setattr("cosearch.pipeline.run.rehearse", lambda plan, note: None)
    without = start_run(plan(), tmp_path, "without", "a test", Silent())
    digests = [run.read_json("agent.json")["parity"]["sha256"] for run in (plain, without)]
    assert digests[0] == digests[1] and plain.read_json("evaluation.json") == without.read_json("evaluation.json")


@pytest.mark.parametrize("words", [(), pytest.param(("rl.algorithm=dqn",), marks=pytest.mark.slow)], ids=str)
def test_a_task_without_an_end_ends(words, tmp_path):
    endless = ("env.kwargs.length=null", "env.episode_steps=30", "rl.bf16=false")
    told = Silent()
    told.notes = []
    told.note = told.notes.append
    run = start_run(plan(*endless, *words), tmp_path, "one", "a test", told)
    summary = run.read_json("summary.json")
    assert (summary["episodes"], summary["episodes_cut"]) == (4, 4)
    assert any("4 of 4 episodes had not ended after 30 steps" in text for text in told.notes)
    assert "4 of them cut at the limit of steps" in (run.path / "report.html").read_text()


@pytest.mark.parametrize(
    "device, runtime, version, opset, said",
    [
        ("my-board", "onnxruntime", "1.7.2", 14, "onnxruntime 1.7.2 there ends at 13"),
        ("my-board", "onnxruntime", "1.11.1", 14, ""),
        ("my-board", "onnxruntime", "1.11.1", 17, "it needs opset 17, onnxruntime 1.11.1 there ends at 16"),
        ("jetson", "roofline", None, 17, "onnxruntime 1.11 there ends at 16 (JetPack 4.6"),
        ("jetson", "roofline", None, 14, ""),
        ("my-board", "tvm", "0.20", 17, ""),
        ("my-board", "onnxruntime", "nightly", 17, ""),
    ],
)
def test_the_plan_says_where_the_devices_runtime_would_not_load_the_agent(device, runtime, version, opset, said, monkeypatch):
    made, told = plan(), []
    table = made.hardware
    monkeypatch.setattr(table, "device", dataclasses.replace(table.device, name=device, runtime=runtime))
    monkeypatch.setattr(table, "header", {**table.header, "software": {"version": version}})
    monkeypatch.setattr(rehearsal, "needed_opset", lambda model: opset)
    rehearse(made, told.append)
    assert (said in told[0]) if said else told == []
    found = Forecast(made, 1.0, None, 1.0, 1, unloadable_agent(made))
    assert found.unloadable == "".join(told) and found.to_json()["not_loadable_because"] == (told[0] if told else None)
    assert ("would not load" in found.text()) == bool(told)
