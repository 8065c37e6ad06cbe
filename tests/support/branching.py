"""One run of a command from which a process branches off at each call of the disk, where that call fails.

The command itself runs on undisturbed: what a branch did to its folders is undone before the next one begins. So hundreds of
faults cost one run, and as many short ends of it. Only for commands that work in one process without threads.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from faulty_disk import Fault

PATIENCE_S = 100.0
FORK = ctypes.PyDLL(None).fork
Tree = dict[str, bytes | None]  # None: a folder


@dataclass(frozen=True)
class Opened:
    """A file or folder that the command has open."""

    descriptor: int
    path: str
    position: int
    flags: int


class Branches:
    """Branches off one process after the other, and keeps what each one left.

    Args:
        folder: of the trial: ``work`` and ``tmp`` are undone; ``branches.jsonl`` gets a record a branch, ``states`` each
            different state of ``work`` that one left, named by its digest.
        faults: by number and kind of a call, those that are tried there.
    """

    def __init__(self, folder: Path, faults: Callable[[int, str], list[Fault]]) -> None:
        self._folder, self._faults = folder, faults
        self._places = (folder / "work", folder / "tmp")

    def at(self, number: int, kind: str, path: str) -> Fault | None:
        """Every fault of a call: comes back once in each branch with its fault, and at last in the command with None."""
        for fault in self._faults(number, kind):
            before, opened = [read_tree(place) for place in self._places], list(_opened(self._places))
            here = os.getpid()
            process = FORK()  # not by Python, whose hooks would tell libraries that this is another process
            if process == 0:
                for descriptor, name in ((1, "branch.out"), (2, "branch.err")):
                    target = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                    os.dup2(target, descriptor)
                    os.close(target)
                os.getpid = lambda here=here: here  # locks compare it with that of their maker
                threading._after_fork()  # type: ignore[attr-defined]  # there are no other threads here to wait for
                return fault
            code = _waited(process)
            left = read_tree(self._places[0])
            digest = _digest(left)
            if not (self._folder / "states" / digest).exists():
                write_tree(self._folder / "states" / digest, left)
            record = {
                "number": number,
                "kind": kind,
                "path": path.removeprefix(f"{os.path.realpath(self._folder)}/"),
                "error": errno.errorcode[fault.error],
                "lasting": fault.lasting,
                "code": code,
                "err": (self._folder / "branch.err").read_text(errors="replace")[-5000:],
                "state": digest,
            }
            with open(self._folder / "branches.jsonl", "a") as file:
                file.write(json.dumps(record) + "\n")
            for place, tree in zip(self._places, before, strict=True):
                write_tree(place, tree)
            _open_again(opened)
        return None


def read_tree(root: Path) -> Tree:
    """All files and folders below a folder."""
    found: Tree = {}
    for above, folders, files in os.walk(root):
        for name in folders:
            found[os.path.relpath(os.path.join(above, name), root)] = None
        for name in files:
            path = os.path.join(above, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, root)] = file.read()
    return found


def write_tree(root: Path, tree: Tree) -> None:
    """Give a folder this content; what is as it should be stays untouched."""
    root.mkdir(parents=True, exist_ok=True)
    there = read_tree(root)
    for name in sorted(there.keys() - tree.keys(), reverse=True):  # what lies in a folder comes before it
        (os.unlink if there[name] is not None else os.rmdir)(root / name)
    for name, content in sorted(tree.items()):
        if content is None:
            (root / name).mkdir(exist_ok=True)
        elif there.get(name) != content:
            with open(root / name, "r+b" if name in there else "wb") as file:
                file.write(content)
                file.truncate()


def _digest(tree: Tree) -> str:
    """Of a state; the numbers of processes in hidden names do not count."""
    digest = hashlib.sha256()
    for name, content in sorted((re.sub(r"\.\d+\.", ".N.", name), content) for name, content in tree.items()):
        digest.update(f"{name} {'folder' if content is None else hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()[:20]


def _opened(places: tuple[Path, ...]) -> Iterator[Opened]:
    for name in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{name}")
            if path.startswith(tuple(f"{os.path.realpath(place)}{os.sep}" for place in places)):
                position = 0 if os.path.isdir(path) else os.lseek(int(name), 0, os.SEEK_CUR)
                yield Opened(int(name), path, position, fcntl.fcntl(int(name), fcntl.F_GETFL))
        except OSError:  # closed meanwhile: that of the listing itself
            continue


def _open_again(opened: list[Opened]) -> None:
    """Put open files where they were: a branch shares their positions, and may have replaced them."""
    for each in opened:
        if not os.path.exists(each.path):  # removed before, and still open
            continue
        if not os.path.samestat(os.fstat(each.descriptor), os.stat(each.path)):
            new = os.open(each.path, each.flags & ~(os.O_CREAT | os.O_TRUNC | os.O_EXCL))
            os.dup2(new, each.descriptor, inheritable=False)
            os.close(new)
        if not os.path.isdir(each.path):
            os.lseek(each.descriptor, each.position, os.SEEK_SET)


def _waited(process: int) -> int:
    """The exit code of a branch; one that does not end is killed."""
    end = time.monotonic() + PATIENCE_S
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(process, 9)
            os.waitpid(process, 0)
            return -9
        time.sleep(0.002)
