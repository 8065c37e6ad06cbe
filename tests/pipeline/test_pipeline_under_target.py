"""A run whose agent is measured on its device: architectures that are over are replaced, before and after the retraining."""

import json

import pytest
from made_table import made_table
from pipeline_runs import TINY, Silent, changed, without_clocks

from cosearch.config.run import resolve
from cosearch.deploy.measure import AgentLatency, SideBySide
from cosearch.deploy.readings import Meter, Readings
from cosearch.pipeline.agent import finish
from cosearch.pipeline.checkpoint import Checkpoint
from cosearch.pipeline.run import export_again, work_on
from cosearch.pipeline.session import Checkpointing, open_session
from cosearch.pipeline.shared_weights import shared_supernet, weights_of
from cosearch.pipeline.target.repair import MEASURED
from cosearch.planning.plan import make_plan
from cosearch.record.json_record import to_json
from cosearch.record.results.agent import AgentRecord, MeasuredLatency, PacedLatency
from cosearch.record.results.architecture import ArchitectureRecord
from cosearch.record.results.summary import Summary
from cosearch.record.results.target_rounds import TargetRounds
from cosearch.record.rundir import RunDir
from cosearch.report.data import read_run
from cosearch.report.facts import facts, verdict
from latency_tables.board.timing import Visit

pytest.importorskip("minatar", reason="MinAtar is not installed")
WORDS = (*(w for w in TINY if not w.startswith("objective")), "env.name=minatar:breakout", "budget.clip_frames=0")
TARGET_S = 0.00012


def plan_of(folder, *words, device="this"):
    path = folder / f"{device}.jsonl"
    if not path.exists():
        made_table(path, WORDS, device=device)
    given = {word.partition("=")[0] for word in words}
    base = [word for word in (*WORDS, f"objective.latency_target_s={TARGET_S}") if word.partition("=")[0] not in given]
    return make_plan(resolve(overrides=[*base, f"table={path}", *words]))


def says(monkeypatch, *values):
    """A device that measures these shares of the target, one after the other."""
    left = list(values)

    def read(self, model, targets):
        share = left.pop(0)
        if isinstance(share, BaseException):
            raise share
        value = share * TARGET_S
        return Readings(1000, [Visit(value, value, value, value, value, value, value, 9, 1, 1.0)] * 3, runtime_version="1")

    monkeypatch.setattr(Meter, "read", read)
    return left


def made(folder, plan, name="one"):
    run = RunDir.create(folder / name, "one", to_json(plan.record("a test")))
    work_on(open_session(run, plan, Silent()))
    return run


class Notes(Silent):
    """Keeps what it is told."""

    def __init__(self):
        self.texts = []

    def note(self, text):
        self.texts.append(text)


class Stopped(BaseException):
    """The process ends here."""


def test_over_before_the_retraining_costs_no_retraining(tmp_path, monkeypatch):
    plan = plan_of(tmp_path)
    left = says(monkeypatch, 1.4, 1.02, 0.97, 0.98)
    run = made(tmp_path, plan)
    rounds, summary = run.read(TargetRounds), run.read(Summary)
    assert not left and [each.retraining for each in rounds.rounds] == ["before"] * 3 + ["after"]
    assert [each.holds for each in rounds.rounds] == [False, False, True, True]
    predicted = [each.figures[0].predicted for each in rounds.rounds]
    assert predicted[0] > predicted[1] > predicted[2] == predicted[3]
    assert predicted[1] <= rounds.rounds[1].figures[0].bound < TARGET_S / 1.4
    assert rounds.outcome == "holds" and rounds.deployed == 3
    assert run.read(ArchitectureRecord).choices == rounds.rounds[3].choices != rounds.rounds[0].choices
    assert run.read(AgentRecord).architecture == rounds.rounds[3].choice_names
    assert summary.env_steps == 128 + 96 and summary.target_rounds == rounds.rounds and summary.deployed_round == 4
    assert summary.target_met and summary.target_checked_by == "measurement"
    assert summary.latency_measured_s == summary.targets[0].measured == pytest.approx(0.98 * TARGET_S)
    assert run.read(AgentRecord).latency.measured.p50_s == summary.latency_measured_s


