"""Runs for a table of another runtime, dtype or thread count than ONNX Runtime in float32 on one thread."""

import hashlib
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from made_table import made_table
from pipeline_runs import TINY, Silent, command

from cosearch import load_agent
from cosearch.config.run import resolve
from cosearch.deploy.export import export_agent
from cosearch.pipeline.agent import finish
from cosearch.pipeline.agent.artifact import deploy
from cosearch.pipeline.agent.fine_tuning import FineTuning
from cosearch.pipeline.checkpoint import RetrainOutput, SearchOutput
from cosearch.planning.builtins import load_builtins
from cosearch.planning.device.artifact import ArtifactPlan
from cosearch.planning.plan import make_plan
from cosearch.planning.task import resolve_task
from cosearch.record.results.agent import AgentRecord
from cosearch.record.rundir import RunDir
from cosearch.rl.evaluate import Score
from cosearch.rl.task import make_task
from cosearch.seeding import Streams
from cosearch.space.derivation.derive import derive
from cosearch.strategies.base import STRATEGIES
from cosearch.testing.conformance import seeded
from latency_tables.board.runners import op_histogram
from latency_tables.devices import find_table
from latency_tables.errors import MissingOpError

load_builtins()
TVM, INT8 = "x86-server/tvm-float32-1t", "x86-server/onnxruntime-int8-1t"


def plan_for(device, *words):
    return make_plan(resolve_task(preset="smoke", overrides=[f"device={device}", "env.name=procgen:coinrun", *words]))


@pytest.mark.parametrize("device, dtype, words", [(INT8, "int8", ()), (TVM, "float32", ("objective.latency_target_s=0.002",))])
def test_a_run_on_such_a_table_costs_its_architectures_by_its_rows(device, dtype, words):
    """The search's cost, the derived list and the table's own rows agree, and the target holds in that table."""
    if device == TVM:
        pytest.importorskip("tvm", reason="the extra cosearch[tvm] is not installed")
    plan, table = plan_for(device, *words), find_table(device)
    assert plan.hardware.device.table_name == device and plan.record("").device.dtype == dtype
    cost = plan.constraints[0].cost
    for number in range(5):
        architecture = plan.space.sample(seeded(number))
        rows = [table.rows[op.key.replace("float32", dtype)].latency_s for op in architecture.ops()]
        wanted = table.overhead_s + table.scale * sum(rows)
        assert cost.exact(architecture) == pytest.approx(wanted, rel=1e-12)
        assert float(cost.expected(architecture.one_hot())) == pytest.approx(wanted, rel=1e-12)
        assert plan.hardware.predict(architecture.ops()).latency_s == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("name", [info.name for info in STRATEGIES.entries()])
def test_every_strategy_plans_on_an_int8_table(name):
    words = {"radars": ["distill.teacher=none"], "hurricane": ["budget.search_steps=16384"]}  # two stages, four rollouts
    plan = plan_for(INT8, f"strategy.name={name}", *words.get(name, ()))
    assert plan.strategy.name == name and plan.counts.feasible > 0


def test_a_target_that_is_a_share_of_an_agent_without_rows_names_both_ways_out():
    pytest.importorskip("tvm", reason="the extra cosearch[tvm] is not installed")
    with pytest.raises(MissingOpError, match=r"share of impala-cnn.*--runtime tvm --op stem-3x64x64.*--latency-target-ms"):
        plan_for(TVM)
    assert list(plan_for(TVM, "objective.latency_target_s=0.002").references) == []


def finished(tmp_path, dtype, *, runtime="onnxruntime", threads=1):
    words = (*TINY, "objective.latency_target_s=1.0", "budget.search_steps=32", "budget.retrain_steps=32")
    table = made_table(tmp_path / "table.jsonl", words, dtype, runtime, threads)
    done = command("search", "--run", "one", *words, f"table={table}", "--json", folder=tmp_path)
    assert done.code == 0, done.err
    run = RunDir.open(tmp_path / "runs" / "one")
    return run, run.read(AgentRecord), done.json


