"""A failing disk and kills: each write of a command, and random moments; a sample of both here, all of it in the slow ones."""

import errno
import subprocess
import sys
from pathlib import Path

import every_write
import kills
import pytest
from branching import read_tree, write_tree
from disturbed import JOBS, fault_of
from faulty_disk import ERRORS, Fault

SUPPORT = Path(__file__).parents[1] / "support"
KNOWN = """
import os, sys
from pathlib import Path
sys.path.insert(0, {support!r})
from faulty_disk import Disk, Fault

here = Path(sys.argv[1])
Disk([here / "in"], here / "calls", Fault({number}, {error}, {lasting}) if {number} else None).install()
try:
    (here / "in" / "a").mkdir()
    with open(here / "in" / "a" / "f", "w") as file:
        file.write("0123456789")
        file.flush()
        os.fsync(file.fileno())
    (here / "in" / "a" / "f").rename(here / "in" / "a" / "g")
    (here / "out").write_text("not counted")
    (here / "in" / "a" / "g").unlink()
    os.rmdir(here / "in" / "a")
except OSError as fault:
    sys.exit(fault.errno)
"""
CALLS = ["mkdir a", "open a/f", "write a/f", "fsync a/f", "rename a/g", "remove a/g", "rmdir a"]


def known(folder, number, error=0, lasting=False):
    """What came of a program whose calls are known: exit code, calls, files that it left."""
    (folder / "in").mkdir(parents=True)
    text = KNOWN.format(support=str(SUPPORT), number=number, error=error, lasting=lasting)
    code = subprocess.run([sys.executable, "-c", text, str(folder)], check=False).returncode
    calls = [line.replace(f"{folder}/in/", "") for line in (folder / "calls").read_text().splitlines()]
    return code, calls, {path.name: path.read_text() for path in folder.glob("in/a/*")}


def test_the_disk_counts_each_kind_of_call_and_lets_the_nth_fail(tmp_path):
    assert known(tmp_path / "0", 0) == (0, CALLS, {})
    for number in range(1, len(CALLS) + 1):
        code, calls, left = known(tmp_path / str(number), number, errno.EIO)
        assert code == errno.EIO and calls[:number] == CALLS[:number]
        if CALLS[number - 1].startswith("write"):
            assert left == {"f": "0123456789"}  # the first half was written, and the rest when the file was closed


def test_a_fault_may_last(tmp_path):
    code, calls, left = known(tmp_path / "full", 3, errno.ENOSPC, True)
    assert code == errno.ENOSPC and calls[:3] == CALLS[:3] and set(calls[3:]) <= {"write a/f"} and left == {"f": "01234"}


def test_every_error_comes_alone_and_lasting_at_every_call():
    for number in range(1, 30):
        found = {(fault.error, fault.lasting) for fault in (fault_of(number, "write", turn) for turn in range(8))}
        assert found == {(error, lasting) for error in ERRORS for lasting in (False, True)}
    assert fault_of(3, "remove", 0) == Fault(3, errno.EROFS, False)


def test_what_a_branch_did_to_a_folder_is_undone(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a").write_bytes(b"a")
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "b").write_bytes(b"b")
    before, inode = read_tree(tmp_path), (tmp_path / "kept" / "a").stat().st_ino
    (tmp_path / "kept" / "a").write_bytes(b"longer")
    (tmp_path / "gone" / "b").unlink()
    (tmp_path / "gone").rmdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "c").touch()
    write_tree(tmp_path, before)
    assert read_tree(tmp_path) == before == {"kept": None, "kept/a": b"a", "gone": None, "gone/b": b"b"}
    assert (tmp_path / "kept" / "a").stat().st_ino == inode


def check(records, trials):
    """All trials were made, and each was right."""
    wrong = [record for record in records if record["wrong"]]
    assert not wrong, f"{len(wrong)} of {len(records)}: {wrong[0]}"
    assert len(records) >= trials


def test_a_sample_of_failing_writes(tmp_path):
    records = every_write.campaign(tmp_path, tmp_path / "scratch", ["sample"], [0], every=6)
    check(records, 5)
    assert {record["code"] for record in records} >= {1} and any(record.get("resumed") for record in records)


def test_a_few_kills(tmp_path):
    records = kills.campaign(tmp_path, tmp_path / "scratch", ["teacher"], kills=4)
    check(records, 1)
    assert sum(len(kills.killed(record)) for record in records) >= 2


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", JOBS)
def test_every_write(name, tmp_path):
    """``pytest -m slow tests/faults -k every_write``: each call of the disk of each command fails twice."""
    check(every_write.campaign(tmp_path, tmp_path / "scratch", [name], [0, 1]), 10)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_two_hundred_kills(tmp_path):
    """``pytest -m slow tests/faults -k kills``."""
    records = kills.campaign(tmp_path, tmp_path / "scratch", list(kills.KILLED), kills=200)
    check(records, len(kills.KILLED))
    assert sum(len(kills.killed(record)) for record in records) >= 200
