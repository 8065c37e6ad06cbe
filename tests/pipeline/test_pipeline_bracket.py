"""The bracket at the begin of the retraining: exact steps, the same result however often it stops, the best goes on."""

import json
import math

import pytest
from made_table import made_table
from pipeline_runs import TINY, Silent, changed, without_clocks

from cosearch.config.run import resolve
from cosearch.pipeline.agent.bracket import THEN, Bracket
from cosearch.pipeline.run import TRAINING, work_on
from cosearch.pipeline.session import open_session
from cosearch.planning.budget import Rung, bracket_rungs
from cosearch.planning.plan import make_plan
from cosearch.record.json_record import to_json
from cosearch.record.run_record import FreshEpisodes, RunRecord
from cosearch.record.rundir import RunDir
from cosearch.training.stage import Training
from latency_tables.errors import ConfigError, NonFiniteError, RunFailedError

pytest.importorskip("minatar", reason="MinAtar is not installed")

WORDS = (*TINY, "env.name=minatar:breakout", "budget.retrain_steps=640", "budget.bracket=3")  # 20 rollouts of 32 steps


class Stopped(Exception):
    """The process ends here."""


class Stops(Silent):
    """A display that stops the run at its N-th line of the retraining."""

    def __init__(self, count):
        self.left = count

    def update(self, metrics):
        if metrics["stage"] == "retrain":
            self.left -= 1
            if self.left == 0:
                raise Stopped


def plan_of(*words):
    return make_plan(resolve(overrides=[*WORDS, *words]))


def made(folder, *words, stops=()):
    """The run folder after search and retraining, stopped and taken up again at these lines."""
    plan = plan_of(*words)
    run = RunDir.create(folder, "one", to_json(plan.record("a test")))
    for count in stops:
        with pytest.raises(Stopped):
            work_on(open_session(run, plan, Stops(count)), TRAINING)
    session = open_session(run, plan, Silent())
    work_on(session, TRAINING)
    return run, session.checkpoints.current.outputs


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return made(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    "candidates, steps, expected",
    [
        (1, 3200, [Rung(1, 3200)]),
        (4, 3200, [Rung(4, 96), Rung(2, 192), Rung(1, 2432)]),  # 100 rollouts of 32: 25 for two rungs
        (3, 3200, [Rung(3, 128), Rung(2, 192), Rung(1, 2432)]),
        (8, 32 * 13, [Rung(8, 32), Rung(4, 32), Rung(2, 32), Rung(1, -32)]),
        (2, 33, [Rung(2, 32), Rung(1, 0)]),
    ],
)
def test_rungs_take_the_retrainings_steps_exactly(candidates, steps, expected):
    config = resolve(overrides=[*TINY, f"budget.retrain_steps={steps}"])
    if expected[-1].steps < 1:
        with pytest.raises(ConfigError, match=f"too few for budget.bracket={candidates}"):
            bracket_rungs(config, candidates)
        return
    rungs = bracket_rungs(config, candidates)
    assert rungs == expected
    assert sum(rung.candidates * rung.steps for rung in rungs) == math.ceil(steps / 32) * 32


def test_too_few_steps_are_refused_before_the_run():
    with pytest.raises(ConfigError, match=r"too few for budget\.bracket=3"):
        plan_of("budget.retrain_steps=64")


