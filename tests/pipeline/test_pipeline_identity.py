"""Identity: every verb that opens a run compares its table, teacher and environment with those that it began with."""

import dataclasses
import json
import shutil

import editable_env
import numpy as np
import onnx
import pytest
from editable_env import TINY

import cosearch.pipeline.run as pipeline
from cosearch.cli.app import main
from cosearch.compare.plan import planned_runs
from cosearch.compare.runs import begin
from cosearch.planning.builtins import load_builtins
from cosearch.planning.identity import ENVIRONMENT_WORDS, Inputs, check_inputs, teacher_identity
from cosearch.planning.plan import make_plan
from cosearch.planning.recorded import config_of
from cosearch.planning.task import resolve_task
from cosearch.record.json_record import to_json
from cosearch.record.run_record import RunRecord, TeacherIdentity
from cosearch.record.rundir import RunDir
from cosearch.rl.teacher import find_teacher
from latency_tables.devices import find_table
from latency_tables.errors import ConfigError, TableError


def device_file(path, name):
    """A shipped table as a file of one's own."""
    path.write_bytes(find_table(name).path.read_bytes())
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with a table of its own beside the folder of the runs."""
    folder = tmp_path_factory.mktemp("finished")
    device_file(folder / "my.jsonl", "raspberry-pi-4")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["search", "--env", editable_env.NAME, "--table", "my.jsonl", "--run", "a", "--quiet", *TINY]) == 0
    return folder


@pytest.fixture
def here(finished, tmp_path, monkeypatch):
    """The same folder at another place, its absolute paths made those of there: as if it had been made there."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    record = tmp_path / "runs" / "a" / "run.json"
    record.write_text(record.read_text().replace(str(finished), str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def unfinished(folder):
    """Make a run one that was cut before its first checkpoint."""
    for path in (folder / "checkpoints").iterdir():
        path.unlink()


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


VERBS = {
    "resume": ["resume", "runs/a"],
    "export": ["export", "runs/a"],
    "evaluate": ["evaluate", "runs/a", "--episodes", "4"],
    "video": ["video", "runs/a"],
}


@pytest.mark.parametrize("words", [VERBS["evaluate"], ["report", "runs/a"], VERBS["export"]], ids=lambda words: words[0])
def test_what_is_as_it_was_is_taken(words, here):
    assert main(words) == 0


EDITS = {
    "FEATURES": ("4", "observations [3] then, [4] now"),
    "ACTIONS": ("3", "actions 2 then, 3 now"),
    "START": ("1", "first action 0 then, 1 now"),
}


@pytest.fixture
def refused(here, capsys):
    """Run a verb that must be refused before it begins; gives its message."""

    def run(*words):
        before = content(here)
        assert main(list(words)) == 2
        said = capsys.readouterr().err
        assert "Traceback" not in said and said.count("error:") == 1 and content(here) == before
        return said

    return run


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("verb", VERBS)
def test_an_edited_environment_is_refused(verb, edit, here, refused, monkeypatch):
    if verb == "resume":
        unfinished(here / "runs" / "a")
    monkeypatch.setenv(edit, EDITS[edit][0])
    assert EDITS[edit][1] in refused(*VERBS[verb])


@pytest.mark.parametrize("verb", ["resume", "export"])
def test_another_table_is_refused_and_the_old_one_may_be_given_back_from_elsewhere(verb, here, refused, monkeypatch, capsys):
    if verb == "resume":
        unfinished(here / "runs" / "a")
    (here / "my.jsonl").rename(here / "old.jsonl")
    device_file(here / "my.jsonl", "jetson")
    message = refused(*VERBS[verb])
    assert "would mix two tables" in message and f"`cosearch {verb} runs/a --table FILE`" in message
    begun = []
    monkeypatch.setattr(pipeline, "_work", lambda run, plan, *_, **__: begun.append(plan.config.table))
    assert main([*VERBS[verb], "--table", "old.jsonl", "--quiet"]) == 0
    assert begun == [str(here / "old.jsonl")]


@pytest.mark.parametrize("verb", ["resume", "export"])
def test_a_table_that_is_gone_is_named_with_the_option_that_gives_it_back(verb, here, refused):
    if verb == "resume":
        unfinished(here / "runs" / "a")
    (here / "my.jsonl").rename(here / "old.jsonl")
    message = refused(*VERBS[verb])
    assert f"my.jsonl, which is not there now. Where it was moved: `cosearch {verb} runs/a --table FILE`" in message
    assert "--table: there is no file nowhere.jsonl" in refused(*VERBS[verb], "--table", "nowhere.jsonl")


def test_a_run_that_was_moved_with_its_table_goes_on_and_its_record_follows(here, monkeypatch):
    there = here / "there"
    there.mkdir()
    for name in ("runs", "my.jsonl"):
        (here / name).rename(there / name)
    monkeypatch.chdir(there)
    assert main(["export", "runs/a", "--quiet"]) == 0
    assert config_of(RunDir.open("runs/a")).table == str(there / "my.jsonl")
    assert RunDir.open("runs/a").read(RunRecord).table.table_id == find_table("raspberry-pi-4").table_id


@pytest.mark.parametrize("content_now", [b"version https://git-lfs.github.com/spec/v1\n", b""])
@pytest.mark.parametrize("verb", ["evaluate", "video"])
def test_an_agent_that_is_another_file_is_refused(verb, content_now, here, refused):
    (here / "runs" / "a" / "agent.onnx").write_bytes(content_now)
    message = refused(*VERBS[verb])
    assert "is not the file that agent.json describes" in message and "`cosearch export runs/a` writes it again" in message


@pytest.mark.parametrize("key, value", [("latency_predicted_for", "jetson"), ("table_id", "0" * 64)])
def test_a_report_of_two_devices_is_refused(key, value, here, refused):
    summary = here / "runs" / "a" / "summary.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {key: value}))
    assert "a report would mix the two" in refused("report", "runs/a")


def test_a_comparison_whose_table_was_replaced_is_refused_before_it_begins(tmp_path):
    load_builtins()
    table, folder = device_file(tmp_path / "my.jsonl", "raspberry-pi-4"), tmp_path / "c"
    words = [word for word in TINY if not word.startswith("strategy.")]
    runs = planned_runs(folder, ["a3cs"], [0], [editable_env.NAME], words=words, options={"table": str(table)})
    begin(folder, runs, "first")
    RunDir.create(folder, runs[0].name, to_json(make_plan(runs[0].config).record("first")))
    begin(folder, runs, "again")
    device_file(table, "jetson")
    with pytest.raises(TableError, match="would mix two tables"):
        begin(folder, runs, "again")


def test_a_comparison_may_be_moved_as_a_whole(tmp_path):
    load_builtins()
    words = [word for word in TINY if not word.startswith("strategy.")]
    old, new = (planned_runs(tmp_path / name, ["a3cs"], [0], [editable_env.NAME], words=words) for name in ("old", "new"))
    begin(tmp_path / "old", old, "first")
    (tmp_path / "old").rename(tmp_path / "new")
    begin(tmp_path / "new", new, "again")


@pytest.fixture(scope="module")
def record():
    """What a run would begin with."""
    load_builtins()
    return make_plan(resolve_task(overrides=TINY, options={"env.name": editable_env.NAME})).record("")


@pytest.mark.parametrize("field", ENVIRONMENT_WORDS)
def test_every_part_of_an_environment_is_compared(field, record):
    now = record.environment
    assert set(ENVIRONMENT_WORDS) == {each.name for each in dataclasses.fields(now)}
    other = {"observation_shape": (9,), "num_actions": 9, "first_action": 9}.get(field, ("x",))
    with pytest.raises(ConfigError, match=f"{ENVIRONMENT_WORDS[field]} .* then, .* now"):
        check_inputs("runs/a", record, Inputs(environment=dataclasses.replace(now, **{field: other})))


TEACHER = TeacherIdentity(
    name="mine", network="x", weights_sha256="a" * 64, further_sha256={"mine.data": "b" * 64}, reward_std=1.0
)


@pytest.mark.parametrize(
    "now, part",
    [
        (None, "mine then, none now"),
        (dataclasses.replace(TEACHER, weights_sha256="c" * 64), "its weights: aaaaaaaaaaaa then, cccccccccccc now"),
        (dataclasses.replace(TEACHER, further_sha256={"mine.data": "c" * 64}), "mine.data: bbbbbbbbbbbb then, cccccccccccc now"),
        (dataclasses.replace(TEACHER, further_sha256=None), "mine.data: bbbbbbbbbbbb then, no such file now"),
        (dataclasses.replace(TEACHER, reward_std=2.0), "reward_std 1.0 then, 2.0 now"),
        (dataclasses.replace(TEACHER, network="y"), "x then, y now"),
    ],
)
def test_every_part_of_a_teacher_is_compared(now, part, record):
    began = dataclasses.replace(record, teacher=TEACHER)
    with pytest.raises(ConfigError, match="would mix two teachers") as caught:
        check_inputs("runs/a", began, Inputs(teacher=now), "export")
    assert part in str(caught.value) and "`cosearch export runs/a --teacher FILE`" in str(caught.value)
    check_inputs("runs/a", began, Inputs(teacher=dataclasses.replace(TEACHER, name="renamed")))


def test_other_versions_are_said_and_not_refused(record):
    began = dataclasses.replace(record, versions={**record.versions, "torch": "1.0"})
    (line,) = check_inputs("runs/a", began, Inputs.of(record))
    assert f"torch 1.0, now {record.versions['torch']}" in line
    assert check_inputs("runs/a", record, Inputs.of(record)) == []


def test_the_external_data_of_an_onnx_teacher_is_part_of_it(tmp_path):
    weights = onnx.numpy_helper.from_array(np.ones((4, 600), np.float32), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, size]) for name, size in (("x", 4), ("y", 600))
    ]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", ends[:1], ends[1:], [weights]))
    onnx.save_model(model, tmp_path / "mine.onnx", save_as_external_data=True, location="mine.data", size_threshold=0)
    teacher = find_teacher(str(tmp_path / "mine.onnx"), "gym:x")
    before = teacher_identity(teacher)
    assert set(before.further_sha256) == {"mine.data"}
    (tmp_path / "mine.data").write_bytes(np.zeros((4, 600), np.float32).tobytes())
    after = teacher_identity(teacher)
    assert after.weights_sha256 == before.weights_sha256 and after.further_sha256 != before.further_sha256
    (tmp_path / "mine.data").unlink()
    with pytest.raises(ConfigError, match=r"mine\.data: cannot be read"):
        teacher_identity(teacher)


def test_a_teacher_in_training_goes_on_in_its_own_environment_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def cut(*args, **options):
        raise KeyboardInterrupt

    words = ["teacher", "--env", editable_env.NAME, "--out", "t.json", "--steps", "64", "--quiet"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cosearch.teachers.train._train", cut)
        assert main(words) == 130
    monkeypatch.setenv("ACTIONS", "3")
    assert main(words) == 2
    assert "actions 2 then, 3 now" in capsys.readouterr().err
