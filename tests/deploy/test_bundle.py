"""The bundle: its contract in both places, actions chosen in the graph, the opset, and the runner without any of our packages."""

import ast
import dataclasses
import json
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundle_run import HIGH, LOW, SCALE, SHIFT, make_run, observations, runner, spoil_array
from report_fake_run import change

from cosearch.api import load_agent
from cosearch.cli.app import main
from cosearch.deploy.bundle import folder as module
from cosearch.deploy.bundle.contract import Contract
from cosearch.deploy.bundle.description import describe
from cosearch.deploy.bundle.folder import FILES, STORED, BundleOptions, rewrite_bundle, write_bundle
from cosearch.deploy.bundle.graph import load, metadata_of, needed_opset, with_opset, without_copies
from latency_tables.board.runners import OnnxRunner
from latency_tables.errors import RequestError, RunFolderError

KINDS = ("categorical", "gaussian")
RUNNER = FILES / "run_agent.py"
ALLOWED = {"numpy", "onnxruntime"}
GUARD = """
import importlib.abc, runpy, sys
OURS = ("cosearch", "latency_tables", "accel_models", "torch", "onnx", "scipy", "gymnasium")
class Refused(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in OURS:
            raise ImportError(name + " is not on the board")
sys.meta_path.insert(0, Refused())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each kind, with its bundle."""
    return {kind: make_run(tmp_path_factory.mktemp("bundle") / kind, kind) for kind in KINDS}


@pytest.fixture
def bundle(request, runs, tmp_path):
    """A copy of the image agent's bundle, to be damaged."""
    return Path(shutil.copytree(runs["categorical"].path / "agent", tmp_path / "agent"))


