"""Where results go is tried before the work begins; what the system or the terminal refuses is one message."""

import errno
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import filelock
import pytest
import typer

from accel_models.cli import app as accelerators
from accel_models.cli import main as accel_models
from accel_models.design import DESIGNS
from cosearch.cli import commands as verbs
from cosearch.cli.app import main as cosearch
from cosearch.record.rundir import RunDir
from latency_tables import commands
from latency_tables.errors import RequestError, RunFolderError
from latency_tables.text.writing import check_destination, check_folder

REFERENCE = DESIGNS.parent / "oracle_zigzag.csv"
WORK = (  # what each command does first that takes time
    "accel_models.check.compare",
    "accel_models.searching.search.search_design",
    "latency_tables.showing.draw.draw_table",
    "latency_tables.estimating.estimate.build_estimate",
    "latency_tables.measuring.job._measure",
    "cosearch.planning.plan.make_plan",
    "cosearch.compare.making.make_runs",
    "cosearch.compare.plan.planned_runs",
    "cosearch.teachers.train.open_run",
    "cosearch.teachers.from_sb3._load",
    "cosearch.deploy.sampling.derive",
    "cosearch.pipeline.local_table.run",
    "cosearch.pipeline.compress.understand",
    "cosearch.fleet.cluster.Cluster.engine",
    "cosearch.overview.rows.Reader",
    "cosearch.bench.leaderboard.standings",
    "cosearch.bench.benchmark.Benchmark",
    "cosearch.bench.table.pack",
    "cosearch.bench.generate.extend",
    "cosearch.deploy.evaluation.play",
    "latency_tables.importing.table.imported_table",
)
COMMANDS = {
    "fit": (commands, ["fit", "--device", "jetson", "--out", "{place}/t.jsonl"]),
    "show": (commands, ["show", "jetson", "--png", "{place}/t.png"]),
    "measure": (commands, ["measure", "--worklist", "mlp", "--out", "{place}/t.jsonl"]),
    "search a design": (accel_models, ["search", "impala", "--out", "{place}/d.json"]),
    "check equations": (accel_models, ["check", "--reference", "zigzag", str(REFERENCE), "--out", "{place}/d.csv"]),
    "search": (cosearch, ["search", "--runs", "{place}", "--run", "one"]),
    "search with seeds": (cosearch, ["search", "--runs", "{place}", "--seeds", "2", "env.name=gym:CartPole-v1"]),
    "search without a name": (cosearch, ["search", "--runs", "{place}/runs"]),
    "this machine": (cosearch, ["search", "--device", "this", "--runs", "{place}/runs"]),
    "compare": (cosearch, ["compare", "--runs", "{place}/runs"]),
    "teacher": (cosearch, ["teacher", "--env", "gym:CartPole-v1", "--out", "{place}/t.json"]),
    "teachers": (cosearch, ["teacher", "--seeds", "2", "--env", "gym:CartPole-v1", "--out", "{place}/t.json"]),
    "teachers' runs": (
        cosearch,
        ["teacher", "--seeds", "2", "--env", "gym:CartPole-v1", "--out", "t.json", "--runs", "{place}/runs"],
    ),
    "teacher's runs": (cosearch, ["teacher", "--env", "gym:CartPole-v1", "--out", "t.json", "--runs", "{place}/runs"]),
    "sample": (cosearch, ["sample", "--out", "{place}/s"]),
    "import": (commands, ["import", "a.csv", "--device", "d", "--source", "s", "--out", "{place}/t.jsonl"]),
    "compress": (cosearch, ["compress", "policy.onnx", "--env", "gym:CartPole-v1", "--runs", "{place}/runs"]),
    "measure on a cluster": (cosearch, ["measure", "--cluster", "local", "--board", "b", "--out", "{place}/t.jsonl"]),
    "dashboard": (cosearch, ["dashboard", "--out", "{place}/page.html"]),
    "bench leaderboard": (cosearch, ["bench", "leaderboard", "--out", "{place}/page.md"]),
    "bench budgets": (cosearch, ["bench", "budgets", "--out", "{place}/page.md"]),
    "bench transfer": (cosearch, ["bench", "transfer", "--out", "{place}/page.md"]),
    "bench search": (cosearch, ["bench", "search", "--out", "{place}/page.md"]),
    "bench search's runs": (cosearch, ["bench", "search", "--runs", "{place}/runs"]),
    "bench pack": (cosearch, ["bench", "pack", "results", "--out", "{place}/tables"]),
    "bench extend": (cosearch, ["bench", "extend", "--out", "{place}/results"]),
}
PLACES = {"--out", "--runs", "--png"}
ELSEWHERE = {("video", "--out")}  # needs a finished run: tests/deploy/test_clip.py


