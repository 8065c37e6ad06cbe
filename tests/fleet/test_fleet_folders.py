"""Folders in whole pieces, the watch over pieces of work, and what every machine must have in common."""

import io
import os
import tarfile
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from cosearch.fleet import folders, identity
from cosearch.fleet.folder_making import FolderMaking
from cosearch.fleet.folder_work import FolderJob, FolderMade
from cosearch.fleet.folders import Shared, marked, packed, recover, unmarked, unpack
from cosearch.fleet.identity import Identity, check_identity, identity_here
from cosearch.fleet.log import WorkLog
from cosearch.fleet.watch import Watch
from latency_tables.errors import ConfigError, RunFolderError


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "there" / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (folder / "checkpoints" / "1.pt").write_bytes(b"\x00\x01")
    for half_written in (folder / ".summary.json.77.partial", folder / "checkpoints" / ".2.pt.77.partial"):
        half_written.write_bytes(b"\x00")
    (folder / ".lock").touch()
    return folder


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_comes_back_whole_and_takes_the_place_of_an_older_one(run, tmp_path):
    target = tmp_path / "here" / "run"
    target.mkdir(parents=True)
    (target / "old").touch()
    unpack(packed(run), target)
    assert files(target) == {"run.json": b"{}", "checkpoints/1.pt": b"\x00\x01"}
    assert [path.name for path in target.parent.iterdir()] == ["run"]


def test_a_kill_between_the_two_renamings_loses_nothing(run, tmp_path, monkeypatch):
    target, rename, seen = tmp_path / "here" / "run", os.rename, []
    target.mkdir(parents=True)
    (target / "old").touch()

    def killed(path, to):
        seen.append(path.name)
        if len(seen) == 2:
            raise KeyboardInterrupt
        rename(path, to)

    monkeypatch.setattr(folders.Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        unpack(packed(run), target)
    monkeypatch.undo()
    assert not target.exists()
    recover(target)
    assert list(files(target)) == ["old"] and [path.name for path in target.parent.iterdir()] == ["run"]


def test_one_that_came_back_is_corrected_before_it_is_in_its_place(run, tmp_path):
    """A kill at any time leaves the folder as it was, or corrected: never one with the paths of another machine."""
    (place := tmp_path / "here").mkdir()
    job = FolderJob(Shared(str(place)), "run", None)
    workers = SimpleNamespace(run=lambda jobs, *, done, **_: done(0, FolderMade(folder=packed(run))))

    def killed(name, draft):
        raise KeyboardInterrupt

    def corrected(name, draft):
        assert name == "run" and files(draft)["run.json"] == b"{}" and draft != place / "run"
        (draft / "run.json").write_text("own")

    def damaged(name, draft):
        raise RunFolderError("its record is damaged")

    for arrived in (killed, corrected, killed, damaged):
        before = files(place)
        making = FolderMaking(place, [job], WorkLog(tmp_path, print), print, arrived=arrived)
        with pytest.raises(KeyboardInterrupt) if arrived is killed else nullcontext():
            assert making.make(workers) == ({"run": "its record is damaged"} if arrived is damaged else {})
        assert files(place) == ({"run/run.json": b"own", "run/checkpoints/1.pt": b"\x00\x01"} if arrived is corrected else before)


@pytest.mark.parametrize("name", ["../outside", "/outside"])
def test_a_piece_that_leaves_its_folder_is_refused(name, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(RunFolderError) if name.startswith("..") else pytest.MonkeyPatch.context():
        unpack(buffer.getvalue(), tmp_path / "here" / "run")
    assert not (tmp_path / "here" / "outside").exists() and not (tmp_path / "outside").exists()
    with pytest.raises(RunFolderError, match="is no folder"):
        unpack(b"no archive", tmp_path / "here" / "run")


def test_a_machine_sees_a_folder_by_its_token(tmp_path):
    shared = marked(tmp_path)
    assert shared.seen() and Shared(str(tmp_path)).seen()
    assert not Shared(str(tmp_path), "another").seen() and not Shared(str(tmp_path / "none"), shared.token).seen()
    unmarked(tmp_path)
    assert not shared.seen() and not list(tmp_path.iterdir())


def test_other_code_and_another_torch_are_refused(monkeypatch):
    own = identity_here()
    check_identity(own, other_torch=False)
    with pytest.raises(ConfigError, match=r"has torch .*, this machine 1\.0\+cpu.*pip install torch==1\.0`"):
        check_identity(Identity(own.code, "1.0+cpu"), other_torch=False)
    check_identity(Identity(own.code, "1.0+cpu"), other_torch=True)
    with pytest.raises(ConfigError, match="another cosearch"):
        check_identity(Identity("0" * 64, own.torch), other_torch=True)


def test_the_code_is_told_by_its_sources(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(identity, "package_folders", lambda: (tmp_path,))
    digests = []
    for text in ("x = 1\n", "x = 2\n", "x = 1\n"):
        (tmp_path / "a.py").write_text(text)
        digests.append(identity_here.__wrapped__().code)
    assert digests[0] == digests[2] != digests[1]


def test_the_watch_tells_stuck_slow_and_idle_once(tmp_path):
    now = [0.0]
    watch = Watch(3, WorkLog(tmp_path, print, clock=lambda: now[0]), clock=lambda: now[0])
    watch.started("a", "p1")
    watch.started("b", "p2")
    now[0] = 100.0
    watch.ended("a")
    assert watch.faults() == [] and watch.summary() == "1 of 3 ended, 1 under way, 1 waiting"
    watch.started("c", "p1")
    now[0] = 201.0
    (line,) = watch.faults()
    assert line == "slow: b on p2 takes 3.4 min so far, half of the others took 1.7"
    watch.heard("b")
    watch.ended("c")
    (line,) = watch.faults()
    assert line == "idle: 1 of 2 processes, no work is left for them"
    now[0] = 201.0 + 599.0
    assert watch.faults() == []
    now[0] = 202.0 + 599.0
    assert watch.faults() == ["stuck? b on p2: no word for 10 min"] and watch.faults() == []
    watch.started("b", "p3")
    assert "1 begun again" in watch.summary() and watch.faults() == []