def on_the_board(folder, *words):
    """The runner in an isolated interpreter that refuses every package but numpy, onnxruntime and what these need."""
    command = [sys.executable, "-I", "-c", GUARD, str(folder / "run_agent.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=folder.parent)


@pytest.mark.parametrize("kind", KINDS)
def test_the_contract_in_the_file_is_the_one_beside_it(runs, kind):
    folder = runs[kind].path / "agent"
    beside = Contract.from_json(json.loads((folder / "contract.json").read_text()), "contract.json")
    model = load((folder / "agent.onnx").read_bytes(), "agent.onnx")
    assert Contract.from_metadata(metadata_of(model), "agent.onnx") == beside
    assert set(metadata_of(model)) == {
        field.name for field in dataclasses.fields(Contract) if not field.name.startswith("memory_")
    }
    assert beside.run == "starpilot-jetson" and beside.environment == "procgen:starpilot" and beside.table_id == "9f31c2"
    assert beside.period_s == 0.02 and beside.latency_target_s == 4e-3 and beside.versions["torch"] == "2.13.0"
    if kind == "categorical":
        assert beside.action_names == ("noop", "left", "right", "fire") and beside.input_shape == ("batch", 8, 8, 3)
        assert beside.input_names == () and beside.action_low == () and beside.stored_outputs == ("logits", "value")
    else:
        assert (beside.action_low, beside.action_high) == (LOW, HIGH) and (beside.action_scale, beside.action_shift) == (
            SCALE,
            SHIFT,
        )
        assert beside.input_names == ("observation_0", "observation_1", "observation_2") and len(beside.action_names) == 2


def test_another_tools_entries_stay_and_a_damaged_contract_names_the_entry(runs):
    model = load((runs["categorical"].path / "agent" / "agent.onnx").read_bytes(), "agent.onnx")
    entries = {**metadata_of(model), "author": "somebody"}
    assert Contract.from_metadata(entries, "x").policy == "categorical"
    with pytest.raises(RunFolderError, match=r"x: its metadata opset must be JSON, got 'x y'"):
        Contract.from_metadata({**entries, "opset": "x y"}, "x")
    with pytest.raises(RunFolderError, match="x: opset must be a whole number, got 'nine'"):
        Contract.from_metadata({**entries, "opset": '"nine"'}, "x")


@pytest.mark.parametrize("kind", KINDS)
def test_the_bundles_file_computes_what_the_exported_one_does(runs, kind):
    seen = observations(kind, 20, seed=5)
    exported = OnnxRunner((runs[kind].path / "agent.onnx").read_bytes()).session
    bundled = OnnxRunner((runs[kind].path / "agent" / "agent.onnx").read_bytes()).session
    name = exported.get_inputs()[0].name
    for mine, wanted in zip(bundled.run(None, {name: seen}), exported.run(None, {name: seen}), strict=True):
        np.testing.assert_array_equal(mine, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_the_self_test_passes_without_our_packages(runs, kind):
    done = on_the_board(runs[kind].path / "agent", "--self-test")
    assert (done.returncode, done.stderr) == (0, "") and re.match(r"ok: 64 observations, largest difference 0 of", done.stdout)


def test_without_words_it_prints_the_contract_and_it_times(runs):
    folder = runs["categorical"].path / "agent"
    done = on_the_board(folder)
    assert json.loads(done.stdout) == json.loads((folder / "contract.json").read_text())
    done = on_the_board(folder, "--time", "0.2")
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"median \d+\.\d+ ms, p99 \d+\.\d+ ms, \d+ of \d+ over the period", done.stdout)) == 3


def spoil_json(folder, **values):
    path = folder / "contract.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


FAULTS = {
    "other output": (
        lambda f: spoil_array(f, "value", lambda v: v + 1.0),
        r"error: observation 0: value differs by 1, at most .* is",
    ),
    "other action": (
        lambda f: spoil_array(f, "actions", lambda v: (v + 1) % 4),
        r"error: observation \d: actions differs by \d, at",
    ),
    "nan": (lambda f: spoil_array(f, "logits", lambda v: v * np.nan), r"error: observation 0: logits differs by nan"),
    "no array": (
        lambda f: (f / "self_test" / "value.npy").unlink(),
        r"error: the stored observations cannot be read: .*value\.npy",
    ),
    "pickle": (
        lambda f: np.save(f / "self_test" / "value.npy", np.array([{}]), allow_pickle=True),
        r"error: the stored observations cannot be read: Object arrays",
    ),
    "other contract": (
        lambda f: spoil_json(f, seed=8),
        r"error: contract\.json differs from the contract inside agent\.onnx: seed",
    ),
    "no contract": (lambda f: (f / "contract.json").unlink(), r"error: contract\.json cannot be read: .*No such file"),
    "broken model": (
        lambda f: (f / "agent.onnx").write_bytes((f / "agent.onnx").read_bytes()[:300]),
        r"error: onnxruntime [\d.]+ cannot load \S+agent\.onnx \(opset \d+\): ",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_one_line_and_exit_code_1(bundle, fault):
    spoil, message = FAULTS[fault]
    spoil(bundle)
    done = on_the_board(bundle, "--self-test")
    assert (done.returncode, done.stdout) == (1, "") and re.match(message, done.stderr) and done.stderr.count("\n") == 1


def test_small_differences_of_another_processor_pass_and_larger_ones_do_not(bundle):
    size = float(np.abs(np.load(bundle / "self_test" / "logits.npy")).max())
    assert size > 1  # the tolerance is a share of it
    spoil_array(bundle, "logits", lambda v: v + 0.9e-4 * size)
    assert on_the_board(bundle, "--self-test").returncode == 0
    spoil_array(bundle, "logits", lambda v: v + 0.9e-4 * size)
    assert on_the_board(bundle, "--self-test").returncode == 1


def test_a_missing_package_is_named(bundle):
    code = GUARD.replace('"torch"', '"onnxruntime"')
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(bundle / "run_agent.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and done.stderr == (
        "error: a package is missing (onnxruntime is not on the board); python3 -m pip install numpy onnxruntime\n"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_runner_acts_as_the_player_does(runs, kind):
    seen = observations(kind, 300, seed=7)
    mine, theirs = runner(runs[kind].path / "agent")["Agent"](str(runs[kind].path / "agent"), seed=3), load_agent(runs[kind].path)
    np.testing.assert_allclose(mine.act(seen, greedy=True), theirs.act(seen, greedy=True), rtol=1e-6)
    assert np.array_equal(mine(seen[0], greedy=True), mine.act(seen[:1], greedy=True)[0])
    many = np.repeat(seen[:1], 4000, axis=0)
    drawn, wanted = mine.act(many), theirs.act(many)
    if kind == "categorical":  # frequencies of the two within five standard errors of each other
        counts = [np.bincount(values, minlength=4) / 4000 for values in (drawn, wanted)]
        assert np.abs(counts[0] - counts[1]).max() < 5 * np.sqrt(0.5 / 4000)
        assert len(set(drawn.tolist())) > 1
    else:
        assert (drawn <= HIGH).all() and (drawn[:, 1] >= -1).all() and drawn.dtype == np.float32
        assert np.abs(drawn.mean(0) - wanted.mean(0)).max() < 5 * wanted.std() * np.sqrt(2 / 4000)
    again = runner(runs[kind].path / "agent")["Agent"](str(runs[kind].path / "agent"), seed=3)
    again.act(seen, greedy=True)
    assert np.array_equal(again.act(many), drawn)


def test_grey_images_need_no_axis_of_channels(tmp_path):
    run = make_run(tmp_path / "run", "grey")
    mine, theirs = runner(run.path / "agent")["Agent"](str(run.path / "agent"), seed=3), load_agent(run.path)
    seen = observations("grey", 50, seed=7)
    wanted = mine.act(seen, greedy=True)
    assert len(set(wanted.tolist())) > 1
    for each in (seen, seen[..., 0]):
        assert np.array_equal(mine.act(each, greedy=True), wanted) and np.array_equal(theirs.act(each, greedy=True), wanted)
    assert mine(seen[0, :, :, 0], greedy=True) == wanted[0]


@pytest.mark.parametrize("actions", ["outside", "sampled"])
def test_warming_up_changes_no_action(tmp_path, actions):
    folder = make_run(tmp_path / "run", options=BundleOptions(actions=actions)).path / "agent"
    plain, warmed = (runner(folder)["Agent"](str(folder), seed=4) for _ in range(2))
    ran, session = [], warmed.session
    warmed.session = types.SimpleNamespace(run=lambda names, feed: ran.append(feed) or session.run(names, feed))
    seen = observations("categorical", 60)
    expected = [int(plain(frame)) for frame in seen]
    found = []
    for frame in seen:
        warmed.warm_up()
        found.append(int(warmed(frame)))
    assert found == expected and len(set(found)) > 1 and len(ran) == 120
    assert np.array_equal(ran[2]["frames"][0], seen[0])  # the last observation


def test_the_runner_refuses_other_observations(runs):
    space = runner(runs["categorical"].path / "agent")
    agent = space["Agent"](str(runs["categorical"].path / "agent"))
    for wrong in (np.zeros((1, 8, 8, 1), np.uint8), np.zeros((1, 8, 8, 3), np.float32)):
        with pytest.raises(space["AgentError"], match=r"takes \[batch, 8, 8, 3\] in uint8, got"):
            agent.act(wrong)


def test_the_runner_is_short_old_python_and_needs_nothing_else():
    text = RUNNER.read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 6))
    imported = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported - set(sys.stdlib_module_names) == ALLOWED and len(text.splitlines()) < 280
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.NamedExpr)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("actions", ["greedy", "sampled"])
def test_the_graph_chooses_the_action_that_the_rule_says(tmp_path, kind, actions):
    run = make_run(tmp_path / "run", kind, options=BundleOptions(actions=actions), first_action=2 if kind == "categorical" else 0)
    folder, seen, random = run.path / "agent", observations(kind, 400, seed=9), np.random.default_rng(1)
    contract = Contract.from_json(json.loads((folder / "contract.json").read_text()), "contract.json")
    feed = {contract.input_name: seen}
    if actions == "sampled":
        draw = random.random((400, 1)) if kind == "categorical" else random.standard_normal((400, 2))
        feed["noise"] = draw.astype(np.float32)
        assert (contract.noise_input, contract.noise_size) == ("noise", 1 if kind == "categorical" else 2)
    session = OnnxRunner((folder / "agent.onnx").read_bytes()).session
    names = [output.name for output in session.get_outputs()]
    assert names[-1] == contract.action_output == "action" and tuple(names) == contract.output_names
    found = dict(zip(names, session.run(None, feed)))
    if kind == "categorical":
        logits = found["logits"].astype(np.float64)
        expected = logits.argmax(1)
        if actions == "sampled":
            p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            expected = np.array([np.searchsorted(np.cumsum(row), u[0], side="right") for row, u in zip(p, feed["noise"])])
        assert found["action"].dtype == np.int64 and (found["action"] == expected + 2).mean() > 0.995
        assert len(set(expected.tolist())) > 1
    else:
        chosen = found["mean"] + (np.exp(-0.7) * feed["noise"] if actions == "sampled" else 0)
        expected = np.stack([np.minimum(1.5 * chosen[:, 0] + 0.25, 2.0), np.clip(0.5 * chosen[:, 1] - 0.25, -1.0, 1.0)], axis=1)
        np.testing.assert_allclose(found["action"], expected, atol=1e-5)
    done = on_the_board(folder, "--self-test")
    assert done.returncode == 0, done.stderr
    mine = runner(folder)["Agent"](str(folder))
    assert mine.act(seen).shape == expected.shape and mine.warm_up() is None


def test_the_lowest_opset_is_that_of_the_newest_operator(runs):
    exported = without_copies(load((runs["categorical"].path / "agent.onnx").read_bytes(), "agent.onnx"))
    least = needed_opset(exported)
    bundled = load((runs["categorical"].path / "agent" / "agent.onnx").read_bytes(), "agent.onnx")
    assert exported.opset_import[0].version == 17 and bundled.opset_import[0].version == least < 17
    assert bundled.ir_version <= 7  # onnxruntime 1.11, the newest one of a Jetson Nano, reads up to 8
    newest = {node.op_type: onnx.defs.get_schema(node.op_type, 17).since_version for node in exported.graph.node}
    assert least == max(newest.values())
    onnx.checker.check_model(bundled, full_check=True)


def test_operator_sets_that_no_node_is_of_are_left_out(runs):
    exported = load((runs["categorical"].path / "agent.onnx").read_bytes(), "agent.onnx")
    exported.opset_import.extend([onnx.helper.make_opsetid("com.microsoft", 1), onnx.helper.make_opsetid("ai.onnx.ml", 5)])
    model = with_opset(exported, None)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", needed_opset(exported))]


def test_an_opset_can_be_asked_for_within_what_the_graph_needs(runs, tmp_path):
    exported = without_copies(load((runs["categorical"].path / "agent.onnx").read_bytes(), "agent.onnx"))
    seen, wanted = observations("categorical", 5), None
    for opset in (needed_opset(exported), 16, 19):
        model = with_opset(exported, opset)
        assert model.opset_import[0].version == opset
        session = OnnxRunner(model.SerializeToString()).session
        found = session.run(None, {"frames": seen})
        wanted = wanted or found
        np.testing.assert_allclose(found[0], wanted[0], atol=1e-5)
    with pytest.raises(RequestError, match=r"opset 9 is too old for the agent: .*needs \d+; give that or a newer one"):
        with_opset(exported, 9)


def test_wrong_options_and_missing_files_leave_the_old_bundle(runs, tmp_path):
    run = make_run(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (run.path / "agent").iterdir() if path.is_file()}
    with pytest.raises(RequestError, match="actions must be one of outside, greedy, sampled, got 'best'"):
        write_bundle(run, observations("categorical"), BundleOptions(actions="best"))
    (run.path / "agent.onnx").unlink()
    with pytest.raises(RunFolderError, match=r"has no agent\.onnx yet: `cosearch resume"):
        write_bundle(run, observations("categorical"))
    assert {path.name: path.read_bytes() for path in (run.path / "agent").iterdir() if path.is_file()} == before
    (run.path / "agent.onnx").write_bytes(b"nothing")
    with pytest.raises(RunFolderError, match="is no valid ONNX file"):
        write_bundle(run, observations("categorical"))


def test_a_bundle_is_written_again_with_other_options_and_what_cannot_be_had_is_refused_first(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    before = np.load(run.path / "agent" / "self_test" / "observations.npy")
    rewrite_bundle(run, BundleOptions(opset=16, actions="greedy"))
    contract = Contract.from_json(json.loads((run.path / "agent" / "contract.json").read_text()), "contract.json")
    assert (contract.opset, contract.action_output) == (16, "action")
    assert np.array_equal(np.load(run.path / "agent" / "self_test" / "observations.npy"), before)
    assert on_the_board(run.path / "agent", "--self-test").returncode == 0
    for words, message in ((["--opset", "7"], "opset 7 is too old"), (["--actions", "best"], "actions must be one of outside")):
        assert main(["export", str(run.path), *words]) == 2 and message in capsys.readouterr().err


def test_images_with_channels_first_go_in_as_the_environment_gives_them(tmp_path):
    run = make_run(tmp_path / "run")
    folder, last = run.path / "agent", observations("categorical", 40, seed=6)
    assert describe(run).environment_layout == "channels_last" and describe(run).input_shape == ("batch", 8, 8, 3)
    before = {name: np.load(folder / "self_test" / f"{name}.npy") for name in ("observations", "actions", "logits", "value")}
    wanted = OnnxRunner((run.path / "agent.onnx").read_bytes()).session.run(None, {"frames": last})
    change(run.path, "agent.json", acting__layout="channels_first")
    write_bundle(run, observations("categorical"), BundleOptions(actions="greedy"))
    contract = Contract.from_json(json.loads((folder / "contract.json").read_text()), "contract.json")
    assert (contract.environment_layout, contract.input_shape) == ("channels_first", ("batch", 3, 8, 8))
    first = np.ascontiguousarray(last.transpose(0, 3, 1, 2))
    found = OnnxRunner((folder / "agent.onnx").read_bytes()).session.run(None, {"frames": first})
    for mine, theirs in zip(found, wanted):  # logits and value
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    space = runner(folder)
    agent = space["Agent"](str(folder))
    assert np.array_equal(agent.act(first, greedy=True), wanted[0].argmax(axis=1)) and len(set(wanted[0].argmax(axis=1))) > 1
    assert np.array_equal(agent.act(first, greedy=True), load_agent(run.path).act(first, greedy=True))
    with pytest.raises(space["AgentError"], match=r"takes \[batch, 3, 8, 8\] in uint8, got \[40, 8, 8, 3\]"):
        agent.act(last)
    for _ in range(2):  # stored once as given, then written again from what was stored
        assert np.array_equal(np.load(folder / "self_test" / "observations.npy"), before["observations"].transpose(0, 3, 1, 2))
        assert np.array_equal(np.load(folder / "self_test" / "actions.npy"), before["actions"])
        done = on_the_board(folder, "--self-test")
        assert done.returncode == 0, done.stderr
        rewrite_bundle(run, BundleOptions(opset=16))


def test_the_stored_observations_are_spread_over_those_given(runs):
    given = observations("categorical")
    stored = np.load(runs["categorical"].path / "agent" / "self_test" / "observations.npy")
    assert len(stored) == STORED == module.STORED and np.array_equal(stored[0], given[0])
    assert not list((runs["categorical"].path).glob(".agent*"))