def test_steps_log_and_record(whole):
    run, outputs = whole
    log = [line for line in run.read_metrics() if line["stage"] == "retrain"]
    assert [line["step"] for line in log] == list(range(32, 641, 32)) and outputs.retrain.steps == 640
    record = run.read_json("architecture.json")
    bracket = record["derived_by"]["bracket"]
    assert len(bracket) == 3 and len({tuple(one["choices"]) for one in bracket}) == 3
    assert record["choices"] == list(outputs.search.choices) and record["derived_by"]["method"].endswith(THEN)
    assert [len(one["losses"]) for one in bracket].count(2) == 2  # two of three took part in the second rung
    rungs = bracket_rungs(plan_of().config, 3)
    assert sorted(one["env_steps"] for one in bracket) == [rungs[0].steps] + [rungs[0].steps + rungs[1].steps] * 2
    finalists = [one for one in bracket if len(one["losses"]) == 2]
    assert record["choices"] == min(finalists, key=lambda one: one["losses"][1])["choices"]
    names = [line["candidate"] for line in log]
    assert len(set(names[: 3 * rungs[0].steps // 32])) == 3 and len(set(names[-rungs[-1].steps // 32 :])) == 1
    assert names[-1] == "/".join(record["choice_names"])


def test_losses_without_a_teacher_are_minus_the_score(whole):
    run, _ = whole
    log = [line for line in run.read_metrics() if line["stage"] == "retrain"]
    for one in run.read_json("architecture.json")["derived_by"]["bracket"]:
        names = "/".join(run.read_json("architecture.json")["candidate_names"][p][c] for p, c in enumerate(one["choices"]))
        first = [line for line in log if line["candidate"] == names][: bracket_rungs(plan_of().config, 3)[0].steps // 32]
        score = first[-1]["score_train"]
        assert one["losses"][0] == (None if score is None else pytest.approx(-score))


@pytest.mark.parametrize("stops", [(2, 3, 5), *(pytest.param(stops, marks=pytest.mark.slow) for stops in ((1, 1), (9,), (4, 7)))])
def test_stopped_and_resumed_it_is_the_same(stops, whole, tmp_path):
    run, outputs = made(tmp_path, stops=stops)
    assert not changed(outputs.retrain.weights, whole[1].retrain.weights)
    assert run.read_json("architecture.json") == whole[0].read_json("architecture.json")
    assert [without_clocks(line) for line in run.read_metrics()] == [without_clocks(line) for line in whole[0].read_metrics()]


@pytest.mark.slow
def test_an_int8_agent_is_rounded_at_the_end_of_its_last_rung(tmp_path, monkeypatch):
    monkeypatch.setattr("cosearch.deploy.artifacts.quantised.KL_TOLERANCE", 0.0)
    words = ("budget.bracket=2", "objective.latency_target_s=1.0", "budget.search_steps=64", "budget.repair_rounds=0")
    words = (*words, f"table={made_table(tmp_path / 'table.jsonl', (*WORDS, *words), 'int8')}")
    _, outputs = made(tmp_path, *words)
    assert outputs.retrain.fine_tuned_steps == 576 - 480  # of its 18 rollouts the last fifth, in whole ones
    (tmp_path / "again").mkdir()
    _, same = made(tmp_path / "again", *words, stops=(19,))
    assert same.retrain.fine_tuned_steps == 96 and not changed(outputs.retrain.weights, same.retrain.weights)
    monkeypatch.setattr("cosearch.deploy.artifacts.quantised.KL_TOLERANCE", 10.0)
    (tmp_path / "kept").mkdir()
    _, plain = made(tmp_path / "kept", *words)
    assert plain.retrain.fine_tuned_steps == 0 and changed(outputs.retrain.weights, plain.retrain.weights)


def test_the_candidate_with_the_lowest_loss_goes_on(tmp_path, monkeypatch):
    losses = iter([3.0, 1.0, None, 5.0, 7.0, 0.0])
    monkeypatch.setattr(Bracket, "_loss", lambda self, training: next(losses))
    run, _ = made(tmp_path)
    bracket = run.read_json("architecture.json")["derived_by"]["bracket"]
    assert [one["losses"] for one in bracket] == [[3.0, 5.0], [1.0, 7.0], [None]]
    assert run.read_json("architecture.json")["choices"] == bracket[0]["choices"]


@pytest.fixture
def failing(monkeypatch):
    """Let candidates fail at the first update of a rung: pairs of their place and the rung."""
    opened = Bracket._opened

    def fail(*those):
        def update(*_):
            raise NonFiniteError("a loss is not finite: nan")

        def opened_failing(bracket, contender, streams):
            network, training = opened(bracket, contender, streams)
            if any(contender is bracket.contenders[place] and bracket.rung == rung for place, rung in those):
                training.rounds.learner.update = update
            return network, training

        monkeypatch.setattr(Bracket, "_opened", opened_failing)

    return fail


@pytest.mark.parametrize("stops", [(), pytest.param((3, 5), marks=pytest.mark.slow)], ids=["whole", "stopped"])
def test_a_candidate_that_failed_never_goes_on(failing, tmp_path, stops):
    failing((0, 0), (2, 0))
    run, outputs = made(tmp_path, stops=stops)
    bracket, rungs = run.read_json("architecture.json")["derived_by"]["bracket"], bracket_rungs(plan_of().config, 3)
    assert [len(one["losses"]) for one in bracket] == [1, 2, 1] and bracket[0]["losses"] == bracket[2]["losses"] == [None]
    assert run.read_json("architecture.json")["choices"] == bracket[1]["choices"]
    failed = bracket[0]["env_steps"] + bracket[2]["env_steps"]
    assert failed == 64 and outputs.retrain.steps == failed + sum(rung.steps for rung in rungs)  # a rollout of each of the two


@pytest.mark.slow
def test_one_without_an_ended_episode_goes_on_before_one_that_failed(failing, tmp_path, monkeypatch):
    monkeypatch.setattr(Bracket, "_loss", lambda self, training: None)
    failing((0, 0))
    run, _ = made(tmp_path)
    bracket = run.read_json("architecture.json")["derived_by"]["bracket"]
    assert [one["losses"] for one in bracket] == [[None], [None, None], [None, None]]


@pytest.mark.parametrize("count, those", [(3, [(0, 0), (1, 0), (2, 0)]), (2, [(2, 0), (0, 1), (1, 1)])])
def test_where_all_failed_the_run_does(failing, tmp_path, count, those):
    failing(*those)
    with pytest.raises(RunFailedError, match=f"all {count} candidates that were left .*not finite") as error:
        made(tmp_path)
    assert not isinstance(error.value, NonFiniteError)


def test_the_last_rung_is_the_retraining_that_one_candidate_has_alone(tmp_path, whole):
    """Its learning rate falls over its own steps, from one rung to the next without a gap."""
    run, _ = whole
    log = [line for line in run.read_metrics() if line["stage"] == "retrain"]
    own = [line["lr"] for line in log if line["candidate"] == log[-1]["candidate"]]
    config = plan_of().config
    total = sum(rung.steps for rung in bracket_rungs(config, 3)) // 32
    start, end = config.rl.lr, config.rl.lr * config.rl.lr_end_fraction
    assert own == pytest.approx([start + (end - start) * i / total for i in range(total)])
    assert json.dumps(own) != json.dumps(own[:1] * total)


def test_with_a_teacher_the_loss_is_the_divergence_from_it(tmp_path):
    taught = ("distill.teacher=auto", "budget.bracket=2", "budget.search_steps=64", "budget.retrain_steps=512")
    run, outputs = made(tmp_path, *taught)
    log = [line for line in run.read_metrics() if line["stage"] == "retrain"]
    rollouts = bracket_rungs(plan_of(*taught).config, 2)[0].steps // 32
    bracket = run.read_json("architecture.json")["derived_by"]["bracket"]
    wanted = [sum(line["distill_actor"] for line in log[i * rollouts : (i + 1) * rollouts]) / rollouts for i in range(2)]
    assert rollouts > 1 and [one["losses"] for one in bracket] == [[pytest.approx(value)] for value in wanted]
    (tmp_path / "again").mkdir()
    again, same = made(tmp_path / "again", *taught, stops=(2, 2))
    assert not changed(outputs.retrain.weights, same.retrain.weights)
    assert again.read_json("architecture.json") == run.read_json("architecture.json")


def test_episodes_that_begin_anew_between_the_rungs_are_recorded_where_the_retraining_stood(tmp_path, monkeypatch):
    """Three candidates train for 32 steps, two of them 32 more, then the best goes on."""
    restore = Training.restore
    monkeypatch.setattr(Training, "restore", lambda training, state: restore(training, state) or [3])
    monkeypatch.setattr("cosearch.planning.plan.inexact_resume", lambda env: "a test")
    run, _ = made(tmp_path)
    anew = run.read(RunRecord).fresh_episodes
    assert anew == tuple(FreshEpisodes(stage="retrain", step=step, environments=(3,)) for step in (96, 128, 160))
