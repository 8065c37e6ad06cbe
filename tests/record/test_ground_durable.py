"""Writes that survive: a full disk (a real one where the system lets us make it), torn lines, failing renames."""

import errno
import hashlib
import os

import pytest
import torch

from cosearch.record import durable
from cosearch.record.durable import append_line, write_bytes_atomic
from cosearch.record.rundir import RunDir
from cosearch.rl.teacher import save_teacher
from cosearch.space.kinds.chain import ChainConfig, chain_space
from cosearch.space.network import AgentNetwork
from latency_tables.errors import RunFailedError

LINE = {"stage": "search", "wall_s": 1.0}


@pytest.fixture
def full_disk(monkeypatch):
    """Make every synchronisation fail as a full disk does."""

    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable.os, "fsync", fail)


def names(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path):
    for data in (b"first", b"", b"second" * 1000):
        write_bytes_atomic(tmp_path / "file", data)
        assert (tmp_path / "file").read_bytes() == data
    assert names(tmp_path) == ["file"]


def test_new_files_have_the_usual_rights(tmp_path):
    (tmp_path / "plain").touch()
    write_bytes_atomic(tmp_path / "file", b"x")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_file_and_folder_are_synchronised_before_and_after_the_rename(tmp_path, monkeypatch):
    order, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(durable.os, "fsync", lambda fd: (order.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(durable.os, "replace", lambda a, b: (order.append("rename"), replace(a, b)))
    write_bytes_atomic(tmp_path / "file", b"x")
    assert [os.path.basename(step) for step in order] == [f".file.{os.getpid()}.partial", "rename", tmp_path.name]


def test_an_old_file_survives_a_full_disk(tmp_path, full_disk):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(
        RunFailedError, match=r"the disk is full: .*file could not be written .*Free some space.*cosearch resume"
    ) as caught:
        write_bytes_atomic(path, b"new")
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    assert path.read_bytes() == b"old" and names(tmp_path) == ["file"]


def test_an_old_teacher_survives_a_full_disk(tmp_path, full_disk, monkeypatch):
    blocks = chain_space(ChainConfig(stage_channels=(4,), stage_repeats=(1,), stage_strides=(1,), hidden=8), (64, 64, 3), 15)
    network = AgentNetwork(blocks.architecture([0]).ops(), torch.Generator().manual_seed(0))
    facts = {"env": "procgen:starpilot", "description": "toy", "gamma": 0.999, "reward_std": 1.0, "provenance": {}}
    with monkeypatch.context() as space_again:
        space_again.setattr(durable.os, "fsync", lambda fd: None)
        record = save_teacher(tmp_path / "t.json", network, **facts)
    before = record.weights_sha256()
    assert before == hashlib.sha256((tmp_path / "t.safetensors").read_bytes()).hexdigest()
    with pytest.raises(RunFailedError, match="the disk is full"):
        save_teacher(tmp_path / "t.json", AgentNetwork(network.ops, torch.Generator().manual_seed(1)), **facts)
    assert record.weights_sha256() == before and names(tmp_path) == ["t.json", "t.safetensors"]


def test_another_refusal_is_not_called_a_full_disk(tmp_path):
    with pytest.raises(RunFailedError, match=r"the disk refused a write: .*No such file or directory.*Check the folder"):
        write_bytes_atomic(tmp_path / "missing" / "file", b"x")


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    def interrupt(descriptor):
        raise KeyboardInterrupt

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(durable.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes_atomic(path, b"new")
    assert path.read_bytes() == b"old" and names(tmp_path) == ["file"]


def test_lines_are_appended_and_a_torn_one_is_cut_off(tmp_path):
    path = tmp_path / "log"
    append_line(path, "one")
    with path.open("ab") as file:
        file.write(b"tor")
    append_line(path, "two")
    assert path.read_bytes() == b"one\ntwo\n"
    path.write_bytes(b"only torn")
    append_line(path, "three")
    assert path.read_bytes() == b"three\n"


def test_a_line_that_does_not_fit_leaves_the_earlier_ones(tmp_path, full_disk):
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    with pytest.raises(RunFailedError, match="the disk is full"):
        append_line(path, "two")
    assert path.read_bytes() == b"one\n"


def test_a_line_holds_no_line_end(tmp_path):
    with pytest.raises(ValueError, match="must not hold a line end"):
        append_line(tmp_path / "log", "one\ntwo")


@pytest.mark.parametrize("small_disk", ["256k"], indirect=True)
def test_a_run_on_a_disk_that_fills_up_keeps_all_it_had(small_disk):
    run = RunDir.create(small_disk, "run", {"seed": 1})
    run.save_checkpoint({"step": 1}, 1)
    (small_disk / "ballast").write_bytes(bytes(220 * 1024))
    with pytest.raises(RunFailedError, match="the disk is full"):
        run.save_checkpoint({"weights": bytes(100 * 1024)}, 2)
    with pytest.raises(RunFailedError, match="the disk is full"):
        run.write_json("run.json", {"much": "x" * 100 * 1024})

    def fill():
        for step in range(10_000):
            run.append_metrics({**LINE, "step": step, "candidate": "x" * 500})

    with pytest.raises(RunFailedError, match="the disk is full"):
        fill()
    logged = run.read_metrics()
    assert [line["step"] for line in logged] == list(range(len(logged))) and 0 < len(logged) < 10_000
    assert (run.path / "metrics.jsonl").read_bytes().endswith(b"}\n")
    assert RunDir.open(run.path).record == {"seed": 1, "format": 1}
    assert run.load_checkpoint() == {"step": 1}
    assert not list(run.path.rglob("*.partial"))
    (small_disk / "ballast").unlink()
    run.append_metrics({**LINE, "step": len(logged)})  # and the run goes on where space is free again
    assert len(run.read_metrics()) == len(logged) + 1


def test_no_folder_is_left_where_the_disk_was_full_from_the_start(tmp_path, full_disk):
    with pytest.raises(RunFailedError, match="the disk is full"):
        RunDir.create(tmp_path / "runs", "run", {})
    assert names(tmp_path) == ["runs"]
