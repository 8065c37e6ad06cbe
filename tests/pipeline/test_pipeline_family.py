"""Several agents from one search: each beside the single run, resumed at any moment, told apart on every device."""

import itertools
import json
import re
import shutil

import pytest
from onnx_teachers import Flat, write_onnx
from pipeline_runs import TARGET_S, TINY, TINY_PROPOSALS, Moment, Silent, assert_equal, command, results, without_clocks

from cosearch.compare.plan import planned_runs
from cosearch.config.run import resolve
from cosearch.deploy.sampling import predict_architecture
from cosearch.pipeline.agent.bracket import THEN, write_winner
from cosearch.pipeline.checkpoint import Candidate, Checkpoint, RetrainOutput, SearchOutput, StageOutputs
from cosearch.pipeline.family.folders import share_training
from cosearch.pipeline.forecast import forecast
from cosearch.pipeline.run import resume_run, start_run
from cosearch.pipeline.search.derivation import write_architecture
from cosearch.planning.builtins import load_builtins
from cosearch.planning.plan import make_plan
from cosearch.record.json_record import to_json
from cosearch.record.results.architecture import ArchitectureRecord, BracketRecord, Derivation
from cosearch.record.results.family import Family
from cosearch.record.run_record import RunRecord
from cosearch.record.rundir import RunDir
from cosearch.report.family import render_family_page
from cosearch.results import load_run
from latency_tables.devices import find_table
from latency_tables.errors import ConfigError, InfeasibleTargetError, RunFolderError

pytest.importorskip("minatar", reason="MinAtar is not installed")

GAME = ("env.name=minatar:breakout", "rl.minibatch=16")
GRADIENT = (*(word for word in TINY if not word.startswith(("objective", "rl.minibatch"))), *GAME)
RANDOM = (
    *(word for word in TINY_PROPOSALS if not word.startswith(("objective", "rl.minibatch"))),
    *GAME,
    "strategy.name=random",
    "strategy.candidates=4",
)
SMALL_S, LARGE_S = TARGET_S, 0.00033
TARGETS = f"family.latency_targets_s=[{SMALL_S}, {LARGE_S}]"
NAMES = ("0.26ms", "0.33ms")
A, B = (0, 0, 0), (1, 0, 1)
DEVICES = 'family.devices=["jetson", "raspberry-pi-4"]'
CROSS = (*GRADIENT, DEVICES, "objective.latency_ratio=0.37")