def test_a_run_on_an_int8_table_deploys_measures_and_scores_an_int8_file(tmp_path):
    run, agent, summary = finished(tmp_path, "int8", threads=2)
    artifact, form = agent.artifact, agent.artifact.quantised
    content = (run.path / "agent.onnx").read_bytes()
    assert (artifact.file, artifact.source) == ("agent.onnx", "agent-float32.onnx")
    assert (artifact.identity, artifact.bytes) == ("onnxruntime-int8-2t", len(content))
    assert artifact.sha256 == hashlib.sha256(content).hexdigest() != agent.parity.sha256
    assert agent.parity.sha256 == hashlib.sha256((run.path / artifact.source).read_bytes()).hexdigest()
    kinds = op_histogram(content)
    convolutions = sum(node.op_type in ("Conv", "Gemm") for node in onnx.load_model_from_string(content).graph.node)
    assert form.layers == convolutions and kinds["QuantizeLinear"] > 0
    assert form.calibration_observations == 512 and form.compared_observations == 8
    played = run.read_json("evaluation.json")["returns"]
    assert form.score.mean == pytest.approx(sum(played) / len(played)) == summary["score_mean"]
    assert form.return_kept is (form.score_difference_ci95[1] >= 0) and form.float_score.episodes == 4
    measured = agent.latency.measured
    assert measured.identity == "onnxruntime-int8-2t" and measured.batch == 1
    assert (
        "QLinearConv" in agent.latency.conditions["graphs"]["agent"]
        and "QLinearConv" in agent.latency.conditions["graphs"]["impala-cnn"]
    )
    assert summary["latency_measured_on"] == "this machine/onnxruntime-int8-2t"
    assert summary["target_checked_by"] == "measurement" and summary["latency_measured_s"] == measured.p50_s
    assert agent.latency.predicted_for == "this/onnxruntime-int8-2t"
    assert load_agent(run.path).act(np.zeros((3, 64, 64, 3), np.uint8)).shape == (3,)


@pytest.mark.parametrize("on_training, on_held_out, restored", [((0.0, 10.0), 10.0, 1), ((10.0,), 0.0, 0)])
def test_held_out_levels_choose_no_form_and_are_played_once(on_training, on_held_out, restored, tmp_path):
    """Float32 has a return of 10; the int8 forms have those given, one after the other on training levels."""
    network = derive(
        make_plan(resolve(overrides=[*TINY, "objective.latency_target_s=1.0"])).space.sample(seeded(0)), seeded(0)
    ).eval()
    frames = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    export_agent(network, tmp_path, frames)
    said = {"held out": iter([10.0, on_held_out]), "training": iter([10.0, *on_training])}

    def plays(levels):
        return lambda path: Score((score := next(said[levels]), score + 0.1, score + 0.2, score + 0.3))

    made = deploy(
        ArtifactPlan("onnxruntime", "int8"),
        tmp_path,
        frames,
        evaluate=plays("held out"),
        compare=plays("training"),
        observe=lambda count: frames[np.arange(count) % len(frames)],
        greedy=False,
        note=lambda text: None,
    )
    form = made.record.quantised
    assert [next(each, None) for each in said.values()] == [None, None]  # all were asked for, and no more
    assert len(form.float_layers) == restored and form.return_kept is (on_held_out == 10.0)
    assert form.score.mean == pytest.approx(on_held_out + 0.15) and made.score.values[0] == on_held_out


def test_a_run_compares_int8_forms_on_training_levels_of_other_seeds(tmp_path, monkeypatch):
    asked = []

    def task(env, num_envs, seed, *, test=False):
        asked.append((test, seed))
        return make_task(env, num_envs, seed, test=test)

    def deployed(form, folder, frames, *, evaluate, compare, **others):
        evaluate(folder / "agent.onnx"), compare(folder / "agent.onnx")
        raise StopIteration

    monkeypatch.setattr(finish, "make_task", task)
    monkeypatch.setattr(finish, "deploy", deployed)
    words = (*TINY, "objective.latency_target_s=1.0", "budget.search_steps=32", "budget.retrain_steps=0")
    plan = make_plan(resolve(overrides=[*words, f"table={made_table(tmp_path / 'table.jsonl', words, 'int8')}"]))
    network = derive(plan.space.sample(seeded(0)), seeded(0))
    searched = SearchOutput(tuple(plan.space.sample(seeded(0)).choices), network.state_dict(), 32)
    resources = SimpleNamespace(streams=Streams(0), teacher=None)
    with pytest.raises(StopIteration):
        finish.run_finish(
            plan, searched, RetrainOutput(network.state_dict(), 0), resources, SimpleNamespace(path=tmp_path), Silent(), None
        )
    (held_out, first), (training, second) = asked[-2:]
    assert (held_out, training) == (True, False) and first != second


