"""The public Python interface: light, small, typed, and the same as the commands."""

import ast
import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import report_fake_run
from onnx import TensorProto, helper
from scipy import stats

import cosearch
from cosearch.api import _words
from cosearch.cli.app import main
from cosearch.record.json_record import to_json
from latency_tables import errors
from latency_tables.measuring import job
from latency_tables.opspec import OpSpec
from latency_tables.schema import Row, TableFile

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"stage_channels": [8, 8], "stage_repeats": [1, 1], "stage_strides": [1, 1]}
TINY = {
    "budget": {"search_steps": 512, "retrain_steps": 256, "eval_episodes": 16, "parity_frames": 20, "measure_s": 0.1},
    "distill": {"teacher": "none"},
    "env.num_envs": 8,
    "rl": {"rollout_steps": 16},
    "threads": 1,
}
FEATURES, PROBABILITIES = 4, np.array([0.1, 0.6, 0.05, 0.25])


def write_agent(folder, acting, outputs):
    """An agent whose outputs are the given constants plus the sum of the observation's features."""
    nodes = [helper.make_node("ReduceSum", ["observations", "axes"], ["sum"], keepdims=1)]
    constants = [helper.make_tensor("axes", TensorProto.INT64, [1], [1])]
    results = []
    for name, values in outputs.items():
        constants.append(helper.make_tensor(f"{name}0", TensorProto.FLOAT, [1, len(values)], values))
        if name == "log_std":
            nodes.append(helper.make_node("Flatten", ["log_std0"], ["log_std2"], axis=1))
            nodes.append(helper.make_node("Squeeze", ["log_std2"], ["log_std"]))
            shape = [len(values)]
        else:
            nodes.append(helper.make_node("Add", ["sum", f"{name}0"], [name]))
            shape = ["batch", len(values)]
        results.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    given = helper.make_tensor_value_info("observations", TensorProto.FLOAT, ["batch", FEATURES])
    graph = helper.make_graph(nodes, "agent", [given], results, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    folder.mkdir(exist_ok=True)
    (folder / "agent.onnx").write_bytes(model.SerializeToString())
    describe(folder, acting)
    return folder


def describe(folder, acting):
    """``agent.json`` of the file that is there."""
    record = report_fake_run.agent_record(1e-3)
    digest = hashlib.sha256((folder / "agent.onnx").read_bytes()).hexdigest()
    record = dataclasses.replace(record, acting=acting, parity=dataclasses.replace(record.parity, sha256=digest))
    (folder / "agent.json").write_text(json.dumps(to_json(record)))


@pytest.fixture
def sampling(tmp_path):
    return write_agent(tmp_path / "a", {"rule": "sample"}, {"logits": np.log(PROBABILITIES) + 3.0})


@pytest.fixture
def gaussian(tmp_path):
    acting = {"rule": "sample", "policy": "gaussian", "clip_low": [-1.0, None], "clip_high": [1.0, None]}
    return write_agent(tmp_path / "g", acting, {"mean": [0.5, 2.0], "log_std": [0.0, np.log(3.0)]})


def fresh(code):
    """What a new process prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_loads_nothing_else():
    code = "import sys; before = set(sys.modules); import cosearch; dir(cosearch); print(set(sys.modules) - before)"
    loaded = ast.literal_eval(fresh(code))
    assert {name.split(".")[0] for name in loaded} - sys.stdlib_module_names == {"cosearch"}
    assert {name for name in loaded if name.startswith("cosearch.")} == set()


def test_there_are_ten_names_and_each_has_its_documentation():
    assert len(cosearch.__all__) == 10 and set(cosearch.__all__) <= set(dir(cosearch))
    for name in cosearch.__all__:
        assert getattr(cosearch, name).__doc__, name
    with pytest.raises(AttributeError, match=r"no attribute 'serach'; it has search"):
        _ = cosearch.serach


def test_an_agent_plays_without_torch(sampling):
    code = (
        "import sys; sys.modules['torch'] = sys.modules['pydantic'] = None; import cosearch, numpy as np; "
        f"agent = cosearch.load_agent({str(sampling)!r}); print(agent(np.zeros({FEATURES})), "
        "sorted(sys.modules.keys() & {'torch', 'scipy', 'gymnasium', 'onnx', 'rich'}))"
    )
    action, heavy = fresh(code).split(maxsplit=1)
    assert int(action) in range(4) and heavy.strip() == "['torch']"  # the one that was forbidden


def test_actions_are_drawn_from_the_policy(sampling):
    agent = cosearch.load_agent(sampling / "agent.onnx", seed=7)
    drawn = agent.act(np.zeros((20_000, FEATURES), np.float32))
    counts = np.bincount(drawn, minlength=4)
    assert stats.chisquare(counts, PROBABILITIES * len(drawn)).pvalue > 1e-3
    assert {agent(np.zeros(FEATURES), greedy=True) for _ in range(9)} == {1}
    assert type(agent(np.zeros(FEATURES))) is int


def test_the_same_seed_gives_the_same_actions(sampling):
    agent, observations = cosearch.load_agent(sampling, seed=3), np.zeros((50, FEATURES), np.float32)
    first, second = agent.act(observations), agent.act(observations)
    agent.reset(3)
    assert (agent.act(observations) == first).all() and (first != second).any()
    assert (cosearch.load_agent(sampling, seed=4).act(observations) != first).any()


def test_the_best_action_where_the_rule_says_so(tmp_path):
    folder = write_agent(tmp_path / "q", {"rule": "argmax", "evaluation_epsilon": 0.5}, {"logits": [0.1, 0.2, 0.3]})
    assert set(cosearch.load_agent(folder).act(np.ones((200, FEATURES), np.float32))) == {2}


def test_action_vectors_are_gaussian_and_clipped(gaussian):
    agent = cosearch.load_agent(gaussian)
    drawn = agent.act(np.zeros((20_000, FEATURES), np.float32))
    assert drawn.dtype == np.float32 and drawn.shape == (20_000, 2)
    assert stats.kstest(drawn[:, 1], "norm", args=(2.0, 3.0)).pvalue > 1e-3
    bounded = drawn[:, 0]
    assert bounded.min() == -1.0 and bounded.max() == 1.0
    assert np.mean(bounded == 1.0) == pytest.approx(stats.norm.sf(0.5), abs=0.01)
    mean = agent(np.full(FEATURES, 1.0), greedy=True)  # 4 is added to both means
    assert mean.tolist() == [1.0, 6.0]


@pytest.mark.parametrize(
    "observations, message",
    [
        (np.zeros((1, 5), np.float32), r"\[batch, 4\] in float32, got \[1, 5\] in float32"),
        (np.zeros(4, np.float32), r"got \[4\]"),
        (np.array([["a"] * 4]), "got .* in <U1"),
    ],
)
def test_other_observations_are_refused(sampling, observations, message):
    with pytest.raises(errors.ShapeError, match=message):
        cosearch.load_agent(sampling).act(observations)


def test_outputs_that_are_not_finite_are_an_error(sampling):
    with pytest.raises(errors.NonFiniteError, match="logits is NaN"):
        cosearch.load_agent(sampling)(np.full(FEATURES, np.nan))


@pytest.mark.parametrize(
    "acting, message",
    [
        (None, "got None with policy 'categorical'; `cosearch export"),
        ({"rule": "dice"}, "sample, argmax, got 'dice'"),
        ({"rule": "sample", "policy": "beta"}, "policy 'beta'"),
        ({"rule": "sample", "policy": "gaussian", "clip_low": [0.0]}, "clip_high must be a list of numbers"),
    ],
)
def test_a_description_without_a_rule_is_refused(sampling, acting, message):
    describe(sampling, acting)
    with pytest.raises(errors.RunFolderError, match=message):
        cosearch.load_agent(sampling)


def test_what_is_no_agent_is_refused(sampling, tmp_path):
    with pytest.raises(errors.RunFolderError, match="cannot be read as the description"):
        cosearch.load_agent(tmp_path)
    (sampling / "agent.onnx").write_bytes(b"no model")
    with pytest.raises(errors.RunFolderError, match=r"not the file that agent\.json describes"):
        cosearch.load_agent(sampling)
    describe(sampling, {"rule": "sample"})
    with pytest.raises(errors.RunFolderError, match="cannot be loaded"):
        cosearch.load_agent(sampling)
    (sampling / "agent.onnx").unlink()
    with pytest.raises(errors.RunFolderError, match="has no agent"):
        cosearch.load_agent(sampling)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The same small search by the function and by the command; the folder of both."""
    runs = tmp_path_factory.mktemp("runs")
    by_function = cosearch.search(
        "gym:CartPole-v1", "raspberry-pi-4", run="function", runs=runs, preset="smoke", seed=5, quiet=True, **TINY
    )
    words = [
        f"{section}.{key}={value}" for section, part in TINY.items() if isinstance(part, dict) for key, value in part.items()
    ]
    words += ["env.num_envs=8", "threads=1"]
    asked = ["--env", "gym:CartPole-v1", "--device", "raspberry-pi-4", "--preset", "smoke", "--seed", "5", "--quiet"]
    assert main(["search", *asked, "--run", "command", "--runs", str(runs), *words]) == 0
    return by_function, runs


def test_the_function_does_what_the_command_does(searched):
    run, runs = searched
    assert run.folder == runs / "function" and run == cosearch.load_run(runs / "function")
    ours, theirs = (json.loads((runs / name / "run.json").read_text()) for name in ("function", "command"))
    assert ours["config"] == theirs["config"] and ours["config"]["budget"]["search_steps"] == 512
    assert run.agent.read_bytes() == (runs / "command" / "agent.onnx").read_bytes()
    assert run.summary.score_mean == json.loads((runs / "command" / "summary.json").read_text())["score_mean"]
    assert run.report.is_file() and run.architecture.is_file() and cosearch.load_agent(run)(np.zeros(4)) in (0, 1)


def test_a_wrong_request_is_refused_before_any_work(tmp_path):
    with pytest.raises(errors.ConfigError, match=r"budget\.serach_steps: unknown key; did you mean .budget\.search_steps"):
        cosearch.search(runs=tmp_path, budget={"serach_steps": 1})
    with pytest.raises(errors.UnknownNameError, match="jetson"):
        cosearch.search(device="jetsn", runs=tmp_path)
    assert not list(tmp_path.iterdir())


def test_paths_and_numbers_of_numpy_are_values_as_on_the_command_line(tmp_path):
    with pytest.raises(errors.CosearchError, match=r"no-teacher\.onnx"):  # the path arrived
        cosearch.search("gym:CartPole-v1", runs=tmp_path, distill={"teacher": tmp_path / "no-teacher.onnx"})
    with pytest.raises(errors.RunFolderError, match="no-control"):
        cosearch.search("gym:CartPole-v1", runs=tmp_path, control=tmp_path / "no-control", distill={"teacher": "none"})
    words = dict(
        word.split("=") for word in _words({"rl": {"lr": np.float32(0.5)}, "env.num_envs": np.int64(8), "x": np.bool_(1)})
    )
    assert words == {"rl.lr": "0.5", "env.num_envs": "8", "x": "true"}
    assert _words({"a": [Path("b"), np.int8(3)]}) == ['a=["b", 3]']
    for value in (object(), {1, 2}, 1j, np.zeros(2), [{(1, 2): 3}]):
        with pytest.raises(errors.ConfigError, match=r"^rl\.lr: expected a number, a text"):
            cosearch.search("gym:CartPole-v1", runs=tmp_path, rl={"lr": value})
    assert not list(tmp_path.iterdir())


def test_an_unfinished_run_has_no_results(searched, tmp_path):
    (tmp_path / "run.json").write_bytes((searched[1] / "function" / "run.json").read_bytes())
    with pytest.raises(errors.RunFolderError, match=r"is not finished: it has no summary\.json; `cosearch resume"):
        cosearch.load_run(tmp_path)


def test_a_prediction_is_the_commands_and_its_rows_add_up(searched, capsys):
    run, _ = searched
    found = cosearch.predict(run, "raspberry-pi-4")
    capsys.readouterr()
    assert main(["predict", str(run.architecture), "--device", "raspberry-pi-4", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (found.latency_s, found.energy_j, found.provenance) == (said["latency_s"], said["energy_j"], "estimated")
    assert [row.key for row in found.operations] == [row["key"] for row in said["operations"]]
    assert found.overhead_s + sum(row.latency_s for row in found.operations) == pytest.approx(found.latency_s)
    assert found.interval[0] < found.latency_s < found.interval[1] and found.latency_s == run.summary.latency_predicted_s
    with pytest.raises(errors.RequestError, match="either a device or a table"):
        cosearch.predict(run)


def test_a_table_is_measured_for_the_blocks_of_the_space(tmp_path, monkeypatch):
    asked = []

    def run(request, command):
        asked.append(request)
        work = json.loads(Path(request.worklists[0]).read_text())
        rows = {op.key: Row(op.key, 1e-6) for op in map(OpSpec.from_dict, work["ops"])}
        device = {"name": request.device, "description": "a toy", "runtime": "onnxruntime", "dtype": "float32", "threads": 1}
        header = {"device": device, "provenance": "synthetic", "calibration": {"overhead_s": 2e-6, "scale": 1.0}}
        proof = {"networks": 3, "mape": 0.25, "within_5": 0.5, "within_10": 1.0, "bias": 0.0, "kendall_tau": 0.5}
        return TableFile(header, rows, proof)

    monkeypatch.setattr(job, "run", run)
    out = tmp_path / "tables" / "mine.jsonl"
    table = cosearch.measure(out, "minatar:breakout", space={"values": SMALL}, device="mine", networks=10**9, rounds=3)
    (request,) = asked
    work = json.loads(out.with_suffix(".worklist.json").read_text())
    assert (request.out, request.device, request.settings.min_rounds) == (out, "mine", 3)
    assert len(work["networks"]) == 9**2  # the whole space: nine candidates at each of two points
    assert table == cosearch.MeasuredTable(out, "mine", table.rows, 2e-6, 0.25, 0.5) and table.rows == len(work["ops"])
    out.touch()
    with pytest.raises(errors.RequestError, match="is there already; give again=True"):
        cosearch.measure(out, "minatar:breakout")