def searched(folder, words):
    load_builtins()
    folder.mkdir(exist_ok=True)
    done = command("search", "--run", "one", *words, folder=folder)
    assert done.code == 0, done.err
    return folder / "runs" / "one"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished family, and the events of its stages."""
    load_builtins()
    folder = tmp_path_factory.mktemp("family")
    done = command("search", "--run", "one", *GRADIENT, TARGETS, folder=folder)
    assert done.code == 0, done.err
    return folder / "runs" / "one", done.events


@pytest.fixture
def family(made):
    return made[0]


@pytest.fixture(scope="module")
def on_two_devices(tmp_path_factory):
    return searched(tmp_path_factory.mktemp("devices"), CROSS)


@pytest.mark.slow  # whole runs
@pytest.mark.parametrize("words", [GRADIENT, RANDOM], ids=["gradient", "proposals"])
def test_a_family_of_one_is_the_single_run(words, tmp_path):
    single = searched(tmp_path / "single", (*words, f"objective.latency_target_s={SMALL_S}"))
    alone = searched(tmp_path / "family", (*words, f"family.latency_targets_s=[{SMALL_S}]"))
    of_family = results(alone / "agents" / NAMES[0])
    method = of_family["architecture"]["derived_by"]["method"]
    own = results(single)["architecture"]["derived_by"]["method"]
    assert method in (own, f"{own} that meet the targets")
    of_family["architecture"]["derived_by"]["method"] = results(single)["architecture"]["derived_by"]["method"]
    assert_equal(of_family, results(single))


def test_rollouts_go_by_each_target_in_turn_and_every_agent_keeps_its_own(family):
    lines = [line for line in RunDir.open(family).read_metrics() if line["stage"] == "search"]
    assert [line["agent"] for line in lines] == [NAMES[i % 2] for i in range(4)]
    learned = lines[1:]  # after the warm-up the target bounds what is drawn
    for line, target_s in zip(learned, (LARGE_S, SMALL_S, LARGE_S)):
        assert line["latency_expected_s"] <= target_s * 1.05  # logged after the update, whose logits have moved since
    assert learned[1]["latency_expected_s"] < 0.97 * min(learned[i]["latency_expected_s"] for i in (0, 2))
    for name, target_s in zip(NAMES, (SMALL_S, LARGE_S)):
        agent = family / "agents" / name
        summary = json.loads((agent / "summary.json").read_text())
        predicted = predict_architecture(agent / "architecture.json", find_table("jetson"))["latency_s"]
        assert summary["latency_target_s"] == target_s and predicted <= target_s
        assert (agent / "agent" / "run_agent.py").is_file() and (agent / "report.html").is_file()
        own = [line for line in RunDir.open(agent).read_metrics() if line["stage"] == "search"]
        assert [line["step"] for line in own] == [line["step"] for line in lines]
        assert ["latency_expected_s" in line for line in own] == [line["agent"] == name for line in lines]
    steps = [json.loads((family / "agents" / name / "summary.json").read_text())["env_steps"] for name in NAMES]
    record = RunDir.open(family).read(Family)
    assert record.search_steps == 128 and record.env_steps == sum(steps) - 128


@pytest.mark.parametrize(
    "stage, share",
    [
        pytest.param("search", 0.5, marks=pytest.mark.slow),
        ("search", 0.9),
        pytest.param("retrain", 0.7, marks=pytest.mark.slow),
        pytest.param("finish", 0.4, marks=pytest.mark.slow),
        pytest.param("finish", 0.95, marks=pytest.mark.slow),
    ],
)
def test_a_killed_family_goes_on_where_it_stood(stage, share, made, tmp_path):
    """At 0.9 of the search's events the folders of the agents are being made."""
    family, events = made
    moment = Moment(stage, int(share * events[stage]))
    assert command("search", "--run", "one", *GRADIENT, TARGETS, folder=tmp_path, moment=moment).code < 0
    done = command("resume", "runs/one", folder=tmp_path)
    assert done.code == 0, done.err
    run = tmp_path / "runs" / "one"
    for name in NAMES:
        assert_equal(results(run / "agents" / name), results(family / "agents" / name))
    found, expected = (without_clocks(RunDir.open(path).read_json("family.json")) for path in (run, family))
    assert found == expected
    again = command("resume", "runs/one", folder=tmp_path)
    assert again.code == 0 and "is finished" in again.err and json.loads((run / "family.json").read_text())


@pytest.mark.slow
def test_a_finished_agent_is_not_made_again(made, tmp_path):
    _, events = made
    moment = Moment("finish", int(0.7 * events["finish"]))
    assert command("search", "--run", "one", *GRADIENT, TARGETS, folder=tmp_path, moment=moment).code < 0
    first = tmp_path / "runs/one/agents" / NAMES[0] / "summary.json"
    written = first.stat().st_mtime_ns
    resumed = command("resume", "runs/one", folder=tmp_path)
    assert resumed.code == 0 and first.stat().st_mtime_ns == written
    assert "agent 2 of 2" in resumed.err and "agent 1 of 2" not in resumed.err


@pytest.mark.slow
@pytest.mark.parametrize("bracket", [1, 3])
def test_agents_with_the_same_network_share_a_retraining_that_would_be_equal(bracket, tmp_path, monkeypatch):
    steps = 96 if bracket == 1 else 640
    words = [word for word in GRADIENT if not word.startswith("budget.retrain_steps")]
    words += [f"budget.retrain_steps={steps}", f"budget.bracket={bracket}", "family.latency_targets_s=[0.0005, 0.0006]"]
    plan = make_plan(resolve(overrides=words))  # every network is faster
    shared = start_run(plan, tmp_path / "shared", "one", "a test", Silent()).path / "agents"
    monkeypatch.setattr("cosearch.pipeline.run.share_training", lambda run, plan, finished: None)
    apart = start_run(plan, tmp_path / "apart", "one", "a test", Silent()).path / "agents"
    assert RunDir.open(shared / "0.6ms").read(RunRecord).trained_as == "0.5ms"
    assert RunDir.open(apart / "0.6ms").read(RunRecord).trained_as is None
    for name in ("0.5ms", "0.6ms"):
        assert_equal(results(shared / name), results(apart / name))
    once, twice = (RunDir.open(path.parent).read(Family).env_steps for path in (shared, apart))
    assert (once, twice) == (128 + steps, 128 + 2 * steps)


