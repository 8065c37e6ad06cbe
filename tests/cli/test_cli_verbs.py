"""Every verb does what it says, its JSON is JSON, and the commands that the help shows can be typed."""

import importlib.metadata
import itertools
import json
import re
import shlex
import signal
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
import typer
from pipeline_runs import CLOCKS, TARGET_S, TINY, TINY_PROPOSALS, Moment, changed, checkpointed, command, results, without_clocks

from cosearch.cli.app import main
from cosearch.cli.commands import app
from cosearch.cli.verbs import teacher  # noqa: F401  it adds itself
from cosearch.config.run import config_from_dict, resolve
from cosearch.deploy import evaluation
from cosearch.deploy.sampling import predict_architecture
from cosearch.planning.task import resolve_task
from cosearch.record.rundir import RunDir
from cosearch.rl.teacher import load_network, read_record
from latency_tables.devices import find_table

LISTS = ("devices", "strategies", "envs", "ops", "presets", "spaces", "teachers", "wrappers")
GROUP = typer.main.get_command(app)
EXAMPLES = [
    words
    for text in (GROUP.epilog, *(verb.epilog for verb in GROUP.commands.values()))
    for line in re.findall(r"`([^`]+)`", text)
    for words in line.split(" && ")
]
SMALL_TEACHER = shlex.split(
    "teacher --env procgen:starpilot --network nature-cnn --steps 320 --episodes 4 --threads 1 --test-envs 2"
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder that holds ``runs/one``, a finished run, and ``runs/control``, a finished random search."""
    folder = tmp_path_factory.mktemp("finished")
    for name, words in (
        ("control", (*TINY_PROPOSALS, "--strategy", "random", "strategy.candidates=2")),
        ("one", (*TINY, "control=runs/control")),
    ):
        done = command("search", "--run", name, *words, "--json", folder=folder)
        assert done.code == 0, done.err
        assert done.json["run"] == f"runs/{name}"
    return folder


@pytest.fixture
def out(capsys, monkeypatch, finished):
    """Run a command in the folder of the finished runs, which must succeed; gives its standard output."""
    monkeypatch.chdir(finished)

    def run(*words):
        capsys.readouterr()
        assert main(list(words)) == 0
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("what", LISTS)
def test_every_list_has_names_and_descriptions(what, out):
    rows = json.loads(out("list", what, "--json"))
    assert len(rows) >= (0 if what == "teachers" else 1)
    assert all(row["name"] and row["description"] for row in rows)
    identities = [(row["name"], row.get("runtime"), row.get("dtype"), row.get("threads")) for row in rows]
    assert len(set(identities)) == len(rows)
    text = out("list", what)
    assert all(row["name"][:8] in text for row in rows[:3])


def test_the_lists_hold_what_scripts_rely_on(out):
    names = {what: {row["name"] for row in json.loads(out("list", what, "--json"))} for what in LISTS}
    assert {"jetson", "this"} <= names["devices"] and {"a3cs", "a2d", "random"} <= names["strategies"]
    assert {"procgen:starpilot", "minatar:breakout", "ale:Breakout"} <= names["envs"]
    assert (
        names["presets"] == {"smoke", "quick", "judged", "standard", "paper"}
        and "skip" in names["ops"]
        and "chain" in names["spaces"]
    )


def test_the_command_line_of_a_run_is_recorded_and_its_configuration_reloads(finished):
    record = RunDir.open(finished / "runs" / "one").record
    assert record["command"].startswith("cosearch search --run one ") and record["config"]["env"]["num_envs"] == 4
    assert config_from_dict(record["config"]) == config_from_dict(json.loads(json.dumps(record["config"])))
    assert record["config"]["control"] == str(finished / "runs" / "control")
    assert record["table"]["provenance"] == find_table("jetson").provenance and record["device"]["name"] == "jetson"
    assert record["space"]["size"] == 9**3


def test_the_control_stands_beside_the_result(finished):
    summary = RunDir.open(finished / "runs" / "one").read_json("summary.json")
    other = RunDir.open(finished / "runs" / "control").read_json("summary.json")
    assert other["control"] is None and other["strategy"] == "random"
    control = summary["control"]
    assert {key: control[key] for key in ("score_mean", "score_ci95", "env_steps", "seed")} == {
        key: other[key] for key in ("score_mean", "score_ci95", "env_steps", "seed")
    }
    assert len(control["candidates"]) == 2 and all(candidate["latency_s"] > 0 for candidate in control["candidates"])


def test_random_search_keeps_the_best_of_its_candidates_and_meets_the_target(finished):
    run = RunDir.open(finished / "runs" / "control")
    architecture, summary = run.read_json("architecture.json"), run.read_json("summary.json")
    candidates = architecture["derived_by"]["candidates"]
    scores = [-np.inf if candidate["score"] is None else candidate["score"] for candidate in candidates]
    assert architecture["choices"] == candidates[int(np.argmax(scores))]["choices"]
    assert summary["target_met"] and all(candidate["latency_s"] <= summary["latency_target_s"] for candidate in candidates)
    labels = [line["candidate"] for line in run.read_metrics() if line["stage"] == "search"]
    assert len({label for label, _ in itertools.groupby(labels)}) == 2 and len(labels) == 4


def test_the_figures_of_the_summary_agree_with_the_files(finished):
    run = RunDir.open(finished / "runs" / "one")
    summary, agent = run.read_json("summary.json"), run.read_json("agent.json")
    predicted = predict_architecture(run.path / "architecture.json", find_table("jetson"))
    assert summary["latency_predicted_s"] == pytest.approx(predicted["latency_s"], rel=1e-12) == agent["latency"]["predicted_s"]
    assert summary["params"] == predicted["params"] and summary["macs"] == predicted["macs"]
    assert summary["params"] == sum(tensor.numel() for tensor in checkpointed(run.path)["stage_outputs"]["weights"].values())
    returns = run.read_json("evaluation.json")["returns"]
    assert summary["score_mean"] == pytest.approx(np.mean(returns)) and summary["episodes"] == len(returns) == 4
    assert summary["env_steps"] == 128 + 96
    assert summary["latency_measured_s"] == agent["latency"]["measured"]["p50_s"] > 0
    assert summary["latency_target_s"] == TARGET_S >= summary["latency_predicted_s"] and summary["target_met"] is True


def test_a_dry_run_prints_the_plan_and_makes_nothing(finished, out):
    before = sorted(finished.rglob("*"))
    result = json.loads(out("--dry-run", "--json", *TINY))
    assert config_from_dict(result["config"]) == resolve_task(overrides=TINY)
    assert result["expected_s"] > 0 and result["search_steps_per_s"] > 0 and result["peak_memory_bytes"] > 10**7
    assert (
        result["space_size"] == result["space"]["size"] == 9**3 >= result["space"]["feasible"] >= result["space"]["distinct"] > 0
    )
    assert result["table"]["device"] == "jetson"
    text = out("--dry-run", *TINY)
    assert "rl.rollout_steps = 8" in text and "expected time" in text and "latency target" in text
    assert sorted(finished.rglob("*")) == before


def test_samples_can_be_predicted(tmp_path, out):
    made = json.loads(out("sample", "--n", "2", "--seed", "5", "--out", str(tmp_path / "s"), "--json"))["files"]
    assert made == [str(tmp_path / "s" / f"000{i}.json") for i in range(2)]
    for path in made:
        result = json.loads(out("predict", "--device", "jetson", path, "--json"))
        rows = sum(operation["latency_s"] for operation in result["operations"])
        assert result["latency_s"] == pytest.approx(rows + result["overhead_s"]) and result["provenance"] == "estimated"
        assert all(operation["key"] for operation in result["operations"]) and "energy_j" in result
    again = tmp_path / "again"
    out("sample", "--n", "1", "--seed", "5", "--out", str(again))
    assert (again / "0000.onnx").read_bytes() == (tmp_path / "s" / "0000.onnx").read_bytes()
    assert " ms" in out("predict", "--device", "jetson", made[0])


def test_evaluate_follows_its_seed_its_levels_and_greedy(out):
    def score(*words):
        return json.loads(out("evaluate", "runs/one", "--episodes", "4", "--json", *words))

    base = score()
    assert base == score() and base["episodes"] == 4 and base["levels"] == "test"
    assert score("--seed", "2") != base and score("--levels", "train")["levels"] == "train"
    assert score("--greedy")["greedy"] is True
    assert "test levels:" in out("evaluate", "runs/one", "--episodes", "4")
    long = score("--metric", "length", "--solved-at", "1.5")
    assert (long["metric"], long["score_mean"], long["return_mean"]) == ("length", base["length_mean"], base["score_mean"])
    assert base["solved_at"] is None and (long["solved_at"], long["solved"]) == (1.5, True)
    assert "mean length in steps; return " in out("evaluate", "runs/one", "--episodes", "4", "--metric", "length")
    assert main(["evaluate", "runs/one", "--episodes", "4", "--metric", "success"]) == 2  # breakout says nothing of success
    assert main(["evaluate", "runs/one", "--metric", "speed"]) == 2


def test_several_runs_are_evaluated_one_by_one_and_their_middle_half_is_averaged(out, capsys, monkeypatch):
    words = ("--episodes", "4", "--seed", "2")
    one, control = (json.loads(out("evaluate", run, *words, "--json")) for run in ("runs/one", "runs/control"))
    both = json.loads(out("evaluate", "runs/one", "runs/control", *words, "--json"))
    assert both["runs"] == [{"run": "runs/one", **one}, {"run": "runs/control", **control}]
    scores = sorted((one["score_mean"], control["score_mean"]))
    assert scores[0] < scores[1] and both["iqm"] == {"value": pytest.approx(sum(scores) / 2), "ci95": pytest.approx(scores)}
    lines = out("evaluate", "runs/one", "runs/control", *words).splitlines()
    assert len(lines) == 3 and lines[0].startswith("runs/one, test levels: ") and "over 2 runs" in lines[2]
    assert main(["evaluate", "runs/one", "runs/../runs/one"]) == 2 and "named twice" in capsys.readouterr().err
    config = evaluation.config_of
    other = {"control": "procgen:fruitbot"}
    monkeypatch.setattr(evaluation, "config_of", lambda run: changed_env(config(run), other.get(run.path.name)))
    assert main(["evaluate", "runs/one", "runs/control"]) == 2 and "different tasks" in capsys.readouterr().err


def changed_env(config, name):
    return config if name is None else replace(config, env=replace(config.env, name=name))


def test_export_gives_the_same_agent_again(finished, out):
    run = finished / "runs" / "one"
    before = results(run)
    (run / "agent.onnx").unlink()
    summary = json.loads(out("export", "runs/one", "--json"))
    after = results(run)
    assert after["onnx"] == before["onnx"] and after["summary"] == before["summary"] == without_clocks(
        {key: value for key, value in summary.items() if key != "run"}
    )
    assert CLOCKS & set(summary)
    session = onnxruntime.InferenceSession(after["onnx"], providers=["CPUExecutionProvider"])
    assert session.run(["logits"], {"frames": np.zeros((3, 64, 64, 3), np.uint8)})[0].shape == (3, 15)


def test_report_is_written_again_also_of_an_unfinished_run(finished, out, tmp_path):
    page = finished / "runs" / "one" / "report.html"
    page.unlink()
    assert json.loads(out("report", "runs/one", "--json")) == {"report": "runs/one/report.html"}
    assert page.read_text().startswith("<!")
    done = command("search", "--run", "half", *TINY, folder=tmp_path, moment=Moment("retrain", 20))
    assert done.code == -signal.SIGKILL
    assert main(["report", str(tmp_path / "runs" / "half")]) == 0
    assert (tmp_path / "runs" / "half" / "report.html").stat().st_size > 1000


@pytest.mark.slow
def test_quiet_keeps_the_progress_to_itself(tmp_path):
    words = ("search", *TINY, "budget.search_steps=32", "budget.retrain_steps=0")
    loud = command(*words, "--run", "loud", folder=tmp_path)
    quiet = command(*words, "--run", "quiet", "--quiet", folder=tmp_path)
    assert loud.code == quiet.code == 0
    assert "search: step 0 of 32" in loud.err and "search: step" not in quiet.err
    assert "episodes" in loud.out and "\x1b" not in loud.out + loud.err  # no colours in a file


def test_the_default_verb_is_search_and_a_name_is_made_from_task_device_strategy_and_seed(tmp_path):
    words = (*TINY, "budget.search_steps=32", "budget.retrain_steps=0", "--seed", "3")
    (tmp_path / "runs" / "starpilot-jetson-reinforce-s3").mkdir(parents=True)
    done = command(*words, "--json", folder=tmp_path)
    assert done.code == 0 and done.json["run"] == "runs/starpilot-jetson-reinforce-s3-2", done.err
    table = tmp_path / "copy.jsonl"
    table.write_bytes(find_table("jetson").path.read_bytes())
    done = command(*words, "--table", "copy.jsonl", "--run", "named", folder=tmp_path, moment=Moment("search", 1))
    assert done.code == -signal.SIGKILL
    (tmp_path / "elsewhere").mkdir()
    done = command("resume", "../runs/named", "--json", folder=tmp_path / "elsewhere")  # the table is still found
    assert done.code == 0 and done.json["run"] == "../runs/named", done.err


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_commands_of_the_help_can_be_typed(example):
    name, *words = shlex.split(example)
    assert name == "cosearch"
    verb, rest = (words[0], words[1:]) if words[0] in GROUP.commands else ("search", words)
    context = GROUP.commands[verb].make_context(verb, list(rest))
    overrides = context.params.get("overrides") or ()
    resolve(preset=context.params.get("preset") or "quick", overrides=overrides)


@pytest.mark.parametrize("verb", [None, *GROUP.commands])
def test_every_help_ends_with_a_command(verb, out):
    text = out(*([verb] if verb else []), "--help")
    assert "cosearch" in text.split()[-24:], text  # words, because a narrow terminal wraps the lines
    assert (GROUP.commands[verb] if verb else GROUP).epilog


def test_version_is_that_of_the_package(out):
    try:
        assert out("--version") == f"{importlib.metadata.version('cosearch')}\n"
    except importlib.metadata.PackageNotFoundError:
        assert out("--version").startswith("not installed, run from /")


@pytest.mark.slow
def test_a_teacher_is_trained_and_goes_on_to_the_same_weights_after_a_kill(tmp_path):
    for name in ("straight", "killed"):
        (tmp_path / name).mkdir()
    words = (*SMALL_TEACHER, "--out", "teachers/mine.json", "--json")
    done = command(*words, folder=tmp_path / "straight")
    assert done.code == 0, done.err
    assert done.json["steps"] == 320 and done.json["episodes"] == 4
    # checkpoints come every eight updates of 32 steps, so the first kill starts over and the second goes on
    for count in (12, done.events["teacher"] - 6):
        assert command(*words, folder=tmp_path / "killed", moment=Moment("teacher", count)).code == -signal.SIGKILL
    resumed = command(*words, folder=tmp_path / "killed")
    assert resumed.code == 0 and resumed.events["teacher"] < done.events["teacher"], resumed.err
    networks = [load_network(read_record(tmp_path / name / "teachers" / "mine.json")) for name in ("straight", "killed")]
    assert not changed(networks[0].state_dict(), networks[1].state_dict())
    figures = [read_record(tmp_path / name / "teachers" / "mine.json") for name in ("straight", "killed")]
    assert figures[0].provenance == figures[1].provenance and figures[0].reward_std == figures[1].reward_std
    run = RunDir.open(tmp_path / "killed" / "runs" / "teacher-procgen-starpilot-nature-cnn-s1", teacher=True)
    assert [line["step"] for line in run.read_metrics()] == list(range(32, 321, 32))
    straight = RunDir.open(tmp_path / "straight" / "runs" / run.path.name, teacher=True)
    assert without_clocks(run.read_metrics()) == without_clocks(straight.read_metrics())
    assert "score_eval" in run.read_metrics()[-1]
    logits, value = networks[0](torch.zeros(2, 64, 64, 3, dtype=torch.uint8))
    assert logits.shape == (2, 15) and value.shape == (2,)
    told = command(*words[:-1], folder=tmp_path / "killed")
    score = resumed.json["score_mean"]
    assert told.code == 0 and f"mine.json: {score:.2f}" in told.out and "{" not in told.out  # words, not a dictionary
    other = command(*words[:-1], "--episodes", "5", folder=tmp_path / "killed")
    assert other.code == 2 and "was begun with other values" in other.err


@pytest.mark.slow
def test_a_trained_teacher_teaches(tmp_path):
    assert command(*SMALL_TEACHER, "--out", "mine.json", folder=tmp_path).code == 0
    words = (*TINY[:-1], "distill.teacher=mine.json", "budget.search_steps=32", "budget.retrain_steps=32")
    done = command("search", *words, "--run", "one", "--json", folder=tmp_path)
    assert done.code == 0, done.err
    provenance = read_record(tmp_path / "mine.json").provenance
    assert done.json["teacher_score_mean"] == provenance["score_mean"]
    log = RunDir.open(tmp_path / "runs" / "one").read_metrics()
    assert all(line["distill_actor"] > 0 for line in log)