def places(group, before=()):
    """Each option of a program that names where something is written, with its verb."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from places(command, (*before, name))
        else:
            yield from ((" ".join((*before, name)), word) for each in command.params for word in each.opts if word in PLACES)


def test_every_option_that_names_a_place_is_tried():
    cosearch(["list", "presets"])  # adds the verbs of other files
    tried = {(" ".join(part for part in words if part in words[:2] and part.isalpha()), word) for _, words in COMMANDS.values()
             for word in words if word in PLACES}  # fmt: skip
    for program in (verbs.app, commands.app, accelerators):
        for verb, option in places(typer.main.get_group(program)):
            assert any(name.startswith(verb) and option == word for name, word in tried | ELSEWHERE), (verb, option)


def run(command, words, monkeypatch):
    """Exit code of one command of one of the three programs."""
    if command is cosearch:
        return cosearch(words)
    monkeypatch.setattr("sys.argv", ["latency_tables", *words])
    program = (lambda: accel_models(words)) if command is accel_models else commands.main
    with pytest.raises(SystemExit) as stopped:
        program()
    return stopped.value.code


@pytest.mark.parametrize("place", ["/proc", "file"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(name, place, tmp_path, monkeypatch, capsys):
    def begun(*args, **options):
        raise AssertionError("the work has begun")

    for function in WORK:
        monkeypatch.setattr(function, begun)
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    command, words = COMMANDS[name]
    assert run(command, [word.format(place=place) for word in words], monkeypatch) == 2
    message = capsys.readouterr().err.lstrip()
    assert message.startswith("error: ") and message.count("\n") == 1 and place in message
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_destination_may_lie_in_folders_that_are_still_to_be_made(tmp_path):
    check_destination(tmp_path / "a" / "b" / "file")
    check_folder(tmp_path / "a" / "b")
    RunDir.check_new(tmp_path / "a" / "b", "one")
    assert not list(tmp_path.iterdir())
    with pytest.raises(RequestError, match="is a folder"):
        check_destination(tmp_path)


def test_a_run_is_not_begun_where_it_cannot_be_locked(tmp_path, monkeypatch):
    def no_locks(lock, *args, **options):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    with pytest.raises(RunFolderError, match=r"No locks available.*another place with --runs"):
        RunDir.check_new(tmp_path / "runs", "one")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [cosearch, accel_models, commands])
def test_what_the_system_refuses_is_one_message(command, monkeypatch, capsys):
    def refuse(*args, **options):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "some/file")

    monkeypatch.setattr("cosearch.cli.listing.listing", refuse)
    monkeypatch.setattr("accel_models.design.design_names", refuse)
    monkeypatch.setattr("latency_tables.devices.list_devices", refuse)
    words = {cosearch: ["list", "presets"], accel_models: ["list", "designs"], commands: ["list"]}[command]
    assert run(command, words, monkeypatch) == 1
    assert capsys.readouterr().err == "error: the system refused some/file: Too many open files\n"


@pytest.mark.parametrize("program", ["cosearch", pytest.param("accel_models", marks=pytest.mark.slow), "latency_tables"])
def test_a_terminal_of_ascii_gets_every_result(program, tmp_path):
    words = {
        "cosearch": ["predict", "--device", "jetson", "a.json"],
        "accel_models": ["evaluate", "edge-npu", "impala"],
        "latency_tables": ["show", "jetson"],
    }[program]
    if program == "cosearch":
        assert cosearch(["sample", "--out", str(tmp_path), "--env", "gym:CartPole-v1"]) == 0
        (tmp_path / "0000.json").rename(tmp_path / "a.json")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LANG": "C", "LC_ALL": "C"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(verbs.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", program, *words], cwd=tmp_path, env=environment, capture_output=True, check=False, text=True
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr and done.stdout.isascii() and len(done.stdout) > 200


def test_a_letter_that_the_terminal_lacks_is_written_as_an_escape():
    code = "from latency_tables.text.terminal import plain_streams; plain_streams(); print('5 \\u00b5s \\u2264 \\udcff')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    environment["PYTHONPATH"] = str(Path(verbs.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False, text=True)
    assert (done.returncode, done.stdout) == (0, "5 \\xb5s \\u2264 \\udcff\n")


def test_the_version_of_a_copy_that_is_not_installed_is_no_traceback(monkeypatch, capsys):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", absent)
    assert cosearch(["--version"]) == 0
    assert capsys.readouterr().out.startswith("not installed, run from /")