def test_over_after_the_retraining_the_next_one_is_retrained_briefly_from_shared_weights(tmp_path, monkeypatch):
    plan = plan_of(tmp_path, "budget.repair_share=0.4")
    says(monkeypatch, 0.97, 1.1, 0.96, 0.99)
    run = made(tmp_path, plan)
    rounds, summary = run.read(TargetRounds), run.read(Summary)
    assert [each.retraining for each in rounds.rounds] == ["before", "after", "before", "after"]
    assert rounds.rounds[0].choices == rounds.rounds[1].choices != rounds.rounds[2].choices == rounds.rounds[3].choices
    assert summary.env_steps == 128 + 96 + 64  # 0.4 of 96, in whole rollouts of 32
    log = [line["step"] for line in run.read_metrics() if line["stage"] == "retrain"]
    assert log == list(range(32, 161, 32))
    outputs = Checkpoint.from_dict(run.load_checkpoint()).outputs
    chosen = plan.space.architecture(rounds.rounds[3].choices)
    assert outputs.search.choices == chosen.choices and outputs.search.brief and outputs.search.retrained_steps == 96
    assert not changed(outputs.search.weights, weights_of(chosen, plan, shared_supernet(run, plan)))
    assert summary.target_met and rounds.deployed == 3 and run.read(AgentRecord).architecture == tuple(chosen.choice_names)


VALUES = (1.2, 0.97, 1.1, 0.96, 0.99)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        says(patch, *VALUES)
        return made(folder, plan_of(folder))


@pytest.mark.parametrize("stop", [pytest.param(2, marks=pytest.mark.slow), 4, pytest.param(5, marks=pytest.mark.slow)])
def test_stopped_at_a_measurement_it_goes_on_to_the_same(stop, whole, tmp_path, monkeypatch):
    plan = plan_of(tmp_path)
    says(monkeypatch, *VALUES[: stop - 1], Stopped())
    run = RunDir.create(tmp_path / "stopped", "one", to_json(plan.record("a test")))
    with pytest.raises(Stopped):
        work_on(open_session(run, plan, Silent()))
    says(monkeypatch, *VALUES[2 if stop == 4 else stop - 1 :])  # a finish that was stopped measures the agent again
    work_on(open_session(run, plan, Silent()))
    names = ("architecture.json", "evaluation.json")
    assert [run.read_json(name) for name in names] == [whole.read_json(name) for name in names]
    assert (run.path / "agent.onnx").read_bytes() == (whole.path / "agent.onnx").read_bytes()
    assert [without_clocks(line) for line in run.read_metrics()] == [without_clocks(line) for line in whole.read_metrics()]
    without_load = [
        [{**each, "load": 0} for each in json.loads((folder.path / "rounds.json").read_text())["rounds"]]
        for folder in (run, whole)
    ]
    assert without_load[0] == without_load[1]


@pytest.mark.slow
def test_where_nothing_can_the_run_ends_and_says_so(tmp_path, monkeypatch):
    plan = plan_of(tmp_path)
    says(monkeypatch, *([3.0] * 12))
    run = made(tmp_path, plan)
    summary = run.read(Summary)
    assert summary.rounds_outcome == "nothing can" and not summary.target_met
    assert summary.target_rounds[-1].retraining == "after" and summary.deployed_round == len(summary.target_rounds)
    says(monkeypatch, 2.0)  # done again it measures again and makes no other agent
    export_again(run.path, Silent())
    again = RunDir.open(run.path).read(Summary)
    assert len(again.target_rounds) == len(summary.target_rounds) and again.target_rounds[-1].figures[0].measured == 2 * TARGET_S


@pytest.mark.slow
@pytest.mark.parametrize("before", [(0.97,), (0.7, 0.95)])  # no other architecture held; another one did
def test_an_agent_that_is_measured_again_and_is_over_then_does_not_hold(before, tmp_path, monkeypatch):
    says(monkeypatch, *before, 0.96)
    run = made(tmp_path, plan_of(tmp_path))
    assert run.read(Summary).rounds_outcome == run.read(TargetRounds).outcome == "holds"
    says(monkeypatch, 1.2)
    notes = Notes()
    export_again(run.path, notes)
    summary = RunDir.open(run.path).read(Summary)
    assert not summary.target_met and summary.rounds_outcome == run.read(TargetRounds).outcome == "over"
    assert any(text.startswith("over its targets") for text in notes.texts) and "within its targets" not in " ".join(notes.texts)


def test_the_measurement_after_the_retraining_is_no_round_of_the_budget(tmp_path, monkeypatch):
    says(monkeypatch, 1.2, 1.2)
    notes, plan = Notes(), plan_of(tmp_path, "budget.repair_rounds=1")
    run = RunDir.create(tmp_path / "one", "one", to_json(plan.record("a test")))
    work_on(open_session(run, plan, notes))
    told = [text.partition(":")[0] for text in notes.texts if text.startswith("round ")]
    assert told == ["round 1 of at most 1, before the retraining", "round 2, after the retraining"]
    assert run.read(TargetRounds).outcome == "rounds used up" and any("repair_rounds=1) are used up" in t for t in notes.texts)


