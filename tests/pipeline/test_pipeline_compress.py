"""A policy made smaller: what the command says of it, which target is searched for, and what the summary has of both."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from policy_files import FEATURES, Linear, actor_critic_weights, policy_model, saved, sb3_zip

from cosearch.cli.app import main
from cosearch.pipeline import compress
from cosearch.pipeline.agent.policy_figures import policy_latency, share_of
from cosearch.planning.task import resolve_task
from cosearch.record.run_record import ReferenceRecord
from cosearch.rl.evaluate import Score
from cosearch.rl.foreign.understood import Said
from latency_tables.errors import ConfigError, InfeasibleTargetError
from latency_tables.opspec import Device

CART = "gym:CartPole-v1"


@pytest.fixture
def policy(tmp_path):
    return sb3_zip(tmp_path / "ppo.zip", actor_critic_weights(actions=2), actions=("n", 2))


def test_the_probe_prints_what_was_understood_and_makes_nothing(policy, tmp_path, capsys):
    runs = tmp_path / "runs"
    words = ["compress", str(policy), "--env", CART, "--runs", str(runs), "--probe"]
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["chosen"], said["meaning"], said["acting"], said["batch"]) == ("logits", "logits", "sampled", "free")
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "stable-baselines3 2.9.2 PPO or A2C" in text and "teaches by:   its distribution" in text
    assert not runs.exists()


@pytest.mark.parametrize(
    "words, told",
    [
        (["--outputs", "mean"], "the actions of gym:CartPole-v1 are discrete"),
        (["--acting", "often"], "must be sampled or greedy"),
        (["--module", "a:B"], "--module has no effect"),
        (["--latency-target-ms", "0.2", "distill.teacher=none"], "the policy is the teacher"),
        (["--device", "zc706"], "give a device with a table"),
        (["--device", "raspberry-pi-4,jetson"], "give one device and one target"),
    ],
)
def test_a_wrong_request_is_one_message(policy, tmp_path, words, told, capsys):
    asked = ["compress", str(policy), "--env", CART, "--device", "raspberry-pi-4", "--runs", str(tmp_path), "--quiet", *words]
    assert main(asked) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert told in said and said.count("error:") == 1


@pytest.mark.parametrize("task", ["dictionary", "masked", "channels_first"])
@pytest.mark.parametrize("more", [("--probe",), ("--device", "raspberry-pi-4")], ids=["probe", "search"])
def test_a_task_whose_observations_have_parts_is_one_message(policy, tmp_path, task, more, capsys):
    plain = saved(tmp_path / "p.onnx", policy_model({"logits": (Linear(FEATURES, 2, 0), None)}))
    layout = ["env.layout=channels_first"] if task == "channels_first" else []
    for file in (plain, policy):
        assert main(["compress", str(file), "--env", f"own_tasks:{task}", "--runs", str(tmp_path / "runs"), *more, *layout]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert f"own_tasks:{task} has observations of parts" in said and "cosearch teacher --env" in said
        assert said.count("error:") == 1 and not (tmp_path / "runs").exists()


def planned(monkeypatch, policy, tmp_path, latency_s, **how):
    """The plan for a policy of that latency on the device."""
    monkeypatch.setattr(compress, "_time", lambda *_: compress.Timed(latency_s, "made up", latency_s))
    target, words = how.pop("target_s", None), how.pop("words", ())
    config = resolve_task(
        overrides=words, options={"env.name": CART, "device": "raspberry-pi-4", "objective.latency_target_s": target}
    )
    read = compress.understand(policy, config, Said())
    taught = compress.taught_by(config, read, tmp_path)
    assert taught.distill.critic == 0
    family = replace(config, distill=replace(config.distill, temperature=0.5))  # of a task, not of the request
    assert compress.taught_by(family, read, tmp_path).distill.temperature == 1.0
    said = replace(family, said=config.said | {"distill.temperature"})
    assert compress.taught_by(said, read, tmp_path).distill.temperature == 0.5
    return compress.plan_compression(taught, read, seconds=1.0, **how)


def test_the_space_suits_the_policy_where_none_is_named():
    def chosen(shape, states, *words):
        policy = SimpleNamespace(understood=SimpleNamespace(frame_shape=shape, states=states))
        space = compress.suited(resolve_task(overrides=words), policy).space
        return space.name, space.values.get("memory")

    assert chosen((10, 10, 4), ()) == ("macro", None)
    assert chosen((10, 10, 4), (), "space.name=chain") == ("chain", None)
    assert chosen((10, 10, 4), (), "space.values.hidden=32") == ("auto", None)
    assert chosen((10, 10, 4), (), "rl.algorithm=dqn") == ("auto", None)
    assert chosen((4,), ()) == ("auto", None)
    assert chosen((4,), ("h",)) == ("auto", ["gru_w16", "gru_w32", "gru_w64"])
    assert chosen((4,), ("h",), 'space.values.memory=["none"]') == ("auto", ["none"])
    assert chosen((4,), ("h",), "rl.algorithm=sac") == ("auto", None)


def test_the_target_is_a_third_the_nearest_or_none(monkeypatch, policy, tmp_path):
    third = planned(monkeypatch, policy, tmp_path, 1e-3)
    assert third.target_s == pytest.approx(1e-3 / 3) and third.plan.constraints[0].value == third.target_s and not third.note
    assert third.plan.teacher.understood.origin.startswith("stable-baselines3")
    near = planned(monkeypatch, policy, tmp_path, 4e-4)
    least = planned_least(monkeypatch, policy, tmp_path)
    assert near.target_s == pytest.approx(1.25 * least) and f"{near.target_s / 4e-4:.2f} of the policy's" in near.note
    with pytest.raises(InfeasibleTargetError, match="there is nothing smaller to find"):
        planned(monkeypatch, policy, tmp_path, 1.04 * least)
    assert planned(monkeypatch, policy, tmp_path, 1.2 * least).target_s == pytest.approx(1.1 * least)  # half-way
    close = planned(monkeypatch, policy, tmp_path, 1.33 * least)  # half-way lies the fastest network alone, an empty one
    assert close.plan.counts.distinct > 1 and 1.165 * least < close.target_s < 0.95 * 1.33 * least
    below = planned(monkeypatch, policy, tmp_path, 1.33 * least, target_s=(1 - 2e-3) * close.target_s)
    assert below.plan.counts.distinct == 1
    fits = planned(monkeypatch, policy, tmp_path, 1e-3, target_s=2e-3)
    assert fits.plan is None and fits.target_s == 2e-3
    assert planned(monkeypatch, policy, tmp_path, 1e-3, target_s=2e-3, anyway=True).plan is not None


@pytest.mark.parametrize("latency_s", [1e-3, 4e-4])
def test_another_target_out_of_reach_is_not_taken_for_a_latency(latency_s, monkeypatch, policy, tmp_path):
    with pytest.raises(InfeasibleTargetError, match=r"objective\.file_target_bytes=\d+ or more"):
        planned(monkeypatch, policy, tmp_path, latency_s, words=["objective.file_target_bytes=10"])


def test_a_target_is_searched_for_where_nobody_knows_what_the_policy_takes(monkeypatch, policy, tmp_path):
    """As the message says that asks for it: the device's table has none of the task's reference agents."""
    with pytest.raises(ConfigError, match=r"none of this task's reference agents.*--latency-target-ms"):
        planned(monkeypatch, policy, tmp_path, None)
    found = planned(monkeypatch, policy, tmp_path, None, target_s=2e-3)
    assert found.plan is not None and found.plan.config.objective.latency_target_s == found.target_s == 2e-3
    assert "not known" in found.note


def planned_least(monkeypatch, policy, tmp_path):
    """What the fastest network of the space takes: an impossible target says it."""
    with pytest.raises(InfeasibleTargetError) as error:
        planned(monkeypatch, policy, tmp_path, 1e-3, target_s=1e-9)
    return error.value.least


def test_the_file_that_a_run_learns_from_is_named_after_its_content(policy, tmp_path):
    config = resolve_task(options={"env.name": CART, "device": "raspberry-pi-4"})
    read = compress.understand(policy, config, Said())
    first, second = (compress.taught_by(config, read, tmp_path / "runs").distill.teacher for _ in range(2))
    assert first == second and len(list((tmp_path / "runs" / "policies").iterdir())) == 1
    with pytest.raises(ConfigError, match="the policy is the teacher"):
        compress.taught_by(resolve_task(overrides=["distill.teacher=none"], options={"env.name": CART}), read, tmp_path)


def test_a_share_is_counted_from_actions_at_random():
    agent, policy, by_chance = Score((-150.0, -250.0)), Score((-100.0, -140.0)), Score((-1200.0, -1240.0))
    share, (low, high) = share_of(agent, policy, by_chance)
    assert share == pytest.approx((-200 + 1220) / (-120 + 1220)) and low < share < high
    certain = Score((5.0, 5.0))
    assert share_of(certain, certain, Score((1.0, 1.0))) == (1.0, (1.0, 1.0))
    assert share_of(agent, by_chance, policy) == (None, None)
    assert share_of(agent, policy, Score((-1200.0,)))[1] is None


def timed(p50_s):
    return SimpleNamespace(measured=SimpleNamespace(p50_s=p50_s, identity="onnxruntime-float32-1t"))


def test_latency_on_the_device_is_measured_there_or_scaled_by_a_reference():
    there, this = Device("board", "", "onnxruntime", "float32", 1), Device("this", "", "onnxruntime", "float32", 1)
    references = {"mlp": ReferenceRecord(latency_predicted_s=8e-3, params=1, macs=1)}
    both = {"policy": timed(3e-5), "mlp": timed(1e-5)}
    latency_s, source = policy_latency(there, references, both)
    assert latency_s == pytest.approx(24e-3) and source == "3 of the mlp's, measured on this machine"
    assert policy_latency(this, references, both) == (pytest.approx(3e-5), "measurement")
    assert policy_latency(there, references, {"policy": timed(3e-5)}) == (None, "")
    assert policy_latency(there, references, {"mlp": timed(1e-5)}) == (None, "")


@pytest.mark.slow
def test_a_run_from_policy_to_summary(tmp_path, capsys):
    """The agent of a policy that gives actions alone acts as it does; all of the summary is there."""
    head = Linear(FEATURES, 2, 0)
    head.w[:] = np.array([[0, 0], [0, 0], [-1, 1], [-1, 1]])  # left or right where the pole leans
    head.b[:] = 0
    path = saved(tmp_path / "lean.onnx", policy_model({"actions": (head, "ArgMax")}))
    words = ["rl.rollout_steps=64", "budget.search_steps=4096", "budget.retrain_steps=8192", "budget.eval_episodes=16"]
    asked = ["compress", str(path), "--env", CART, "--device", "raspberry-pi-4", "--latency-target-ms", "0.28", "--anyway"]
    more = ["--runs", str(tmp_path), "--run", "small", "--json", "--quiet", "budget.measure_s=1", "threads=1"]
    assert main([*asked, *more, *words]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["policy_score_mean"] > 100 and summary["policy_latency_s"] > 0
    figures = summary["policy"]
    assert figures["acting"] == "greedy" and figures["random_score_mean"] < 40
    wanted = (summary["score_mean"] - figures["random_score_mean"]) / (
        summary["policy_score_mean"] - figures["random_score_mean"]
    )
    assert figures["score_share"] == pytest.approx(wanted)
    low, high = figures["latency_ratio_range"]
    assert 0 < low <= figures["latency_ratio"] <= high
    acting = json.loads((tmp_path / "small" / "agent.json").read_text())["acting"]
    assert acting["rule"] == "argmax"
    assert main(["evaluate", str(tmp_path / "small"), "--episodes", "8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["greedy"] is True
