"""Where the commands write: what is no regular file is left as it is, links are followed, and each refusal is one message."""

import errno
import os
import socket
import stat
from pathlib import Path

import pytest
import torch

from accel_models import check
from accel_models.cli import main as accel_models
from accel_models.design import load_design, save_design
from cosearch.cli.app import main
from cosearch.compare.runs import begin
from cosearch.record.checkpoints import Checkpoints
from cosearch.record.rundir import RunDir, as_folder_name, check_one_folder
from cosearch.rl.teacher import save_teacher
from cosearch.space.kinds.chain import ChainConfig, chain_space
from cosearch.space.network import AgentNetwork
from latency_tables import commands
from latency_tables.board.temporary import temporary_folder
from latency_tables.devices import list_devices, load_any
from latency_tables.errors import CosearchError, RequestError, RunFailedError, RunFolderError
from latency_tables.measuring.job import MeasureRequest
from latency_tables.measuring.job import run as measure
from latency_tables.measuring.journal import Journal
from latency_tables.schema import read_table, write_table
from latency_tables.showing.draw import draw_table
from latency_tables.text.writing import make_folder, regular_file, remove, write_bytes_atomic

REFERENCE = check.DATA / "oracle_zigzag.csv"


def write_teacher(path):
    blocks = chain_space(ChainConfig(stage_channels=(4,), stage_repeats=(1,), stage_strides=(1,), hidden=8), (64, 64, 3), 15)
    network = AgentNetwork(blocks.architecture([0]).ops(), torch.Generator().manual_seed(0))
    save_teacher(path, network, env="procgen:starpilot", description="toy", gamma=0.99, reward_std=1.0, provenance={})


def shipped_table():
    return read_table(list_devices()[0].path)


WRITERS = {
    "bytes": lambda path: write_bytes_atomic(path, b"x"),
    "table": lambda path: write_table(path, shipped_table()),
    "picture": lambda path: draw_table(load_any("jetson"), path),
    "design": lambda path: save_design(load_design("edge-npu"), path),
    "teacher": write_teacher,
    "measurement": lambda path: measure(MeasureRequest(out=path, device="this", worklists=("mlp",), again=True)),
    "journal": lambda path: Journal(path, {}),
}
FURTHER = {  # what is written in a folder
    "checkpoint": lambda path: Checkpoints(path / "checkpoints").save({}, "0"),
    "comparison": lambda path: begin(path, [], "cosearch compare"),
    "run": lambda path: RunDir.create(path, "run", {}),
    "folder": make_folder,
}


def a_pipe(path):
    os.mkfifo(path)


def a_socket(path):
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket may have 107 letters
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def a_folder(path):
    path.mkdir()
    (path / "kept").touch()


def a_link_to_a_pipe(path):
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def a_circle(path):
    path.symlink_to(path.with_name("other"))
    path.with_name("other").symlink_to(path)


def kinds(folder):
    return {path.name: stat.S_IFMT(path.lstat().st_mode) for path in folder.rglob("*")}


@pytest.mark.parametrize("make", [a_pipe, a_socket, a_folder, a_link_to_a_pipe, a_circle])
@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_no_regular_file_is_left_as_it_is(tmp_path, writer, make):
    path = tmp_path / "out.json"
    if writer == "picture":
        path = tmp_path / "out.png"
    make(path)
    before = kinds(tmp_path)
    with pytest.raises(RequestError, match=r"out\.(json|png) is a .*: it is not written over; give the path of a file"):
        WRITERS[writer](path)
    after = kinds(tmp_path)
    if writer == "teacher":  # its weights lie beside it and are refused or kept in the same way
        after.pop("out.safetensors", None)
    assert after == before


def test_a_device_is_no_regular_file():
    with pytest.raises(RequestError, match="/dev/null is a device"):
        regular_file(Path("/dev/null"))


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_the_file_that_it_names_is_replaced(tmp_path, there):
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "file", tmp_path / "link"
    if there:
        target.write_bytes(b"old")
    link.symlink_to("far/file")
    write_bytes_atomic(link, b"new")
    assert link.is_symlink() and target.read_bytes() == b"new" and not target.is_symlink()
    assert sorted(kinds(tmp_path)) == ["far", "file", "link"]