@pytest.mark.parametrize("when", ["before", pytest.param("after", marks=pytest.mark.slow)])
def test_killed_while_another_takes_its_place_the_record_is_of_the_agent(when, tmp_path, monkeypatch):
    plan = plan_of(tmp_path)
    says(monkeypatch, 0.97, 1.1, 0.96)
    save = Checkpointing.begin_again

    def killed(self, stage, search):
        if when == "after":
            save(self, stage, search)
        raise Stopped

    run = RunDir.create(tmp_path / "one", "one", to_json(plan.record("a test")))
    with monkeypatch.context() as patch:
        patch.setattr(Checkpointing, "begin_again", killed)
        with pytest.raises(Stopped):
            work_on(open_session(run, plan, Silent()))
    first, _, second = (each.choices for each in run.read(TargetRounds).rounds)
    assert first != second and run.read(ArchitectureRecord).choices == first
    says(monkeypatch, 0.99)  # measured again the first one holds; else the second one follows
    work_on(open_session(RunDir.open(run.path), plan, Silent()))
    record, expected = run.read(ArchitectureRecord), first if when == "before" else second
    assert record.choices == expected and record.choice_names == run.read(AgentRecord).architecture
    assert record.predicted.latency_s == run.read(Summary).latency_predicted_s
    assert record.derived_by.method.endswith(MEASURED) is (when == "after")


@pytest.mark.parametrize(
    "words, share, met, checked_by",
    [
        ((), 1.2, False, "measurement"),
        (("objective.memory_target_bytes=1000000000",), 0.9, True, "prediction (synthetic table)"),  # nobody measured the memory
    ],
)
def test_without_rounds_the_timing_on_the_device_decides(words, share, met, checked_by, tmp_path, monkeypatch):
    calls = {"p50_s": share * TARGET_S, "p90_s": 1.0, "p99_s": 1.0, "samples": 9}
    ran = {"device": "this machine", "runtime": "onnxruntime", "runtime_version": "1", "threads": 1, "statistic": "median"}
    measured = MeasuredLatency(**calls, **ran, min_s=0.0, worst_p99_s=1.0, clean_share=1.0, rounds=5)
    timed = AgentLatency(measured, PacedLatency(**calls, max_s=1.0, missed=0, period_s=0.02))
    monkeypatch.setattr(finish, "measure_deployed", lambda *given, **options: SideBySide({"agent": timed}, {}, {}))
    run = made(tmp_path, plan_of(tmp_path, "budget.repair_rounds=0", "objective.file_target_bytes=1000000", *words))
    summary = run.read(Summary)
    latency, size, *others = summary.targets
    assert latency.predicted <= TARGET_S and latency.measured == summary.latency_measured_s == share * TARGET_S
    assert size.measured == (run.path / "agent.onnx").stat().st_size and [each.measured for each in others] == [None] * len(words)
    assert (latency.met, summary.target_met, summary.target_checked_by) == (met, met, checked_by)
    read = read_run(run.path)
    assert facts(read).holds is met and ("is broken" in verdict(read)) is not met


@pytest.mark.slow
def test_without_rounds_and_on_other_devices_nothing_is_measured_against_the_target(tmp_path, monkeypatch):
    says(monkeypatch)
    for name, plan in (
        ("none", plan_of(tmp_path, "budget.repair_rounds=0")),
        ("elsewhere", plan_of(tmp_path, device="elsewhere")),
    ):
        run = made(tmp_path, plan, name)
        assert not (run.path / "rounds.json").exists() and run.read(Summary).target_rounds == ()


def test_a_file_is_measured_for_every_device(tmp_path):
    plan = plan_of(tmp_path, "objective.latency_target_s=1", "objective.file_target_bytes=40000", device="elsewhere")
    run = made(tmp_path, plan)
    summary = run.read(Summary)
    figure = summary.target_rounds[-1].figures[0]
    assert (figure.metric, figure.measured) == ("file_bytes", (run.path / "agent.onnx").stat().st_size)
    assert figure.measured <= 40000 and figure.low == figure.high and summary.target_met
    assert summary.target_rounds[0].figures[0].measured > 40000 or figure.slack <= 0.08 or len(summary.target_rounds) == 2
    latency, size = summary.targets
    assert latency.measured is None and size.measured == figure.measured and summary.target_checked_by.startswith("prediction")
