"""``deploy --until-under``: an agent that is over on its device is replaced until one holds; this machine is the board."""

import time
from dataclasses import replace

import pytest
from made_table import made_table
from pipeline_runs import TINY, Silent, changed

from cosearch.cli.app import main
from cosearch.config.run import resolve
from cosearch.deploy import deployment
from cosearch.deploy.readings import Meter, Readings
from cosearch.overview.rows import Reader
from cosearch.pipeline.run import resume_run, work_on
from cosearch.pipeline.session import Checkpointing, open_session
from cosearch.pipeline.shared_weights import shared_supernet, weights_of
from cosearch.pipeline.target import on_board
from cosearch.planning.plan import make_plan
from cosearch.record.json_record import to_json
from cosearch.record.results.agent import AgentRecord
from cosearch.record.results.architecture import ArchitectureRecord
from cosearch.record.results.summary import Summary
from cosearch.record.results.target_rounds import TargetRounds
from cosearch.record.rundir import RunDir
from cosearch.report.data import read_run
from latency_tables.board.timing import Visit

pytest.importorskip("minatar", reason="MinAtar is not installed")
TARGET_S = 0.00012
WORDS = (
    *(word for word in TINY if not word.startswith("objective")),
    *("env.name=minatar:breakout", "budget.clip_frames=0", f"objective.latency_target_s={TARGET_S}"),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    plan = make_plan(resolve(overrides=[*WORDS, f"table={made_table(folder / 'board.jsonl', WORDS, device='board')}"]))
    run = RunDir.create(folder / "runs", "one", to_json(plan.record("a test")))
    work_on(open_session(run, plan, Silent()))
    return run, plan


def test_where_a_moved_table_lies_is_said_to_the_verb_that_reads_it(finished, capsys, tmp_path):
    run, _ = finished
    words = ["deploy", str(run.path), "--table", str(tmp_path / "none.jsonl"), "--quiet"]
    assert main(words) == 2 and "only --until-under reads" in capsys.readouterr().err
    assert main([*words, "--until-under"]) == 2
    said = capsys.readouterr().err
    assert "none.jsonl" in said and "No such option" not in said


def boards(monkeypatch, deployed, measured, here=None):
    """Slower boards: what agents measure that are deployed there, and networks with random weights, as shares of the target.

    This machine reads by ``here``, where that is given.
    """
    shares, others = iter(deployed), iter(measured)
    real, keep = deployment.deploy, deployment._keep

    def slow_deploy(path, request, note):
        """The real one, with what a slower board would measure."""
        share = next(shares)
        slow = lambda found: replace(  # noqa: E731
            found, measured=replace(found.measured, p50_s=share * TARGET_S), target_met=share <= 1
        )
        monkeypatch.setattr(deployment, "_keep", lambda run, found: keep(run, slow(found)))
        return slow(real(path, request, note))

    def read(self, model, targets):
        if here is not None and self.device == "this machine":
            return here(self, model, targets)
        value = next(others) * TARGET_S
        assert self.location.host is None and (self.device == "this machine" or self.seconds == pytest.approx(0.2))
        return Readings(1000, [Visit(value, value, value, value, value, value, value, 9, 1, 1.0)] * 3)

    monkeypatch.setattr(on_board, "deploy", slow_deploy)
    monkeypatch.setattr(Meter, "read", read)


def test_an_agent_that_is_over_there_is_replaced_until_one_holds(finished, monkeypatch, capsys):
    run, plan = finished
    first = run.read(ArchitectureRecord).choices
    assert run.read(Summary).target_rounds == () and run.read(Summary).target_checked_by == "prediction (synthetic table)"
    boards(monkeypatch, deployed=[1.3, 0.9], measured=[1.05, 0.97])
    words = ["deploy", str(run.path), "--name", "pi", "--seconds", "0.6", "--until-under", "--quiet"]
    assert main(words) == 0
    rounds, summary = run.read(TargetRounds), run.read(Summary)
    assert [each.retraining for each in rounds.rounds] == ["after", "before", "before", "after"]
    assert [each.measured_on for each in rounds.rounds] == ["pi"] * 4 and rounds.outcome == "holds" and rounds.deployed == 3
    chosen = run.read(ArchitectureRecord).choices
    assert chosen == rounds.rounds[3].choices == rounds.rounds[2].choices != first == rounds.rounds[0].choices
    assert summary.latency_measured_on == "pi" and summary.target_met and summary.target_rounds == rounds.rounds
    assert summary.targets[0].measured == summary.latency_measured_s == pytest.approx(0.9 * TARGET_S)
    assert "Measured on the device, until it held" in (run.path / "report.html").read_text()
    architecture = plan.space.architecture(chosen)
    weights = run.load_checkpoint()["stage_outputs"]["searched_weights"]
    assert not changed(weights, weights_of(architecture, plan, shared_supernet(run, plan)))


def test_without_rounds_it_is_refused(finished, tmp_path, capsys):
    run, _ = finished
    assert main(["deploy", str(run.path), "--tracker", "127.0.0.1:1", "--until-under"]) == 2
    assert "use --host" in capsys.readouterr().err


@pytest.mark.slow
def test_rounds_of_files_alone_and_of_other_boards_do_not_count_there(finished, tmp_path, monkeypatch, capsys):
    table = finished[1].config.table
    plan = make_plan(resolve(overrides=[*WORDS, f"table={table}", "objective.file_target_bytes=60000"]))
    run = RunDir.create(tmp_path / "runs", "one", to_json(plan.record("a test")))
    work_on(open_session(run, plan, Silent()))
    files = run.read(TargetRounds).rounds
    assert files[-1].holds and all(len(each.figures) == 1 for each in files)
    words = ["deploy", str(run.path), "--seconds", "0.6", "--until-under", "--quiet"]
    for board in ("pi", "another pi"):
        with monkeypatch.context() as patch:
            boards(patch, deployed=[1.3, 0.97], measured=[0.96], here=Meter.read)
            assert main([*words, "--name", board]) == 0
        there = [each for each in run.read(TargetRounds).rounds if each.measured_on == board]
        assert [each.retraining for each in there] == ["after", "before", "after"]
        assert [each.holds for each in there] == [False, True, True]
        assert {len(each.figures) for each in there} == {2}
        assert run.read(Summary).target_met and run.read(ArchitectureRecord).choices == there[-1].choices != there[0].choices


@pytest.mark.slow
def test_an_agent_for_a_board_is_not_replaced_for_what_it_measures_here(tmp_path, monkeypatch, capsys):
    plan = make_plan(resolve(overrides=[*WORDS, f"table={made_table(tmp_path / 'this.jsonl', WORDS, device='this')}"]))
    run = RunDir.create(tmp_path / "runs", "one", to_json(plan.record("a test")))
    boards(monkeypatch, deployed=[], measured=[0.97, 0.97])
    work_on(open_session(run, plan, Silent()))
    boards(monkeypatch, deployed=[1.3, 0.97], measured=[0.96, 1.2])  # here the second one is over, on the board it is not
    assert main(["deploy", str(run.path), "--seconds", "0.6", "--until-under", "--quiet", "--name", "pi"]) == 0
    rounds = run.read(TargetRounds).rounds
    assert [(each.measured_on, each.holds) for each in rounds[2:]] == [
        *(("pi", False), ("pi", True), ("this machine", False), ("pi", True)),
    ]
    assert run.read(ArchitectureRecord).choices == rounds[3].choices == rounds[5].choices


def test_killed_while_another_takes_its_place_the_record_is_of_the_agent_that_is_there(finished, monkeypatch):
    class Stopped(BaseException):
        """The process ends here."""

    def killed(self, stage, search):
        assert search.choices != before.choices
        raise Stopped

    run, _ = finished
    before = run.read(ArchitectureRecord)
    boards(monkeypatch, deployed=[1.3], measured=[0.97])
    monkeypatch.setattr(Checkpointing, "begin_again", killed)
    with pytest.raises(Stopped):
        main(["deploy", str(run.path), "--name", "a third pi", "--seconds", "0.6", "--until-under", "--quiet"])
    assert run.read(ArchitectureRecord) == before and run.read(AgentRecord).architecture == before.choice_names


def test_killed_while_it_is_retrained_the_run_is_unfinished_and_no_figure_is_of_the_agent_before(finished, monkeypatch):
    class Stopped(BaseException):
        """The process ends here."""

    def killed(*args, **others):
        raise Stopped

    run, plan = finished
    before = run.read(ArchitectureRecord)
    words = ["deploy", str(run.path), "--name", "a fourth pi", "--seconds", "0.6", "--until-under", "--quiet"]
    with monkeypatch.context() as patch:
        boards(patch, deployed=[1.3], measured=[0.97])
        patch.setattr("cosearch.pipeline.run.run_retrain", killed)
        with pytest.raises(Stopped):
            main(words)
    now, read = run.read(ArchitectureRecord), read_run(run.path)
    assert now.choices != before.choices and not read.finished and read.agent is None and read.clip is None
    ((row,), passed) = Reader().rows([run.path], time.time() + 3600)
    assert not passed and row.state == "idle" and row.score_mean is None and row.architecture == now.choice_names
    ops = plan.space.architecture(now.choices).ops()
    assert row.macs == sum(op.macs for op in ops) and row.latency_measured_s is None
    assert row.latency_predicted_s == pytest.approx(plan.hardware.predict(ops).latency_s)
    for verb in ("evaluate", "deploy"):
        assert main([verb, str(run.path)]) == 2
    resume_run(run.path, Silent())
    ((row,), _) = Reader().rows([run.path], time.time() + 3600)
    assert row.state == "finished" and row.architecture == now.choice_names == run.read(AgentRecord).architecture
