"""``deploy --until-under``: an agent that is over on its device is replaced until one holds; this machine is the board."""

from dataclasses import replace

import pytest
from made_table import made_table
from pipeline_runs import TINY, Silent, changed

from cosearch.cli.app import main
from cosearch.config.run import resolve
from cosearch.deploy import deployment
from cosearch.deploy.readings import Meter, Readings
from cosearch.pipeline.run import work_on
from cosearch.pipeline.session import open_session
from cosearch.pipeline.shared_weights import shared_supernet, weights_of
from cosearch.pipeline.target import on_board
from cosearch.planning.plan import make_plan
from cosearch.record.json_record import to_json
from cosearch.record.results.architecture import ArchitectureRecord
from cosearch.record.results.summary import Summary
from cosearch.record.results.target_rounds import TargetRounds
from cosearch.record.rundir import RunDir
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


def test_an_agent_that_is_over_there_is_replaced_until_one_holds(finished, monkeypatch, capsys):
    run, plan = finished
    first = run.read(ArchitectureRecord).choices
    assert run.read(Summary).target_rounds == () and run.read(Summary).target_checked_by == "prediction (synthetic table)"
    shares, measured = iter([1.3, 0.9]), iter([1.05, 0.97])
    real, keep = on_board.deploy, deployment._keep

    def deployed(path, request, note):
        """The real one, with what a slower board would measure."""
        share = next(shares)
        slow = lambda found: replace(  # noqa: E731
            found, measured=replace(found.measured, p50_s=share * TARGET_S), target_met=share <= 1
        )
        monkeypatch.setattr(deployment, "_keep", lambda run, found: keep(run, slow(found)))
        return slow(real(path, request, note))

    def read(self, model, targets):
        value = next(measured) * TARGET_S
        assert (self.device, self.location.host) == ("pi", None) and self.seconds == pytest.approx(0.2)
        return Readings(1000, [Visit(value, value, value, value, value, value, value, 9, 1, 1.0)] * 3)

    monkeypatch.setattr(on_board, "deploy", deployed)
    monkeypatch.setattr(Meter, "read", read)
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