@pytest.mark.parametrize(
    "began, other, shares",
    [
        ([A], [A], True),
        ([A, B], [A, B], True),  # whichever of them the bracket left
        ([A, B], [B], False),  # the same network as the bracket left, of a retraining of its own
        ([A, B], [B, A], False),
    ],
)
def test_a_retraining_is_shared_by_those_that_begin_with_the_same_networks(began, other, shares, tmp_path):
    plan = make_plan(resolve(overrides=[*GRADIENT, "objective.latency_target_s=0.0005"]))

    def folder(name, choices):
        run = RunDir.create(tmp_path, name, to_json(plan.record("a test")))
        write_architecture(plan, run, plan.space.architecture(choices[0]), Derivation(method=f"of {name}"))
        (run.path / "metrics.jsonl").write_bytes(b"")
        first, *others = [Candidate(each, {}) for each in choices]
        return run, SearchOutput(first.choices, first.weights, 128, tuple(others))

    twin, searched = folder("twin", began)
    left = began[-1]
    if len(began) > 1:
        bracket = tuple(BracketRecord(choices=each, latency_s=1.0, env_steps=32, losses=(0.5,)) for each in began)
        write_winner(plan, twin, left, twin.read(ArchitectureRecord).derived_by, bracket)
    done = StageOutputs(SearchOutput(left, {}, 128), RetrainOutput({}, 96))
    twin.save_checkpoint(Checkpoint("done", {"seed": 0}, outputs=done, ordinal=3).to_dict(), 3)
    own, searched = folder("own", other)
    own.save_checkpoint(Checkpoint("retrain", {"seed": 0}, outputs=StageOutputs(searched), ordinal=1).to_dict(), 1)
    assert share_training(own, plan, {"twin": plan}) == ("twin" if shares else None)
    after, record = Checkpoint.from_dict(own.load_checkpoint()), own.read(ArchitectureRecord)
    assert after.stage == ("finish" if shares else "retrain")
    assert after.outputs.search.choices == record.choices == (left if shares else other[0])
    assert record.derived_by.method.startswith("of own") and (THEN in record.derived_by.method) is (shares and len(began) > 1)


class Stopped(BaseException):
    """The process ends here."""


def stopped(self, state, tag):
    raise Stopped


def test_a_sharing_that_was_interrupted_leaves_no_line_of_the_log_twice(tmp_path, monkeypatch):
    plan = make_plan(resolve(overrides=[*GRADIENT, "objective.latency_target_s=0.0005"]))
    search, retrain = ([{"stage": stage, "step": step, "wall_s": 1.0} for step in (32, 64)] for stage in ("search", "retrain"))
    runs, began = [], SearchOutput(A, {}, 64)
    for name, lines in (("twin", [*search, *retrain]), ("own", search)):
        run = RunDir.create(tmp_path, name, to_json(plan.record("a test")))
        write_architecture(plan, run, plan.space.architecture(A), Derivation(method="of a test"))
        for line in lines:
            run.append_metrics(line)
        runs.append(run)
    twin, own = runs
    twin.save_checkpoint(Checkpoint("done", {}, outputs=StageOutputs(began, RetrainOutput({}, 64)), ordinal=3).to_dict(), 3)
    own.save_checkpoint(Checkpoint("retrain", {}, outputs=StageOutputs(began), ordinal=1).to_dict(), 1)
    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "save_checkpoint", stopped)
        with pytest.raises(Stopped):
            share_training(own, plan, {"twin": plan})
    assert share_training(own, plan, {"twin": plan}) == "twin"
    assert own.read_metrics() == [*search, *retrain]


@pytest.mark.slow
def test_an_agent_that_was_to_share_a_retraining_and_made_its_own_counts_its_steps(tmp_path, monkeypatch):
    words = ["family.latency_targets_s=[0.0005, 0.0006]"]
    plan = make_plan(resolve(overrides=[*GRADIENT, *words]))  # every network is faster

    def interrupted(run, plan, finished):
        with monkeypatch.context() as patch:
            patch.setattr(RunDir, "save_checkpoint", stopped)
            return share_training(run, plan, finished)

    with monkeypatch.context() as patch:
        patch.setattr("cosearch.pipeline.run.share_training", interrupted)
        with pytest.raises(Stopped):
            start_run(plan, tmp_path, "one", "a test", Silent())
    family, agent = tmp_path / "one", tmp_path / "one" / "agents" / "0.6ms"
    assert not (agent / "agent.json").exists()
    resume_run(agent, Silent())
    resume_run(family, Silent())
    assert RunDir.open(agent).read(RunRecord).trained_as is None
    assert RunDir.open(family).read(Family).env_steps == 128 + 2 * 96
    steps = [line["step"] for line in RunDir.open(agent).read_metrics() if line["stage"] == "retrain"]
    assert steps == [32, 64, 96]
    assert results(agent)["onnx"] == results(family / "agents" / "0.5ms")["onnx"]