@pytest.mark.parametrize("writer", [*WRITERS, *FURTHER])
@pytest.mark.parametrize("place", ["below a file", "/proc"])
def test_a_place_that_takes_no_file_is_one_message(tmp_path, writer, place):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" if place == "below a file" else Path("/proc")
    with pytest.raises(CosearchError) as caught:
        (WRITERS | FURTHER)[writer](folder / "sub" / ("out.png" if writer == "picture" else "out.json"))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600 and str(folder) in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "--device", "jetson", "--out"],
        ["show", "jetson", "--png"],
        ["measure", "--device", "this", "--worklist", "mlp", "--out"],
    ],
)
@pytest.mark.parametrize("name", ["below/out.png", "pipe"])
def test_commands_on_tables_say_where_they_cannot_write(tmp_path, monkeypatch, capsys, words, name):
    (tmp_path / "below").touch()
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr("sys.argv", ["latency_tables", *words, str(tmp_path / name)])
    with pytest.raises(SystemExit) as stopped:
        commands.main()
    message = capsys.readouterr().err.lstrip()
    assert stopped.value.code in (1, 2) and message.startswith("error: ") and message.count("\n") == 1 and name[:5] in message
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)


@pytest.mark.parametrize("name", ["below/out.csv", "pipe"])
def test_a_check_of_the_equations_says_where_it_cannot_write(tmp_path, capsys, name):
    (tmp_path / "below").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SystemExit) as stopped:
        accel_models(["check", "--reference", "zigzag", str(REFERENCE), "--out", str(tmp_path / name)])
    message = capsys.readouterr().err.lstrip()
    assert stopped.value.code in (1, 2) and message.startswith("error: ") and message.count("\n") == 1 and name[:5] in message


def test_a_picture_of_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(RequestError, match=r"a picture can be written as .*png.*got the file .*out\.doc"):
        draw_table(load_any("jetson"), tmp_path / "out.doc")


@pytest.mark.parametrize("fault", [errno.EROFS, errno.EIO])
def test_a_removal_that_fails_in_a_run_is_one_message(tmp_path, monkeypatch, fault):
    def refuse(path, missing_ok=False):
        if not path.name.endswith(".partial"):
            raise OSError(fault, os.strerror(fault))

    saved = Checkpoints(tmp_path / "checkpoints", keep=1)
    saved.save({}, "0")
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(RunFailedError, match=os.strerror(fault)):
        saved.save({}, "1")
    with pytest.raises(RunFailedError, match=os.strerror(fault)):
        remove(tmp_path / "file")


@pytest.mark.parametrize("fault", [errno.EACCES, errno.EROFS, errno.EIO])
def test_a_temporary_folder_that_cannot_be_removed_stays_and_nothing_else_happens(tmp_path, monkeypatch, fault):
    """``tempfile.TemporaryDirectory`` recurses without an end where it is EACCES."""

    def refuse(path, *, dir_fd=None):
        raise OSError(fault, os.strerror(fault), path)

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with monkeypatch.context() as patch:
        with temporary_folder("kept-") as folder:
            (folder / "file").touch()
            patch.setattr(os, "rmdir", refuse)
    assert [path.name[:5] for path in tmp_path.iterdir()] == ["kept-"]
    with temporary_folder("gone-"):
        pass
    assert len(list(tmp_path.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", refuse)
        with pytest.raises(RunFolderError, match=f"one cannot be made: {os.strerror(fault)}"):
            RunDir.check_new(tmp_path / "runs", "one")


@pytest.mark.parametrize("fault", [errno.EIO, errno.ENOSPC, errno.EACCES])
def test_a_refused_rename_of_a_new_run_is_not_taken_for_a_run_that_exists(tmp_path, monkeypatch, fault):
    def refuse(self, target):
        raise OSError(fault, os.strerror(fault))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(RunFailedError, match=r"the disk (is full|refused a write)"):
            RunDir.create(tmp_path, "one", {})
    assert not list(tmp_path.iterdir())
    RunDir.create(tmp_path, "one", {})


@pytest.mark.parametrize("name", ["..", ".", "", "../x", "a/b", "/tmp/x", "a/", "a\0b"])
def test_a_name_of_a_folder_does_not_leave_it(name, tmp_path, monkeypatch, capsys):
    with pytest.raises(RunFolderError, match="--name must be the name of one folder"):
        check_one_folder(name, "--name")
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "--name", name, "--env", "minatar:breakout", "--seeds", "1"]) == 2
    assert main(["search", "--run", name, "--env", "minatar:breakout"]) == 2
    said = capsys.readouterr().err
    assert said.count("error: ") == 2 and not list(tmp_path.iterdir())


def test_names_that_are_made_from_other_names_are_names_of_folders(tmp_path):
    name = as_folder_name("teacher", "gym:ALE/Pong-v5", "nature-cnn", "s1")
    assert name == "teacher-gym-ALE-Pong-v5-nature-cnn-s1"
    RunDir.create(tmp_path, name, {})
    assert as_folder_name("breakout", "this/onnxruntime-int8-1t", "a3cs", "s0") == "breakout-this-onnxruntime-int8-1t-a3cs-s0"
    assert as_folder_name("..", "x") == "x"