@pytest.mark.slow
def test_a_run_on_a_tvm_table_deploys_and_measures_a_library(tmp_path):
    pytest.importorskip("tvm", reason="the extra cosearch[tvm] is not installed")
    run, agent, summary = finished(tmp_path, "float32", runtime="tvm")
    artifact, made = agent.artifact, agent.artifact.compiled
    content = (run.path / "agent.so").read_bytes()
    assert (artifact.file, artifact.source, artifact.identity) == ("agent.so", "agent.onnx", "tvm-float32-1t")
    assert artifact.sha256 == hashlib.sha256(content).hexdigest() and content[:4] == b"\x7fELF"
    assert made.observations == 8 and made.max_abs_difference < 1e-4 and not made.tuned and made.timer_p50_s > 0
    measured = agent.latency.measured
    assert measured.identity == "tvm-float32-1t" and measured.p50_s == pytest.approx(made.timer_p50_s, rel=0.9)
    assert summary["target_checked_by"] == "measurement" and summary["latency_measured_on"] == "this machine/tvm-float32-1t"
    assert {reference["name"] for reference in summary["reference_agents"]} == {"impala-cnn", "nature-cnn"}


class Notes:
    """Progress that keeps its notes."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        """Keep it."""
        self.notes.append(text)


@pytest.mark.parametrize("tolerance, rounds", [(0.0, True), (10.0, False)])
def test_the_end_of_the_retraining_is_rounded_only_where_int8_would_lose(tolerance, rounds, tmp_path, monkeypatch):
    """The decision is made once, and a checkpoint takes it up."""
    monkeypatch.setattr("cosearch.deploy.artifacts.quantised.KL_TOLERANCE", tolerance)
    words = (*TINY, "objective.latency_target_s=1.0")
    table = made_table(tmp_path / "table.jsonl", words, "int8")
    plan = make_plan(resolve(overrides=[*words, f"table={table}"]))
    network = derive(plan.space.sample(seeded(0)), seeded(0))
    frames = torch.zeros(2, 64, 64, 3, dtype=torch.uint8) + torch.arange(64, dtype=torch.uint8)[:, None, None]
    plain = network(frames)[0]
    fine, progress = FineTuning(plan, network, Streams(0), 96), Notes()
    assert fine.begins_at == int(0.8 * 96) and fine.end(96) == 0
    fine.begin(80, progress)
    fine.begin(90, progress)
    assert len(progress.notes) == 1 and ("rest of the retraining is rounded" in progress.notes[0]) is rounds
    assert torch.equal(network(frames)[0], plain) is not rounds
    again = derive(plan.space.sample(seeded(0)), seeded(0))
    resumed = FineTuning(plan, again, Streams(0), 96)
    resumed.restore(fine.state())
    resumed.begin(90, progress)
    assert len(progress.notes) == 1 and torch.equal(again(frames)[0], network(frames)[0])
    assert (fine.end(96), resumed.end(96)) == ((16, 16) if rounds else (0, 0))
    assert torch.equal(network(frames)[0], plain)


def test_a_float32_agent_is_never_rounded(tmp_path):
    words = (*TINY, "objective.latency_target_s=1.0")
    plan = make_plan(resolve(overrides=[*words, f"table={made_table(tmp_path / 'table.jsonl', words, 'float32')}"]))
    assert FineTuning(plan, derive(plan.space.sample(seeded(0)), seeded(0)), Streams(0), 96).begins_at is None