@pytest.mark.slow
def test_each_candidate_is_asked_for_under_one_target_and_all_serve_both(tmp_path):
    run = searched(tmp_path, (*RANDOM, TARGETS))
    for name, target_s in zip(NAMES, (SMALL_S, LARGE_S)):
        architecture = json.loads((run / "agents" / name / "architecture.json").read_text())
        candidates = architecture["derived_by"]["candidates"]
        assert len(candidates) == 4 and all(candidates[i]["latency_s"] <= SMALL_S for i in (0, 2))
        within = [one for one in candidates if one["latency_s"] <= target_s]
        best = max(within, key=lambda one: float("-inf") if one["score"] is None else one["score"])
        assert architecture["choices"] == best["choices"]
    assert any(one["latency_s"] > SMALL_S for one in candidates)  # asked for under the looser target


@pytest.mark.slow  # whole runs
def test_largest_is_the_largest_within_each_target(tmp_path):
    words = [word for word in RANDOM if not word.startswith("strategy")]
    targets_s = (0.00022, 0.00033)
    asked = f"family.latency_targets_s={json.dumps(targets_s)}"
    run = searched(tmp_path, (*words, "strategy.name=largest", "budget.retrain_steps=0", asked))
    found = [json.loads((run / "agents" / name / "summary.json").read_text())["macs"] for name in ("0.22ms", "0.33ms")]
    space, table = make_plan(resolve(overrides=[*words, f"objective.latency_target_s={SMALL_S}"])).space, find_table("jetson")
    networks = [
        space.architecture(choices).ops() for choices in itertools.product(*(range(len(p.candidates)) for p in space.points))
    ]
    figures = [(table.predict(ops).latency_s, sum(op.macs for op in ops)) for ops in networks]
    most = [max(macs for latency_s, macs in figures if latency_s <= target_s) for target_s in targets_s]
    assert found == most and most[0] < most[1]


def test_the_table_of_devices_is_what_predict_says(on_two_devices):
    record = RunDir.open(on_two_devices).read(Family)
    assert [agent.name for agent in record.agents] == ["jetson", "raspberry-pi-4"]
    for agent in record.agents:
        file = on_two_devices / "agents" / agent.name / "architecture.json"
        for device in record.devices:
            predicted = predict_architecture(file, find_table(device.name))["latency_s"]
            assert agent.latency_predicted_s[device.name] == pytest.approx(predicted, rel=1e-12)
        own = next(device for device in record.devices if device.name == agent.device)
        assert (
            agent.latency_predicted_s[agent.device] <= agent.latency_target_s and agent.latency_target_s in own.latency_targets_s
        )
        assert agent.latency_measured_s.keys() == {"this machine"}
    page = (on_two_devices / "report.html").read_text()
    assert "Each agent on each device" in page and page.count("cosearch deploy ") == 2 and "://" not in page
    for agent in record.agents:
        assert f'href="agents/{agent.name}/report.html"' in page


def test_the_table_of_devices_judges_no_p99_by_a_median(on_two_devices, tmp_path):
    folder = shutil.copytree(on_two_devices, tmp_path / "one")
    assert render_family_page(RunDir.open(folder)).count("<small>target") == 0
    began, family = json.loads((folder / "run.json").read_text()), json.loads((folder / "family.json").read_text())
    began["targets"][0] |= {"statistic": "p99", "at": "period"}
    family["agents"][0]["result"]["target_met"] = None
    (folder / "run.json").write_text(json.dumps(began))
    (folder / "family.json").write_text(json.dumps(family))
    page = render_family_page(RunDir.open(folder))
    assert page.count("<small>target") == 4 and "<small>within" not in page and '<td class="quiet">not known</td>' in page
    assert page.count(">yes") == 1 and "1 of 2 within" in page


@pytest.mark.slow
def test_deploy_export_and_report_take_one_agent(family, tmp_path):
    run = tmp_path / "runs" / "one"
    searched(tmp_path, (*GRADIENT, "budget.retrain_steps=0", TARGETS))
    before = json.loads((run / "family.json").read_text())
    wrong = command("deploy", "runs/one", "--agent", "9ms", folder=tmp_path)
    assert wrong.code == 2 and "0.26ms, 0.33ms" in wrong.err
    for words in (("deploy", "runs/one"), ("evaluate", "runs/one"), ("video", "runs/one")):
        refused = command(*words, folder=tmp_path)
        assert refused.code == 2 and re.search(r"holds 2 agents .*runs/one/agents/0.26ms", refused.err.replace("\n", ""))
    with pytest.raises(RunFolderError, match="holds 2 agents"):
        load_run(run)
    done = command("deploy", "runs/one", "--agent", NAMES[1], "--name", "jetson", "--seconds", "0.3", folder=tmp_path)
    assert done.code == 0, done.err
    after = json.loads((run / "family.json").read_text())
    assert after["agents"][1]["latency_measured_s"]["jetson"] > 0 and after["agents"][0] == before["agents"][0]
    assert after["agents"][1]["result"]["target_checked_by"] == "measurement on jetson"
    assert "measured there" in (run / "report.html").read_text()
    (run / "report.html").unlink()
    assert command("report", "runs/one", folder=tmp_path).code == 0 and (run / "report.html").is_file()
    assert command("export", "runs/one", "--agent", NAMES[0], folder=tmp_path).code == 0
    assert command("resume", f"runs/one/agents/{NAMES[0]}", folder=tmp_path).code == 0


@pytest.mark.parametrize(
    "words, said",
    [
        (["family.latency_targets_s=[0.0003, 0.0003]"], "twice"),
        (["family.latency_targets_s=" + json.dumps([0.0003 + i * 1e-5 for i in range(17)])], "at most 16"),
        (["family.latency_targets_s=[0.0003, 0.0003000000001]"], "same name"),
        (['family.devices=["zc706", "jetson"]', "objective.latency_ratio=5"], "an accelerator is searched with its agent"),
        ([*RANDOM[-1:], "strategy.name=random", TARGETS, "budget.search_steps=32"], "too few for 4 candidates"),
        (["device=jetson", DEVICES], "device=jetson has no effect beside family.devices"),
        (["device=pixel-3", DEVICES], "device=pixel-3 has no effect beside family.devices"),
        ([f"table={find_table('jetson').path}", DEVICES], "put it into that list"),
        ([TARGETS, "objective.latency_target_s=0.001"], "beside family.latency_targets_s"),
    ],
)
def test_lists_that_cannot_work_are_refused_before_anything_is_made(words, said):
    base = [word for word in GRADIENT if not word.startswith("strategy.") or "strategy.name" not in " ".join(words)]
    with pytest.raises(ConfigError, match=re.escape(said)):
        make_plan(resolve(overrides=[*base, *words]))


@pytest.mark.parametrize("lists", [[], [DEVICES], [TARGETS]], ids=["alone", "devices", "targets"])
def test_a_discount_that_a_run_takes_from_its_teacher_has_an_effect_in_a_family_too(lists, tmp_path):
    load_builtins()
    path = write_onnx(tmp_path / "mine.onnx", Flat(400, 3), (10, 10, 4))
    of_teacher = [f"distill.teacher={path}", "distill.gamma=0.97", "distill.critic=0"]
    words = [word for word in GRADIENT if not word.startswith(("distill.", "rl.gamma"))]
    targets = [] if lists == [TARGETS] else ["objective.latency_ratio=0.37"]
    plan = make_plan(resolve(overrides=[*words, *of_teacher, *targets, *lists]))
    assert {each.config.rl.gamma for each in plan.every} == {0.97} and len(plan.every) == (2 if lists else 1)
    with pytest.raises(ConfigError, match=r"distill\.gamma=0\.97 has no effect with distill\.critic=0 and rl\.gamma=0\.9"):
        make_plan(resolve(overrides=[*words, *of_teacher, *targets, *lists, "rl.gamma=0.9"]))


def test_a_target_that_no_agent_of_a_device_meets_is_said_with_the_device():
    with pytest.raises(InfeasibleTargetError, match="on raspberry-pi-4: no architecture"):
        make_plan(resolve(overrides=[*GRADIENT, DEVICES, "objective.latency_target_s=0.0003"]))


def test_a_comparison_refuses_lists(tmp_path):
    with pytest.raises(ConfigError, match="one device and one latency target, got a list"):
        planned_runs(
            tmp_path, ["random"], [0], ["minatar:breakout"], preset="smoke", options={"family.devices": ["jetson", "pixel-3"]}
        )


def test_a_forecast_names_each_agent():
    plan = make_plan(resolve(overrides=[*GRADIENT, DEVICES, "family.latency_targets_s=[0.0005, 0.001]"]))
    made = forecast(plan)
    names = ["jetson-0.5ms", "jetson-1ms", "raspberry-pi-4-0.5ms", "raspberry-pi-4-1ms"]
    assert [agent["name"] for agent in made.to_json()["agents"]] == names and all(name in made.text() for name in names)
    alone = forecast(make_plan(resolve(overrides=[*GRADIENT, "objective.latency_target_s=0.0005"])))
    assert "agents" not in alone.to_json() and made.expected_s > alone.expected_s + 3 * 40
